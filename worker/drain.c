#include "worker/drain.h"

#include <event2/event.h>
#include <inttypes.h>

#include "common/clock.h"
#include "common/kcp_owners.h"
#include "common/loop.h"
#include "worker/acceptor.h"
#include "worker/session.h"
#include "worker/worker.h"

#define LOG_MODULE LOG_MODULE_WORKER

enum { STEP_MS = 50 };  // of sending away

static size_t sessions_of(const struct worker *worker) { return HASH_COUNT(worker->logged_in); }

// Siblings go together, and may be more than were asked for.
static void send_away(struct worker *worker, size_t count) {
  while (count > 0 && !LIST_EMPTY(&worker->sessions)) {
    size_t before = sessions_of(worker);
    session_close_player(LIST_FIRST(&worker->sessions), CLOSE_DRAIN);
    size_t gone = before - sessions_of(worker);
    gone = gone > 0 ? gone : 1;  // one that was not logged in
    count -= gone < count ? gone : count;
  }
}

// The sockets of this worker may be where another one's connections over KCP send to, since the
// number of workers has changed, say: when all leave, nobody else is there to read them. A worker
// without a listener for KCP has no such socket.
static bool is_over(const struct worker *worker) {
  return worker->drain.leave && acceptor_open_connections(worker->acceptor) == 0 &&
         !(worker->drain.leave_together && worker->acceptor->kcp &&
           kcp_owners_has_others(worker->kcp_owners, (unsigned)worker->index));
}

// As many as are to be gone by now.
static void take_step(struct worker *worker) {
  struct drain *drain = &worker->drain;
  int64_t passed_ms = clock_monotonic_ms() - drain->send_from_ms;
  if (passed_ms >= drain->spread_ms) {
    send_away(worker, SIZE_MAX);
    if (drain->leave) {
      worker_stop(worker, CLOSE_DRAIN);  // with those who never came as far as a session
    } else if (acceptor_open_connections(worker->acceptor) > 0) {
      loop_start_timer(drain->timer, STEP_MS);  // they may still
    }
    return;
  }
  if (is_over(worker)) {
    worker_stop(worker, CLOSE_DRAIN);
    return;
  }
  double left = 1 - (double)passed_ms / (double)drain->spread_ms;
  size_t may_stay = (size_t)((double)drain->sessions_before * left);
  size_t sessions = sessions_of(worker);
  if (sessions > may_stay) {
    send_away(worker, sessions - may_stay);
  }
  loop_start_timer(drain->timer, STEP_MS);
}

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  struct worker *worker = owner;
  (void)fd;
  (void)what;
  if (worker->drain.send_from_ms == 0) {
    worker->drain.send_from_ms = clock_monotonic_ms();
    worker->drain.sessions_before = sessions_of(worker);
    log_info("worker_sends_away", "sessions=%zu spread_ms=%" PRId64, worker->drain.sessions_before,
             worker->drain.spread_ms);
  }
  take_step(worker);
}

static void on_left(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  if (is_over(owner)) {
    worker_stop(owner, CLOSE_DRAIN);
  }
}

void drain_on_connection_gone(struct worker *worker) {
  if (is_over(worker)) {
    event_active(worker->drain.left, EV_TIMEOUT, 0);  // the session is still on its way out
  }
}

void drain_on_drain(struct worker *worker, const struct channel_drain *wanted) {
  struct drain *drain = &worker->drain;
  if (worker->stopping) {
    return;
  }
  log_info("worker_drains",
           "connections=%zu timeout_ms=%" PRId64 " spread_ms=%" PRId64 " leaves=%s",
           acceptor_open_connections(worker->acceptor), wanted->timeout_ms, wanted->spread_ms,
           wanted->leave != CHANNEL_LEAVE_NOT ? "true" : "false");
  drain->on = true;
  drain->leave = drain->leave || wanted->leave != CHANNEL_LEAVE_NOT;
  drain->leave_together = wanted->leave == CHANNEL_LEAVE_ALL;
  drain->spread_ms = wanted->spread_ms;
  drain->send_from_ms = 0;
  event_del(drain->timer);
  acceptor_rest(worker->acceptor);
  if (drain->leave) {
    acceptor_give_up_listeners(worker->acceptor);
  }
  if (wanted->leave == CHANNEL_LEAVE_ALL) {
    acceptor_read_on(worker->acceptor);
  }
  if (is_over(worker)) {
    worker_stop(worker, CLOSE_DRAIN);
  } else if (wanted->timeout_ms >= 0) {
    loop_start_timer(drain->timer, wanted->timeout_ms);
  }
}

void drain_on_undrain(struct worker *worker) {
  struct drain *drain = &worker->drain;
  if (!drain->on || drain->leave || worker->stopping) {
    return;
  }
  log_info("worker_undrains", "connections=%zu", acceptor_open_connections(worker->acceptor));
  drain->on = false;
  drain->send_from_ms = 0;
  event_del(drain->timer);
  acceptor_start(worker->acceptor);
}

bool drain_init(struct worker *worker) {
  worker->drain.timer = evtimer_new(worker->base, on_timer, worker);
  worker->drain.left = event_new(worker->base, -1, 0, on_left, worker);
  return worker->drain.timer && worker->drain.left;
}

void drain_fini(struct worker *worker) {
  event_free(worker->drain.timer);
  event_free(worker->drain.left);
}
