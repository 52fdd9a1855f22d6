// What all KCP connections of a worker share: the settings of their layers, one timer for all of
// them, the bounds of those who have not logged in, and the way to the other workers.
//
// Loop thread only.
#ifndef JANUS_WORKER_KCP_ENGINE_H
#define JANUS_WORKER_KCP_ENGINE_H

#include <event2/event.h>
#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/config.h"
#include "common/kcp/link.h"
#include "common/timer_wheel.h"
#include "worker/kcp_socket.h"

struct address_count;
struct address_limits;
struct kcp_connection;
struct kcp_glance;
struct kcp_mailbox;
struct kcp_listener;
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
  size_t pending_count;
  struct kcp_connection_queue pending;  // on which nobody has logged in, the oldest first
  struct address_limits *pending_addresses;
  uint64_t *closed;  // connections that ended a while ago, by hash
  uint8_t closed_key[crypto_shorthash_KEYBYTES];
  struct kcp_mailbox *mailbox;
  struct event *mail;
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

// Whether a further connection without a login may come, of this address: by making room for it,
// if need be, at the expense of one that has not logged in for a while.
bool kcp_engine_take_pending(struct kcp_engine *engine, const struct sockaddr *address,
                             struct address_count **count, int64_t now_ms);
// Gives back what it has taken, where there will be no connection.
void kcp_engine_return_pending(struct kcp_engine *engine, struct address_count *count);
// The connection is one of those; and no longer.
void kcp_engine_add_pending(struct kcp_engine *engine, struct kcp_connection *connection,
                            struct address_count *count);
void kcp_engine_leave_pending(struct kcp_engine *engine, struct kcp_connection *connection);

// --- The other workers ---------------------------------------------------------------------
//
// Each connection is known to all workers by its address and by its conv.

// When it begins, and again when its client is known to be there.
void kcp_engine_tell(struct kcp_engine *engine, const struct kcp_connection *connection);
// but_address: another connection of this worker has the same.
void kcp_engine_untell(struct kcp_engine *engine, const struct kcp_connection *connection,
                       bool but_address);
// Hands the datagram to the worker that has its connection. glance is NULL for one of parity;
// is_known: a connection of its address is here, of another conv. False: no other worker has it.
bool kcp_engine_hand_over(struct kcp_engine *engine, const struct kcp_listener *listener,
                          const struct kcp_peer *peer, const struct kcp_glance *glance,
                          bool is_known, const uint8_t *bytes, size_t len);

// --- Who has just ended --------------------------------------------------------------------

// Remembers for a while that a connection of this address with this conv has ended, and tells
// whether one has: what still comes from its client must not make a new one.
void kcp_engine_remember_closed(struct kcp_engine *engine, const struct kcp_peer *peer,
                                uint32_t conv, int64_t now_ms);
bool kcp_engine_was_closed(const struct kcp_engine *engine, const struct kcp_peer *peer,
                           uint32_t conv, int64_t now_ms);

#endif
