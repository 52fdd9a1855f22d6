#include "worker/kcp_engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/kcp_settings.h"
#include "worker/acceptor.h"
#include "worker/kcp_closed.h"
#include "worker/kcp_connection.h"
#include "worker/kcp_forwarder.h"
#include "worker/kcp_listener.h"
#include "worker/kcp_strangers.h"
#include "worker/worker.h"

enum {
  // The finest that KCP asks for.
  WHEEL_GRANULARITY_MS = KCP_INTERVAL_MIN_MS,
};

// --- One timer for all -----------------------------------------------------------------------

static void arm(struct kcp_engine *engine) {
  int64_t due_ms = timer_wheel_next(engine->wheel);
  if (due_ms == engine->wheel_due_ms) {
    return;
  }
  engine->wheel_due_ms = due_ms;
  if (due_ms == TIMER_WHEEL_NEVER) {
    event_del(engine->wheel_timer);
    return;
  }
  // One more, since the loop counts from when its turn began: too early would be in vain.
  int64_t wait_ms = due_ms - clock_monotonic_ms() + 1;
  const struct timeval wait = clock_timeval(wait_ms > 0 ? wait_ms : 0);
  event_add(engine->wheel_timer, &wait);
}

void kcp_engine_set_timer(struct kcp_engine *engine, struct wheel_timer *timer, int64_t due_ms) {
  timer_wheel_set(engine->wheel, timer, due_ms);
  // Only ever earlier; for those that moved away see relax.
  if (due_ms < engine->wheel_due_ms) {
    arm(engine);
  }
}

// A timer that has moved away would wake the loop in vain. When much is under way another one is
// due as soon, and the event need not be set anew.
static void relax(struct kcp_engine *engine) {
  enum { SOON_MS = 2 * WHEEL_GRANULARITY_MS };
  if (engine->wheel_due_ms != TIMER_WHEEL_NEVER &&
      timer_wheel_next(engine->wheel) - engine->wheel_due_ms > SOON_MS) {
    arm(engine);
  }
}

static void send_batches(struct kcp_engine *engine) {
  for (size_t i = 0; i < engine->listener_count; i++) {
    kcp_listener_flush(engine->listeners[i]);
  }
}

static void on_wheel_timer(evutil_socket_t fd, short what, void *owner) {
  struct kcp_engine *engine = owner;
  (void)fd;
  (void)what;
  engine->wheel_due_ms = TIMER_WHEEL_NEVER;
  timer_wheel_advance(engine->wheel, clock_monotonic_ms());
  send_batches(engine);
  arm(engine);
}

static void on_flush(evutil_socket_t fd, short what, void *owner) {
  struct kcp_engine *engine = owner;
  int64_t now_ms = clock_monotonic_ms();
  (void)fd;
  (void)what;
  // What a flush touches again waits for the next turn.
  for (size_t left = engine->dirty_count; left > 0 && engine->dirty_count > 0; left--) {
    struct kcp_connection *connection = TAILQ_FIRST(&engine->dirty);
    kcp_engine_untouch(engine, connection);
    kcp_connection_flush(connection, now_ms);
  }
  send_batches(engine);
  relax(engine);
  if (engine->dirty_count > 0) {
    event_active(engine->flush, EV_TIMEOUT, 0);
  }
}

void kcp_engine_touch(struct kcp_engine *engine, struct kcp_connection *connection) {
  if (engine->dirty_count++ == 0) {
    event_active(engine->flush, EV_TIMEOUT, 0);
  }
  TAILQ_INSERT_TAIL(&engine->dirty, connection, dirty);
}

void kcp_engine_untouch(struct kcp_engine *engine, struct kcp_connection *connection) {
  TAILQ_REMOVE(&engine->dirty, connection, dirty);
  engine->dirty_count--;
}

// --- Who has not logged in ---------------------------------------------------------------------

static void on_gives_way(void *owner, int64_t now_ms) { kcp_connection_give_up(owner, now_ms); }

int kcp_engine_add_pending(struct kcp_engine *engine, struct kcp_connection *connection,
                           int64_t now_ms) {
  int error = kcp_strangers_add(engine->strangers, &connection->stranger,
                                &connection->peer.address.any, now_ms);
  if (error == 0) {
    connection->pending = true;
    counters_gauge_add(engine->worker->counters, GAUGE_KCP_PENDING, 1);
  }
  return error;
}

void kcp_engine_leave_pending(struct kcp_engine *engine, struct kcp_connection *connection) {
  kcp_strangers_remove(engine->strangers, &connection->stranger);
  connection->pending = false;
  counters_gauge_add(engine->worker->counters, GAUGE_KCP_PENDING, -1);
}

// --- The whole ---------------------------------------------------------------------------------

static void on_forwarded(uint16_t server_port, const struct kcp_peer *peer, uint8_t *bytes,
                         size_t len, void *owner) {
  struct kcp_engine *engine = owner;
  for (size_t i = 0; i < engine->listener_count; i++) {
    if (engine->listeners[i]->listener->port == server_port) {
      kcp_listener_take(engine->listeners[i], peer, bytes, len, true);
      return;
    }
  }
}

static void set_link(struct kcp_engine *engine) {
  engine->link = kcp_settings_for_link(&engine->worker->config.kcp);
  engine->link.code = engine->code;
  engine->link.scratch = engine->scratch;
  engine->link.kcp.spares = &engine->spares;
}

void kcp_engine_apply_settings(struct kcp_engine *engine) {
  const struct config *config = &engine->worker->config;
  engine->link.smux.streams_max = (uint32_t)config->kcp.streams;
  kcp_strangers_set(engine->strangers, (size_t)config->kcp.pending_connections,
                    (size_t)config->kcp.pending_per_address);
}

struct kcp_engine *kcp_engine_new(struct worker *worker, char *why, size_t why_size) {
  const struct config *config = &worker->config;
  struct kcp_engine *engine = calloc(1, sizeof *engine);
  snprintf(why, why_size, "out of memory");
  if (!engine) {
    return NULL;
  }
  engine->worker = worker;
  engine->wheel_due_ms = TIMER_WHEEL_NEVER;
  TAILQ_INIT(&engine->dirty);
  bool with_fec = config->kcp.data_shards > 0;
  if (with_fec) {
    engine->code =
        reed_solomon_new((unsigned)config->kcp.data_shards, (unsigned)config->kcp.parity_shards);
  }
  engine->wheel =
      timer_wheel_new(WHEEL_GRANULARITY_MS, clock_monotonic_ms(), kcp_connection_on_timer);
  engine->wheel_timer = event_new(worker->base, -1, 0, on_wheel_timer, engine);
  engine->flush = event_new(worker->base, -1, 0, on_flush, engine);
  engine->strangers = kcp_strangers_new(on_gives_way);
  engine->closed = kcp_closed_new();
  if ((with_fec && !engine->code) || !engine->wheel || !engine->wheel_timer || !engine->flush ||
      !engine->strangers || !engine->closed ||
      !(engine->forwarder = kcp_forwarder_new(worker, on_forwarded, engine, why, why_size))) {
    kcp_engine_free(engine);
    return NULL;
  }
  set_link(engine);
  kcp_engine_apply_settings(engine);
  return engine;
}

void kcp_engine_free(struct kcp_engine *engine) {
  if (!engine) {
    return;
  }
  if (engine->wheel_timer) {
    event_free(engine->wheel_timer);
  }
  if (engine->flush) {
    event_free(engine->flush);
  }
  kcp_forwarder_free(engine->forwarder);
  timer_wheel_free(engine->wheel);
  reed_solomon_free(engine->code);
  kcp_strangers_free(engine->strangers);
  kcp_spares_free(&engine->spares);
  kcp_closed_free(engine->closed);
  free(engine);
}
