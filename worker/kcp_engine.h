// What all KCP connections of a worker share: the settings of their layers, one timer and one flush
// for all of them, and the bounds of those who have not logged in.
//
// Loop thread only.
#ifndef JANUS_WORKER_KCP_ENGINE_H
#define JANUS_WORKER_KCP_ENGINE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/config.h"
#include "common/kcp/link.h"
#include "common/timer_wheel.h"
#include "worker/kcp_socket.h"

struct kcp_closed;
struct kcp_connection;
struct kcp_forwarder;
struct kcp_listener;
struct kcp_strangers;
struct worker;

TAILQ_HEAD(kcp_connection_queue, kcp_connection);

struct kcp_engine {
  struct worker *worker;
  struct reed_solomon *code;  // NULL: no FEC
  struct link_settings link;
  uint8_t scratch[LINK_SCRATCH_BYTES];
  struct kcp_spares spares;
  struct timer_wheel *wheel;
  struct event *wheel_timer;
  int64_t wheel_due_ms;               // for which that is set
  struct kcp_connection_queue dirty;  // that have something to send
  size_t dirty_count;
  struct event *flush;
  struct kcp_strangers *strangers;
  struct kcp_closed *closed;
  struct kcp_forwarder *forwarder;
  struct kcp_listener *listeners[CONFIG_LISTENERS];
  size_t listener_count;
};

// NULL with the reason in why.
struct kcp_engine *kcp_engine_new(struct worker *worker, char *why, size_t why_size);
// After its connections and listeners.
void kcp_engine_free(struct kcp_engine *engine);  // accepts NULL
// What it derives from the configuration and may change while connections stand.
void kcp_engine_apply_settings(struct kcp_engine *engine);

// The connection is flushed before the loop waits.
void kcp_engine_touch(struct kcp_engine *engine, struct kcp_connection *connection);
// No longer.
void kcp_engine_untouch(struct kcp_engine *engine, struct kcp_connection *connection);
// Its timer is due then; TIMER_WHEEL_NEVER: not at all.
void kcp_engine_set_timer(struct kcp_engine *engine, struct wheel_timer *timer, int64_t due_ms);

// Nobody has logged in on the connection yet, which is bounded; and that is over. ERROR_MEMORY.
int kcp_engine_add_pending(struct kcp_engine *engine, struct kcp_connection *connection,
                           int64_t now_ms) MUST_CHECK;
void kcp_engine_leave_pending(struct kcp_engine *engine, struct kcp_connection *connection);

#endif
