// janusctl's commands about sessions.
#include <string.h>

#include "common/log.h"
#include "master/control_command.h"

// Which sessions a request means: all of what it names must fit.
struct session_filter {
  bool has_uid, has_sid, has_worker;
  int64_t uid, sid, worker;
  const char *color;    // NULL for any
  const char *address;  // of the client, without its port; NULL for any
};

// False when it names none at all.
static bool filter_read(const json_t *request, struct session_filter *filter) {
  const json_t *uid = json_object_get(request, "uid");
  const json_t *sid = json_object_get(request, "sid");
  const json_t *worker = json_object_get(request, "worker");
  *filter = (struct session_filter){
      .has_uid = json_is_integer(uid),
      .has_sid = json_is_integer(sid),
      .has_worker = json_is_integer(worker),
      .uid = json_integer_value(uid),
      .sid = json_integer_value(sid),
      .worker = json_integer_value(worker),
      .color = json_string_value(json_object_get(request, "color")),
      .address = json_string_value(json_object_get(request, "address")),
  };
  return filter->has_uid || filter->has_sid || filter->has_worker || filter->color ||
         filter->address;
}

static bool filter_fits(const struct session_filter *filter,
                        const struct directory_session *session) {
  const struct channel_session *one = &session->session;
  const char *port = strrchr(one->address, ':');
  size_t host_len = port ? (size_t)(port - one->address) : strlen(one->address);
  return (!filter->has_uid || filter->uid == one->uid) &&
         (!filter->has_sid || filter->sid == one->sid) &&
         (!filter->has_worker || filter->worker == session->worker) &&
         (!filter->color || strcmp(filter->color, one->color) == 0) &&
         (!filter->address || (strlen(filter->address) == host_len &&
                               memcmp(filter->address, one->address, host_len) == 0));
}

// Those that may fit: all, or the player's.
static void filter_each(const struct master *master, const struct session_filter *filter,
                        directory_visit *visit, void *context) {
  if (filter->has_uid) {
    directory_each_of(master->directory, filter->uid, visit, context);
  } else {
    directory_each(master->directory, visit, context);
  }
}

struct listing {
  json_t *rows;
  size_t limit;
  const struct session_filter *filter;
};

static bool list_session(struct directory_session *session, void *context) {
  struct listing *listing = context;
  const struct channel_session *one = &session->session;
  if (!filter_fits(listing->filter, session)) {
    return true;
  }
  if (json_array_size(listing->rows) >= listing->limit) {
    return false;
  }
  json_array_append_new(
      listing->rows,
      json_pack("{s:I, s:o, s:I, s:i, s:I, s:s, s:I}", "uid", (json_int_t)one->uid, "color",
                control_foreign_text(one->color), "sid", (json_int_t)one->sid, "worker",
                session->worker, "connection", (json_int_t)one->connection, "address", one->address,
                "since_ms", (json_int_t)one->since_ms));
  return true;
}

json_t *control_sessions(struct master *master, const json_t *request, struct question *question) {
  struct session_filter filter;
  filter_read(request, &filter);
  struct listing listing = {
      .rows = json_array(), .limit = control_list_limit(request), .filter = &filter};
  (void)question;
  filter_each(master, &filter, list_session, &listing);
  json_t *answer = control_ok();
  json_object_set_new(answer, "total",
                      json_integer((json_int_t)directory_count(master->directory)));
  json_object_set_new(answer, "sessions", listing.rows);
  return answer;
}

struct kick {
  struct master *master;
  struct session_filter filter;
  enum logout_code code;
  json_int_t count;
};

static bool kick_session(struct directory_session *session, void *context) {
  struct kick *kick = context;
  if (filter_fits(&kick->filter, session)) {
    kick->count++;
    master_close_session(kick->master, session, CLOSE_KICKED, kick->code);
  }
  return true;
}

json_t *control_kick(struct master *master, const json_t *request, struct question *question) {
  struct kick kick = {.master = master, .code = LOGOUT_ADMIN_KICK_OUT};
  const char *code = json_string_value(json_object_get(request, "code"));
  const char *reason = json_string_value(json_object_get(request, "reason"));
  char said[128];
  (void)question;
  if (!filter_read(request, &kick.filter)) {
    return control_error("kick whom? name a uid, color, sid, address or worker");
  }
  if (code && (kick.code = logout_code_named(code)) == LOGOUT_NONE) {
    return control_error(
        "the code is one of server, waiting, unauthorized, conflicting-login, admin-kick-out, "
        "banned");
  }
  filter_each(master, &kick.filter, kick_session, &kick);
  reason = reason ? reason : "";
  log_warn("kicked", "sessions=%lld code=%d reason=%s", (long long)kick.count, (int)kick.code,
           log_quote(said, sizeof said, reason, strlen(reason)));
  if (kick.count == 0) {
    return control_error("no session is like that");
  }
  json_t *answer = control_ok();
  json_object_set_new(answer, "kicked", json_integer(kick.count));
  return answer;
}
