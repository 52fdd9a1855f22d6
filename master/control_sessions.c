// janusctl's commands about sessions: which there are, one in detail, and closing them.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/networks.h"
#include "master/bans.h"
#include "master/control_command.h"
#include "master/session_reports.h"

#define LOG_MODULE LOG_MODULE_CONTROL

// --- Which sessions -------------------------------------------------------------------

// All of what a request names must fit.
struct session_filter {
  bool has_uid, has_sid, has_worker, has_network;
  int64_t uid, sid, worker;
  struct network network;  // of the client's address
  const char *color;       // NULL for any
};

// Returns what is wrong with it, or NULL. *empty: it names nothing at all.
static const char *filter_read(const json_t *request, struct session_filter *filter, bool *empty) {
  const json_t *uid = json_object_get(request, "uid");
  const json_t *sid = json_object_get(request, "sid");
  const json_t *worker = json_object_get(request, "worker");
  const char *address = json_string_value(json_object_get(request, "address"));
  *filter = (struct session_filter){
      .has_uid = json_is_integer(uid),
      .has_sid = json_is_integer(sid),
      .has_worker = json_is_integer(worker),
      .has_network = address != NULL,
      .uid = json_integer_value(uid),
      .sid = json_integer_value(sid),
      .worker = json_integer_value(worker),
      .color = json_string_value(json_object_get(request, "color")),
  };
  *empty =
      !filter->has_uid && !filter->has_sid && !filter->has_worker && !address && !filter->color;
  return address && network_parse(address, &filter->network) != 0
             ? "the address is an IP, or a network such as 192.0.2.0/24"
             : NULL;
}

static bool filter_fits(const struct session_filter *filter,
                        const struct directory_session *session) {
  const struct channel_session *one = &session->session;
  uint8_t address[NETWORK_ADDRESS_BYTES];
  return (!filter->has_uid || filter->uid == one->uid) &&
         (!filter->has_sid || filter->sid == one->sid) &&
         (!filter->has_worker || filter->worker == session->worker) &&
         (!filter->color || strcmp(filter->color, one->color) == 0) &&
         (!filter->has_network || (network_parse_address(one->address, address) == 0 &&
                                   network_has(&filter->network, address)));
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

// --- The list ----------------------------------------------------------------------------

enum sort { SORT_NONE, SORT_AGE, SORT_TRAFFIC, SORT_QUEUE, SORT_HOT };

static enum sort sort_named(const char *name) {
  return !name                          ? SORT_NONE
         : strcmp(name, "age") == 0     ? SORT_AGE
         : strcmp(name, "traffic") == 0 ? SORT_TRAFFIC
         : strcmp(name, "queue") == 0   ? SORT_QUEUE
         : strcmp(name, "hot") == 0     ? SORT_HOT
                                        : SORT_NONE;
}

struct row {
  struct channel_session session;
  int worker;
  uint64_t key;                          // the higher, the earlier in the list
  struct channel_session_report report;  // connection 0: there is none
};

struct listing {
  struct question question;
  struct session_filter filter;
  enum sort sort;
  size_t limit;
  size_t total;  // sessions there are
  size_t fit;    // those that the filter lets through
  struct row *rows;
  size_t count;
  size_t room;
};

static json_t *session_to_json(const struct channel_session *session, int worker) {
  return json_pack("{s:I, s:o, s:I, s:i, s:I, s:s, s:s, s:I}", "uid", (json_int_t)session->uid,
                   "color", json_foreign_text(session->color), "sid", (json_int_t)session->sid,
                   "worker", worker, "connection", (json_int_t)session->connection, "address",
                   session->address, "transport", session->transport, "since_ms",
                   (json_int_t)session->since_ms);
}

static double per_s(uint64_t count, int64_t ms) {
  return ms > 0 ? (double)count * 1000 / (double)ms : 0;
}

static void add_report(json_t *one, const struct channel_session_report *report) {
  json_t *more = json_pack(
      "{s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:b, s:b}", "messages_in",
      (json_int_t)report->messages_in, "messages_out", (json_int_t)report->messages_out, "bytes_in",
      (json_int_t)report->bytes_in, "bytes_out", (json_int_t)report->bytes_out, "messages_in_per_s",
      per_s(report->recent_messages_in, report->recent_ms), "messages_out_per_s",
      per_s(report->recent_messages_out, report->recent_ms), "queued_bytes",
      (json_int_t)report->queued_bytes, "pushes_waiting", (json_int_t)report->pushes_waiting,
      "quiet_ms", (json_int_t)report->quiet_ms, "tunnels", (json_int_t)report->tunnels,
      "input_paused", report->input_paused, "output_paused", report->output_paused);
  json_object_update(one, more);
  json_decref(more);
}

static bool note_session(struct directory_session *session, void *context) {
  struct listing *listing = context;
  if (!filter_fits(&listing->filter, session)) {
    return true;
  }
  listing->fit++;
  if (listing->sort == SORT_NONE && listing->count == listing->limit) {
    return true;  // any will do where they are not to be sorted
  }
  if (listing->count == listing->room) {
    size_t room = listing->room > 0 ? listing->room * 2 : 128;
    struct row *larger = realloc(listing->rows, room * sizeof *larger);
    if (!larger) {
      return false;
    }
    listing->rows = larger;
    listing->room = room;
  }
  listing->rows[listing->count++] = (struct row){
      .session = session->session,
      .worker = session->worker,
      .key = UINT64_MAX - (uint64_t)session->session.since_ms,  // the oldest first
  };
  return true;
}

static int compare_rows(const void *a, const void *b) {
  const struct row *left = a;
  const struct row *right = b;
  return left->key != right->key ? (left->key > right->key ? -1 : 1)
                                 : (left->session.connection < right->session.connection ? -1 : 1);
}

static json_t *listing_answer(struct listing *listing) {
  json_t *rows = json_array();
  if (listing->sort != SORT_NONE && listing->count > 0) {
    qsort(listing->rows, listing->count, sizeof *listing->rows, compare_rows);
  }
  for (size_t i = 0; i < listing->count && i < listing->limit; i++) {
    json_t *one = session_to_json(&listing->rows[i].session, listing->rows[i].worker);
    if (listing->rows[i].report.connection != 0) {
      add_report(one, &listing->rows[i].report);
    }
    json_array_append_new(rows, one);
  }
  json_t *answer = control_ok();
  json_object_set_new(answer, "total", json_integer((json_int_t)listing->total));
  json_object_set_new(answer, "fit", json_integer((json_int_t)listing->fit));
  json_object_set_new(answer, "sessions", rows);
  free(listing->rows);
  return answer;
}

static int compare_reports(const void *a, const void *b) {
  const struct channel_session_report *left = a;
  const struct channel_session_report *right = b;
  return (left->connection > right->connection) - (left->connection < right->connection);
}

static uint64_t sort_key(enum sort sort, const struct channel_session_report *report) {
  uint64_t recent = report->recent_messages_in + report->recent_messages_out;
  return sort == SORT_TRAFFIC ? report->bytes_in + report->bytes_out
         : sort == SORT_HOT   ? (uint64_t)(per_s(recent, report->recent_ms) * 1000)
                              : report->queued_bytes;
}

static void on_reports(struct session_reports_answer *reports, void *context) {
  struct listing *listing = context;
  if (reports->session_count > 0) {
    qsort(reports->sessions, reports->session_count, sizeof *reports->sessions, compare_reports);
  }
  for (size_t i = 0; i < listing->count; i++) {
    struct row *row = &listing->rows[i];
    const struct channel_session_report wanted = {.connection = row->session.connection};
    const struct channel_session_report *report =
        reports->session_count > 0 ? bsearch(&wanted, reports->sessions, reports->session_count,
                                             sizeof wanted, compare_reports)
                                   : NULL;
    row->key = 0;
    if (report) {
      row->report = *report;
      row->key = sort_key(listing->sort, report);
    }
  }
  json_t *answer = listing_answer(listing);
  json_object_set_new(answer, "complete", json_boolean(reports->complete));
  listing->question.reply(answer, listing->question.context);
  free(listing);
}

json_t *control_sessions(struct master *master, const json_t *request, struct question *question) {
  const char *sort = json_string_value(json_object_get(request, "sort"));
  struct listing listing = {.question = *question,
                            .sort = sort_named(sort),
                            .limit = control_list_limit(request),
                            .total = directory_count(master->directory)};
  bool empty;
  const char *wrong = filter_read(request, &listing.filter, &empty);
  if (wrong || (sort && listing.sort == SORT_NONE)) {
    return control_error(wrong ? wrong : "sort by age, traffic, queue or hot");
  }
  filter_each(master, &listing.filter, note_session, &listing);
  if (listing.sort == SORT_NONE || listing.sort == SORT_AGE) {
    return listing_answer(&listing);
  }
  struct listing *later = malloc(sizeof *later);
  if (later) {
    *later = listing;
    later->filter.color = NULL;  // the request's, which does not stay
  }
  if (!later || session_reports_ask(master->session_reports, 0, 0, on_reports, later) != 0) {
    free(later);
    free(listing.rows);
    return control_error("the workers can't be asked now");
  }
  return NULL;
}

// --- One session ---------------------------------------------------------------------------

struct detail {
  struct master *master;
  struct question question;
};

static json_t *tunnels_to_json(const struct master *master,
                               const struct session_reports_answer *reports) {
  json_t *rows = json_array();
  for (size_t i = 0; i < reports->tunnel_count; i++) {
    const struct channel_tunnel_report *tunnel = &reports->tunnels[i];
    const char *type = tunnel->tunnel_type < master->config.tunnel.type_count
                           ? master->config.tunnel.types[tunnel->tunnel_type].name
                           : "unknown";
    json_array_append_new(
        rows, json_pack("{s:s, s:I, s:s, s:s, s:I, s:I}", "type", type, "oid",
                        (json_int_t)tunnel->oid, "state", tunnel->state, "address", tunnel->address,
                        "queued_messages", (json_int_t)tunnel->queued_messages, "queued_bytes",
                        (json_int_t)tunnel->queued_bytes));
  }
  return rows;
}

static json_t *path_to_json(const struct channel_path_report *path) {
  const double loss =
      path->segments_out > 0 ? (double)path->retransmits * 100 / (double)path->segments_out : 0;
  return json_pack(
      "{s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "srtt_ms",
      (json_int_t)path->srtt_ms, "rto_ms", (json_int_t)path->rto_ms, "loss_percent", loss,
      "retransmits", (json_int_t)path->retransmits, "fec_recovered", (json_int_t)path->recovered,
      "segments_in", (json_int_t)path->segments_in, "segments_out", (json_int_t)path->segments_out,
      "datagrams_in", (json_int_t)path->datagrams_in, "datagrams_out",
      (json_int_t)path->datagrams_out, "client_window", (json_int_t)path->client_window,
      "gateway_window", (json_int_t)path->gateway_window, "in_flight", (json_int_t)path->in_flight,
      "stream_window_bytes", (json_int_t)path->stream_window, "streams", (json_int_t)path->streams);
}

static void on_detail(struct session_reports_answer *reports, void *context) {
  struct detail *detail = context;
  json_t *answer = detail->question.answer;
  if (reports->session_count > 0) {
    add_report(json_object_get(answer, "session"), &reports->sessions[0]);
  }
  if (reports->path.id != 0) {
    json_object_set_new(answer, "path", path_to_json(&reports->path));
  }
  json_object_set_new(answer, "tunnels", tunnels_to_json(detail->master, reports));
  json_object_set_new(answer, "complete",
                      json_boolean(reports->complete && reports->session_count > 0));
  detail->question.reply(answer, detail->question.context);
  free(detail);
}

static bool count_session(struct directory_session *session, void *context) {
  (void)session;
  ++*(json_int_t *)context;
  return true;
}

json_t *control_session(struct master *master, const json_t *request, struct question *question) {
  const json_t *uid = json_object_get(request, "uid");
  const struct directory_session *session =
      json_is_integer(uid) ? directory_session_of(master->directory, json_integer_value(uid))
                           : NULL;
  if (!session) {
    return control_error(json_is_integer(uid) ? "the player is not here" : "whose? name a uid");
  }
  struct detail *detail = malloc(sizeof *detail);
  if (!detail) {
    return control_error("out of memory");
  }
  json_int_t siblings = -1;  // itself
  directory_each_of(master->directory, session->session.uid, count_session, &siblings);
  *detail = (struct detail){.master = master, .question = *question};
  detail->question.answer = control_ok();
  json_object_set_new(detail->question.answer, "session",
                      session_to_json(&session->session, session->worker));
  json_object_set_new(detail->question.answer, "siblings", json_integer(siblings));
  json_object_set_new(detail->question.answer, "route_written",
                      json_boolean(session->route_written || !master->redis));
  if (session_reports_ask(master->session_reports, session->worker, session->session.connection,
                          on_detail, detail) != 0) {
    json_decref(detail->question.answer);
    free(detail);
    return control_error("the worker can't be asked now");
  }
  return NULL;
}

// --- Closing them ----------------------------------------------------------------------------

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

// What was asked for, for the log: uid=10001 color=blue.
static void filter_text(const json_t *request, char *text, size_t size) {
  static const char *const members[] = {"uid", "sid", "worker", "color", "address"};
  size_t len = 0;
  for (size_t i = 0; i < sizeof members / sizeof *members && len < size; i++) {
    const json_t *value = json_object_get(request, members[i]);
    const char *string = json_string_value(value);
    const char *space = len > 0 ? " " : "";
    int written = 0;
    if (string) {
      written = snprintf(text + len, size - len, "%s%s=%s", space, members[i], string);
    } else if (value) {
      written = snprintf(text + len, size - len, "%s%s=%" JSON_INTEGER_FORMAT, space, members[i],
                         json_integer_value(value));
    }
    len += written > 0 ? (size_t)written : 0;
  }
}

json_t *control_kick(struct master *master, const json_t *request, struct question *question) {
  struct kick kick = {.master = master, .code = LOGOUT_ADMIN_KICK_OUT};
  const char *code = json_string_value(json_object_get(request, "code"));
  const char *reason = json_string_value(json_object_get(request, "reason"));
  char said[128], text[200] = "", whom[256];
  bool empty;
  const char *wrong = filter_read(request, &kick.filter, &empty);
  (void)question;
  if (wrong || empty) {
    return control_error(wrong ? wrong : "kick whom? name a uid, color, sid, address or worker");
  }
  if (code && (kick.code = logout_code_named(code)) == LOGOUT_NONE) {
    return control_error(
        "the code is one of server, waiting, unauthorized, conflicting-login, admin-kick-out, "
        "banned");
  }
  filter_each(master, &kick.filter, kick_session, &kick);
  reason = reason ? reason : "";
  filter_text(request, text, sizeof text);
  log_warn("kicked", "sessions=%lld whom=%s code=%s reason=%s", (long long)kick.count,
           log_quote(whom, sizeof whom, text, strlen(text)), logout_code_name(kick.code),
           log_quote(said, sizeof said, reason, strlen(reason)));
  if (kick.count == 0) {
    return control_error("no session is like that");
  }
  json_t *answer = control_ok();
  json_object_set_new(answer, "kicked", json_integer(kick.count));
  return answer;
}
