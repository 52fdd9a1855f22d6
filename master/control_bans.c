// janusctl's commands about bans.

#include "common/clock.h"
#include "master/bans.h"
#include "master/control_command.h"

static const int64_t FOR_MAX_MS = INT64_C(100) * 365 * 24 * 60 * 60 * 1000;

// Whom a request means: just one of uid and address. Returns what is wrong, or NULL.
static const char *subject_read(const json_t *request, struct ban_subject *subject) {
  const json_t *uid = json_object_get(request, "uid");
  const char *address = json_string_value(json_object_get(request, "address"));
  if (json_is_integer(uid) == (address != NULL)) {
    return "whom? name a uid, or an address or network";
  }
  if (!address) {
    *subject = (struct ban_subject){.kind = BAN_UID, .uid = json_integer_value(uid)};
    return NULL;
  }
  *subject = (struct ban_subject){.kind = BAN_NETWORK};
  return network_parse(address, &subject->network) == 0
             ? NULL
             : "the address is an IP, or a network such as 192.0.2.0/24";
}

// As the list of bans names it.
static json_t *subject_answer(const struct ban_subject *subject) {
  char field[BAN_FIELD_BYTES];
  json_t *answer = control_ok();
  ban_field(subject, field);
  json_object_set_new(answer, "who", json_string(field));
  return answer;
}

static const char *refusal_text(int error) {
  switch (error) {
    case ERROR_EXPIRED: return "that time is over already";
    case ERROR_TOO_LARGE: return "the reason is longer than 100 bytes";
    case ERROR_INVALID: return "the reason has characters that are no text";
    case ERROR_EXHAUSTED: return "there are too many bans already, or too many wait for Redis";
    case ERROR_NOT_FOUND: return "there is no such ban";
    default: return "out of memory";
  }
}

struct count {
  const struct ban *ban;
  json_int_t sessions;
};

static bool count_if_fits(struct directory_session *session, void *context) {
  struct count *count = context;
  count->sessions += ban_fits(count->ban, session->session.uid, session->session.address);
  return true;
}

json_t *control_ban(struct master *master, const json_t *request, struct question *question) {
  const char *reason = json_string_value(json_object_get(request, "reason"));
  const json_t *for_ms = json_object_get(request, "for_ms");
  int64_t now_ms = clock_wall_ms();
  struct ban ban = {.since_ms = now_ms};
  const char *wrong = subject_read(request, &ban.subject);
  (void)question;
  if (wrong) {
    return control_error(wrong);
  }
  if (json_is_integer(for_ms) && json_integer_value(for_ms) > FOR_MAX_MS) {
    return control_error("the time is at most 100 years; a ban without one is for good");
  }
  const int64_t until_ms = json_is_integer(for_ms) ? now_ms + json_integer_value(for_ms) : 0;
  struct count count = {.ban = &ban};
  directory_each(master->directory, count_if_fits, &count);
  int error = bans_add(master->bans, &ban.subject, until_ms, reason ? reason : "", now_ms);
  if (error != 0) {
    return control_error(refusal_text(error));
  }
  json_t *answer = subject_answer(&ban.subject);
  json_object_set_new(answer, "closed", json_integer(count.sessions));
  if (until_ms != 0) {
    json_object_set_new(answer, "until_ms", json_integer((json_int_t)until_ms));
  }
  return answer;
}

json_t *control_unban(struct master *master, const json_t *request, struct question *question) {
  struct ban_subject subject;
  const char *wrong = subject_read(request, &subject);
  (void)question;
  if (wrong) {
    return control_error(wrong);
  }
  int error = bans_remove(master->bans, &subject, clock_wall_ms());
  return error == 0 ? subject_answer(&subject) : control_error(refusal_text(error));
}

struct listing {
  json_t *rows;
  size_t limit;
};

static bool list_ban(const struct ban *ban, void *context) {
  struct listing *listing = context;
  char field[BAN_FIELD_BYTES];
  ban_field(&ban->subject, field);
  json_t *one = json_pack("{s:s, s:s}", "who", field, "reason", ban->reason);
  json_object_set_new(one, "by", json_foreign_text(ban->by));
  if (ban->since_ms != 0) {
    json_object_set_new(one, "since_ms", json_integer((json_int_t)ban->since_ms));
  }
  if (ban->until_ms != 0) {
    json_object_set_new(one, "until_ms", json_integer((json_int_t)ban->until_ms));
  }
  json_array_append_new(listing->rows, one);
  return json_array_size(listing->rows) < listing->limit;
}

json_t *control_bans(struct master *master, const json_t *request, struct question *question) {
  struct listing listing = {.rows = json_array(), .limit = control_list_limit(request)};
  struct bans_health health;
  (void)question;
  bans_health(master->bans, &health);
  bans_each(master->bans, clock_wall_ms(), list_ban, &listing);
  json_t *answer = control_ok();
  json_object_set_new(answer, "total",
                      json_integer((json_int_t)health.uids + (json_int_t)health.networks));
  json_object_set_new(answer, "shared", json_boolean(health.shared));
  json_object_set_new(answer, "pending_writes",
                      json_integer((json_int_t)health.store.pending_writes));
  if (health.store.last_error_ms != 0) {
    json_object_set_new(answer, "last_error", json_foreign_text(health.store.last_error));
  }
  json_object_set_new(answer, "bans", listing.rows);
  return answer;
}
