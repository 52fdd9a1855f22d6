#include "master/admission.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/replays.h"

// Handshakes that are remembered, about 130 bytes each: what 45 workers at their usual
// limit can let in within the time.
enum { REPLAYS_CAPACITY = 1 << 20 };

struct admission {
  struct admission_options options;
  struct replays *replays;
};

struct admission *admission_new(const struct admission_options *options) {
  struct admission *admission = calloc(1, sizeof *admission);
  if (!admission) {
    return NULL;
  }
  admission->options = *options;
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

// With encryption off there is no key: anyone can say anything, and nothing is checked.
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
    case REPLAYS_AGAIN: return CLOSE_HANDSHAKE_REPLAY;
    case REPLAYS_NO_MEMORY: break;
  }
  return CLOSE_OUT_OF_MEMORY;
}

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
  if (session->session.client != rivals->newcomer->client) {
    rivals->count++;
    if (rivals->close) {
      options->on_conflict(session, options->owner);
    }
  }
  return true;
}

struct directory_session *admission_ask(struct admission *admission, int worker,
                                        const struct channel_login *login, int32_t *refusal) {
  const struct admission_options *options = &admission->options;
  const struct channel_session *newcomer = &login->session;
  struct rivals rivals = {.admission = admission,
                          .newcomer = newcomer,
                          .close = options->config->login.conflict == LOGIN_NEWEST_WINS};
  // First of all, or a captured handshake could throw its player out.
  *refusal = check_replay(admission, login);
  if (*refusal != CHANNEL_LOGIN_ADMITTED) {
    return NULL;
  }
  directory_each_of(options->directory, newcomer->uid, look_at_rival, &rivals);
  if (rivals.count > 0 && !rivals.close) {
    *refusal = CLOSE_CONFLICTING_LOGIN;
    return NULL;
  }
  struct directory_session *added = directory_add(options->directory, newcomer, worker);
  if (!added) {
    log_error("session_not_listed", "uid=%lld worker=%d", (long long)newcomer->uid, worker);
    *refusal = CLOSE_OUT_OF_MEMORY;
  }
  return added;
}
