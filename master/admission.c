#include "master/admission.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/replays.h"

#define LOG_MODULE LOG_MODULE_SESSION

// Handshakes that are remembered, about 130 bytes each: what 45 workers at their usual
// limit can let in within the time.
enum { REPLAYS_CAPACITY = 1 << 20 };

// A login that waits for the word of another gateway.
struct pending {
  LIST_ENTRY(pending) link;
  struct admission *admission;
  int worker;
  bool cancelled;
  struct channel_login login;
};

LIST_HEAD(pending_logins, pending);

struct admission {
  struct admission_options options;
  struct replays *replays;
  struct pending_logins pending;
};

struct admission *admission_new(const struct admission_options *options) {
  struct admission *admission = calloc(1, sizeof *admission);
  if (!admission) {
    return NULL;
  }
  admission->options = *options;
  LIST_INIT(&admission->pending);
  // A client's clock may be as far ahead as it may be behind: a handshake that came as
  // early as it could is good for twice the tolerance, which counts whole seconds.
  admission->replays =
      replays_new(2 * options->config->limits.handshake_clock_ms + 1000, REPLAYS_CAPACITY);
  if (!admission->replays) {
    free(admission);
    return NULL;
  }
  return admission;
}

void admission_free(struct admission *admission) {
  if (admission) {
    replays_free(admission->replays);
    free(admission);
  }
}

static bool is_sibling(const struct channel_session *one, const struct channel_session *other) {
  return one->uid == other->uid && one->client == other->client;
}

struct search {
  const struct channel_session *newcomer;
  bool found;
};

static bool look_for_sibling(struct directory_session *session, void *context) {
  struct search *search = context;
  search->found = is_sibling(&session->session, search->newcomer);
  return !search->found;
}

static bool has_sibling(const struct admission *admission, const struct channel_session *newcomer) {
  struct search search = {.newcomer = newcomer};
  const struct pending *pending;
  directory_each_of(admission->options.directory, newcomer->uid, look_for_sibling, &search);
  LIST_FOREACH(pending, &admission->pending, link) {
    search.found =
        search.found || (!pending->cancelled && is_sibling(&pending->login.session, newcomer));
  }
  return search.found;
}

// With encryption off there is no key: anyone can say anything, and nothing is checked.
//
// A client may use one key on each of its streams. Whoever sends a captured handshake on a
// connection of his own has no session of that player there.
static int32_t check_replay(struct admission *admission, const struct channel_login *login) {
  if (!admission->options.config->label.encrypted) {
    return CHANNEL_LOGIN_ADMITTED;
  }
  int64_t now_ms = clock_monotonic_ms();
  switch (replays_check(admission->replays, login->client_key, now_ms)) {
    case REPLAYS_FIRST: return CHANNEL_LOGIN_ADMITTED;
    case REPLAYS_FIRST_FULL:
      counters_add(admission->options.counters, COUNTER_REPLAYS_FORGOTTEN, 1);
      return CHANNEL_LOGIN_ADMITTED;
    case REPLAYS_AGAIN:
      return has_sibling(admission, &login->session) ? CHANNEL_LOGIN_ADMITTED
                                                     : CLOSE_HANDSHAKE_REPLAY;
    case REPLAYS_NO_MEMORY: break;
  }
  return CLOSE_OUT_OF_MEMORY;
}

// --- A player who comes a second time ------------------------------------------------

struct rivals {
  const struct admission *admission;
  const struct channel_session *newcomer;
  bool close;
  size_t count;
};

// Sessions of one player on one client are siblings, not rivals.
static bool look_at_rival(struct directory_session *session, void *context) {
  struct rivals *rivals = context;
  const struct admission_options *options = &rivals->admission->options;
  if (!is_sibling(&session->session, rivals->newcomer)) {
    rivals->count++;
    if (rivals->close) {
      options->on_conflict(session, options->owner);
    }
  }
  return true;
}

static bool refuses_second(const struct admission *admission) {
  return admission->options.config->login.conflict == LOGIN_REFUSE_SECOND;
}

static void refuse(struct admission *admission, int worker, uint64_t connection, int32_t reason) {
  const struct admission_options *options = &admission->options;
  options->on_answer(worker, connection, NULL, reason, options->owner);
}

// The last word: whether the player is at this gateway already is known at once. False: refused.
static bool admit(struct admission *admission, int worker, const struct channel_login *login,
                  bool route_written) {
  const struct admission_options *options = &admission->options;
  const struct channel_session *newcomer = &login->session;
  struct rivals rivals = {
      .admission = admission, .newcomer = newcomer, .close = !refuses_second(admission)};
  directory_each_of(options->directory, newcomer->uid, look_at_rival, &rivals);
  if (rivals.count > 0 && !rivals.close) {
    refuse(admission, worker, newcomer->connection, CLOSE_CONFLICTING_LOGIN);
    return false;
  }
  struct directory_session *added = directory_add(options->directory, newcomer, worker);
  if (!added) {
    log_limited(LOG_LEVEL_ERROR, "session_not_listed",
                "connection=%" PRIu64 " uid=%lld of_worker=%d", newcomer->connection,
                (long long)newcomer->uid, worker);
    refuse(admission, worker, newcomer->connection, CLOSE_OUT_OF_MEMORY);
    return false;
  }
  added->route_written = route_written;
  options->on_answer(worker, newcomer->connection, added, CHANNEL_LOGIN_ADMITTED, options->owner);
  return true;
}

// --- Logins that wait for the word of another gateway ----------------------------------

static bool is_banned(const struct admission *admission, const struct channel_session *newcomer) {
  return bans_find(admission->options.bans, newcomer->uid, newcomer->address, clock_wall_ms());
}

static void on_others_answer(bool may_come, bool route_written, void *context) {
  struct pending *pending = context;
  const struct admission_options *options = &pending->admission->options;
  const struct channel_session *newcomer = &pending->login.session;
  LIST_REMOVE(pending, link);
  int32_t refusal = !may_come                                 ? CLOSE_CONFLICTING_LOGIN
                    : is_banned(pending->admission, newcomer) ? CLOSE_BANNED  // meanwhile
                                                              : CHANNEL_LOGIN_ADMITTED;
  bool came = false;
  if (!pending->cancelled && refusal == CHANNEL_LOGIN_ADMITTED) {
    came = admit(pending->admission, pending->worker, &pending->login, route_written);
  } else if (!pending->cancelled) {
    refuse(pending->admission, pending->worker, newcomer->connection, refusal);
  }
  if (!came && route_written &&
      !directory_has_player(options->directory, newcomer->uid, newcomer->color)) {
    options->on_unused_route(newcomer->uid, newcomer->color, options->owner);
  }
  free(pending);
}

// False: there is nobody to ask.
static bool ask_others(struct admission *admission, int worker, const struct channel_login *login) {
  const struct admission_options *options = &admission->options;
  struct pending *pending =
      options->others && refuses_second(admission) ? calloc(1, sizeof *pending) : NULL;
  if (!pending) {
    return false;
  }
  pending->admission = admission;
  pending->worker = worker;
  pending->login = *login;
  LIST_INSERT_HEAD(&admission->pending, pending, link);
  if (!other_gateways_ask(options->others, login->session.uid, login->session.color,
                          on_others_answer, pending)) {
    LIST_REMOVE(pending, link);
    free(pending);
    return false;
  }
  return true;
}

bool admission_expects(const struct admission *admission, int64_t uid, const char *color) {
  const struct pending *pending;
  LIST_FOREACH(pending, &admission->pending, link) {
    const struct channel_session *newcomer = &pending->login.session;
    if (newcomer->uid == uid && strcmp(newcomer->color, color) == 0) {
      return true;
    }
  }
  return false;
}

void admission_cancel(struct admission *admission, int worker, uint64_t connection) {
  struct pending *pending;
  LIST_FOREACH(pending, &admission->pending, link) {
    if (pending->worker == worker && pending->login.session.connection == connection) {
      pending->cancelled = true;
    }
  }
}

void admission_worker_gone(struct admission *admission, int worker) {
  struct pending *pending;
  LIST_FOREACH(pending, &admission->pending, link) {
    pending->cancelled = pending->cancelled || pending->worker == worker;
  }
}

// --- A login ---------------------------------------------------------------------------

static bool is_second_here(struct admission *admission, const struct channel_session *newcomer) {
  struct rivals rivals = {.admission = admission, .newcomer = newcomer};
  directory_each_of(admission->options.directory, newcomer->uid, look_at_rival, &rivals);
  return rivals.count > 0;
}

void admission_ask(struct admission *admission, int worker, const struct channel_login *login) {
  const struct channel_session *newcomer = &login->session;
  // First of all, or a captured handshake could throw its player out.
  int32_t refusal = check_replay(admission, login);
  if (refusal == CHANNEL_LOGIN_ADMITTED && is_banned(admission, newcomer)) {
    refusal = CLOSE_BANNED;
  }
  if (refusal == CHANNEL_LOGIN_ADMITTED && refuses_second(admission) &&
      is_second_here(admission, newcomer)) {
    refusal = CLOSE_CONFLICTING_LOGIN;
  }
  if (refusal != CHANNEL_LOGIN_ADMITTED) {
    refuse(admission, worker, newcomer->connection, refusal);
  } else if (!ask_others(admission, worker, login)) {
    admit(admission, worker, login, false);
  }
}
