#include "worker/login.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "worker/inbox.h"
#include "worker/newcomers.h"
#include "worker/player.h"
#include "worker/session.h"
#include "worker/trace.h"

// Answers the handshake, and the session is on. The answer goes out in the clear, for
// the client does not have the key yet.
static int answer_handshake(struct session *session) {
  struct worker *worker = session->worker;
  uint8_t answer[TRANSPORT_HEADROOM_BYTES + HANDSHAKE_ANSWER_MAX_BYTES];
  uint8_t shared[KEY_X25519_BYTES];
  size_t answer_len;

  int verdict =
      handshake_answer(&worker->handshake_keys, session->handshake, clock_wall_ms() / 1000,
                       answer + TRANSPORT_HEADROOM_BYTES, &answer_len, shared);
  if (verdict != HANDSHAKE_OK) {
    return verdict;
  }
  if (worker->config.label.encrypted) {
    session->seal = seal_new(shared, sizeof shared);
    sodium_memzero(shared, sizeof shared);
    if (!session->seal) {
      return CLOSE_OUT_OF_MEMORY;
    }
  }
  counters_add(worker->counters, COUNTER_LOGINS_PREVIOUS_ACCOUNT_KEY,
               session->handshake->by_previous_account_key);
  counters_add(worker->counters, COUNTER_LOGINS_PREVIOUS_CERTS,
               session->handshake->by_previous_certs);
  free(session->handshake);
  session->handshake = NULL;
  session->next_index = HANDSHAKE_START_INDEX;
  session->state = SESSION_PLAYING;
  session->look.at_ms = clock_monotonic_ms();
  session_log(session, WORKER_LOG_OPENED, NULL);
  counters_split_add(worker->counters, SPLIT_LOGINS, session->listener_kind, 1);
  counters_split_add(worker->counters, SPLIT_SESSIONS, session->listener_kind, 1);
  counters_record_us(worker->counters, HISTOGRAM_HANDSHAKE,
                     clock_monotonic_us() - session->arrived_us);
  return transport_send(session->transport, answer, answer_len) == 0 ? HANDSHAKE_OK
                                                                     : CLOSE_OUT_OF_MEMORY;
}

// Ends the wait for the master's word. A client that it refuses is answered all the same
// where it is to be told why, since it can only read that with the session's key.
static void end_admission(struct session *session, int refusal) {
  if (refusal == CHANNEL_LOGIN_ADMITTED) {
    refusal = player_join(session);
  }
  bool is_told = refusal == CHANNEL_LOGIN_ADMITTED ||
                 close_reason_logout_code((enum close_reason)refusal) != LOGOUT_NONE;
  int verdict = is_told ? answer_handshake(session) : HANDSHAKE_OK;
  if (verdict != HANDSHAKE_OK) {
    session_close(session, (enum close_reason)verdict);
  } else if (refusal != CHANNEL_LOGIN_ADMITTED) {
    session_close(session, (enum close_reason)refusal);
  } else {
    trace_admitted(session);
    transport_logged_in(session->transport);
    session->arrived_us = clock_monotonic_us();
    event_add(&session->timer, session->worker->idle_timeout);
    session_resume_input(session);
  }
}

// Asks the master; it has the session in its directory when it answers.
static int ask_for_admission(struct session *session) {
  struct channel_login login;
  memset(&login, 0, sizeof login);
  session_describe(session, &login.session);
  memcpy(login.client_key, session->handshake->client_public, sizeof login.client_key);
  return inbox_tell(session->worker->inbox, CHANNEL_LOGIN, &login);
}

void login_ask_again(struct session *session) {
  if (ask_for_admission(session) != 0) {
    session_close(session, CLOSE_INTERNAL);
  }
}

// Over KCP somebody who has one good token can send it from any number of addresses, which are not
// his: that must not keep out who has shown his own.
static struct token_bucket *budget_of(const struct session *session) {
  return session->listener_kind == LISTENER_KIND_KCP ? &session->worker->kcp_handshakes
                                                     : &session->worker->handshakes;
}

static int log_in(struct session *session, const uint8_t *bytes, size_t len) {
  struct worker *worker = session->worker;
  struct handshake handshake = {.sid = 0};
  const struct handshake_terms terms = {.now_s = clock_wall_ms() / 1000,
                                        .now_ms = clock_monotonic_ms(),
                                        .budget = budget_of(session)};

  int verdict = handshake_check(&worker->handshake_keys, &terms, bytes, len, &handshake);
  if (verdict != HANDSHAKE_OK) {
    return verdict;
  }
  session->handshake = malloc(sizeof handshake);
  if (!session->handshake) {
    return CLOSE_OUT_OF_MEMORY;
  }
  *session->handshake = handshake;
  session->uid = handshake.token.account_id;
  session->sid = handshake.sid;
  session->status = handshake.token.status;
  session->conn_id = handshake.conn_id;
  memcpy(session->color, handshake.token.color, sizeof session->color);
  session->since_ms = clock_wall_ms();
  session->state = SESSION_ADMISSION;
  trace_checked(session);
  HASH_ADD(hh, worker->logged_in, connection, sizeof session->connection, session);
  if (!inbox_has_master(worker->inbox)) {
    end_admission(session, CHANNEL_LOGIN_ADMITTED);
    return HANDSHAKE_OK;
  }
  session_pause_input(session);
  return ask_for_admission(session) == 0 ? HANDSHAKE_OK : CLOSE_INTERNAL;
}

void login_on_answer(struct worker *worker, const struct channel_login_answer *answer) {
  struct session *session = session_find(worker, answer->connection);
  bool is_refusal = (unsigned)answer->refusal < CLOSE_REASON_COUNT;
  if (session && session->state == SESSION_ADMISSION) {
    end_admission(session, is_refusal || answer->refusal == CHANNEL_LOGIN_ADMITTED
                               ? answer->refusal
                               : CLOSE_INTERNAL);
  }
}

void login_admit_all(struct worker *worker) {
  struct session *session;
  struct session *next;
  for (session = LIST_FIRST(&worker->sessions); session; session = next) {
    next = LIST_NEXT(session, link);
    if (session->state == SESSION_ADMISSION) {
      end_admission(session, CHANNEL_LOGIN_ADMITTED);
    }
  }
}

// A handshake that waits for its turn.
struct login_request {
  struct newcomer newcomer;
  size_t len;
  uint8_t bytes[];
};

static void handle(struct session *session, const uint8_t *bytes, size_t len) {
  int verdict = log_in(session, bytes, len);
  if (verdict != HANDSHAKE_OK) {
    session_close(session, (enum close_reason)verdict);
  }
}

static void on_turn(void *owner) {
  struct session *session = owner;
  struct login_request *request = session->requested;
  session->requested = NULL;
  session_resume_input(session);  // unless what comes of it holds it up again
  handle(session, request->bytes, request->len);
  free(request);
}

void login_on_handshake(struct session *session, const uint8_t *bytes, size_t len) {
  struct worker *worker = session->worker;
  if (newcomers_may(worker->newcomers)) {
    handle(session, bytes, len);
    return;
  }
  struct login_request *request = malloc(sizeof *request + len);
  if (!request) {
    session_close(session, CLOSE_OUT_OF_MEMORY);
    return;
  }
  request->newcomer = (struct newcomer){.owner = NULL};
  request->len = len;
  memcpy(request->bytes, bytes, len);
  session->requested = request;
  session_pause_input(session);
  newcomers_wait(worker->newcomers, &request->newcomer, on_turn, session);
}

void login_forget(struct session *session) {
  if (session->requested) {
    newcomers_leave(session->worker->newcomers, &session->requested->newcomer);
    free(session->requested);
    session->requested = NULL;
  }
}
