#include "worker/kcp_engine.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/kcp_owners.h"
#include "common/kcp_settings.h"
#include "worker/acceptor.h"
#include "worker/kcp_connection.h"
#include "worker/kcp_listener.h"
#include "worker/kcp_mailbox.h"
#include "worker/worker.h"

enum {
  // The finest that KCP asks for.
  WHEEL_GRANULARITY_MS = KCP_INTERVAL_MIN_MS,
  CLOSED_SLOTS = 4096,
  CLOSED_KEPT_MS = 60000,  // longer than a client's smux waits before it notices
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
  kcp_mailbox_flush(engine->mailbox);
  counters_add(engine->worker->counters, COUNTER_KCP_HANDED_LOST,
               kcp_mailbox_take_lost(engine->mailbox));
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

// Who means to log in does so at once. The one that has not for so long gives way when there are
// too many, so that a flood of first datagrams, with anybody's addresses, does not keep out those
// who come meanwhile.
enum { PENDING_PATIENCE_MS = 1000 };

static bool make_room(struct kcp_engine *engine, int64_t now_ms) {
  struct kcp_connection *oldest = TAILQ_FIRST(&engine->pending);
  if (!oldest || now_ms - oldest->began_ms < PENDING_PATIENCE_MS) {
    return false;
  }
  kcp_connection_end(oldest, CLOSE_HANDSHAKE_TIMEOUT);
  return true;
}

bool kcp_engine_take_pending(struct kcp_engine *engine, const struct sockaddr *address,
                             struct address_count **count, int64_t now_ms) {
  int64_t max = engine->worker->config.kcp.pending_connections;
  // Its own bound first: whoever is over that makes nobody else give way.
  *count = address_limits_acquire(engine->pending_addresses, address);
  if (*count && max > 0 && engine->pending_count >= (size_t)max && !make_room(engine, now_ms)) {
    kcp_engine_return_pending(engine, *count);
    *count = NULL;
  }
  return *count != NULL;
}

void kcp_engine_return_pending(struct kcp_engine *engine, struct address_count *count) {
  address_limits_release(engine->pending_addresses, count);
}

void kcp_engine_add_pending(struct kcp_engine *engine, struct kcp_connection *connection,
                            struct address_count *count) {
  connection->pending = count;
  engine->pending_count++;
  TAILQ_INSERT_TAIL(&engine->pending, connection, waiting);
  counters_gauge_add(engine->worker->counters, GAUGE_KCP_PENDING, 1);
}

void kcp_engine_leave_pending(struct kcp_engine *engine, struct kcp_connection *connection) {
  address_limits_release(engine->pending_addresses, connection->pending);
  connection->pending = NULL;
  engine->pending_count--;
  TAILQ_REMOVE(&engine->pending, connection, waiting);
  counters_gauge_add(engine->worker->counters, GAUGE_KCP_PENDING, -1);
}

// --- The other workers -------------------------------------------------------------------------

// What goes with a datagram that is handed over.
struct handed {
  struct kcp_peer peer;
  uint16_t server_port;
};

static uint16_t port_of(const struct kcp_listener *listener) {
  return (uint16_t)listener->listener->port;
}

// Until its client is known to be there it takes no name that another one has: it may be made of
// datagrams with somebody's address in them, who would be cut off from the worker that has him.
static void tell(struct kcp_engine *engine, uint64_t key, bool is_trusted) {
  struct kcp_owners *owners = engine->worker->kcp_owners;
  if (!is_trusted && kcp_owners_find(owners, key) != KCP_OWNERS_NOBODY) {
    return;
  }
  if (kcp_owners_insert(owners, key, (unsigned)engine->worker->index) != 0) {
    counters_add(engine->worker->counters, COUNTER_KCP_OWNERS_FULL, 1);
  }
}

void kcp_engine_tell(struct kcp_engine *engine, const struct kcp_connection *connection) {
  const struct kcp_owners *owners = engine->worker->kcp_owners;
  uint16_t port = port_of(connection->listener);
  bool is_trusted = connection->answered;
  tell(engine, kcp_owners_key(owners, &connection->peer.address.any, port), is_trusted);
  tell(engine, kcp_owners_conv_key(owners, connection->conv, port), is_trusted);
}

void kcp_engine_untell(struct kcp_engine *engine, const struct kcp_connection *connection,
                       bool but_address) {
  struct kcp_owners *owners = engine->worker->kcp_owners;
  uint16_t port = port_of(connection->listener);
  unsigned number = (unsigned)engine->worker->index;
  kcp_owners_remove(owners, kcp_owners_conv_key(owners, connection->conv, port), number);
  if (!but_address) {
    kcp_owners_remove(owners, kcp_owners_key(owners, &connection->peer.address.any, port), number);
  }
}

static bool is_beginning(const struct kcp_glance *glance) {
  return glance->command == KCP_PUSH && glance->sn == 0;
}

// KCP_OWNERS_NOBODY: no other worker.
static int owner_of(struct kcp_engine *engine, uint16_t port, const struct kcp_peer *peer,
                    const struct kcp_glance *glance, bool is_known) {
  const struct kcp_owners *owners = engine->worker->kcp_owners;
  int me = engine->worker->index;
  int by_address = kcp_owners_find(owners, kcp_owners_key(owners, &peer->address.any, port));
  bool is_elsewhere = by_address != KCP_OWNERS_NOBODY && by_address != me;
  if (!glance) {
    return is_elsewhere && !is_known ? by_address : KCP_OWNERS_NOBODY;
  }
  int by_conv = kcp_owners_find(owners, kcp_owners_conv_key(owners, glance->conv, port));
  if (is_elsewhere) {
    // A client that has come again begins where it now comes to.
    return by_conv == KCP_OWNERS_NOBODY && is_beginning(glance) ? KCP_OWNERS_NOBODY : by_address;
  }
  // One of two of this address, or of a client that has another address now.
  bool counts = is_known || engine->worker->config.kcp.roaming;
  return counts && by_conv != me ? by_conv : KCP_OWNERS_NOBODY;
}

bool kcp_engine_hand_over(struct kcp_engine *engine, const struct kcp_listener *listener,
                          const struct kcp_peer *peer, const struct kcp_glance *glance,
                          bool is_known, const uint8_t *bytes, size_t len) {
  struct handed handed;
  int owner = owner_of(engine, port_of(listener), peer, glance, is_known);
  if (owner == KCP_OWNERS_NOBODY) {
    return false;
  }
  memset(&handed, 0, sizeof handed);
  handed.peer = *peer;
  handed.server_port = port_of(listener);
  bool sent = kcp_mailbox_send(engine->mailbox, (unsigned)owner, &handed, bytes, len) == 0;
  counters_add(engine->worker->counters, sent ? COUNTER_KCP_HANDED_OUT : COUNTER_KCP_HANDED_LOST,
               1);
  event_active(engine->flush, EV_TIMEOUT, 0);
  return true;
}

static void on_handed(const void *head, uint8_t *bytes, size_t len, void *owner) {
  struct kcp_engine *engine = owner;
  struct handed handed;
  memcpy(&handed, head, sizeof handed);
  counters_add(engine->worker->counters, COUNTER_KCP_HANDED_IN, 1);
  for (size_t i = 0; i < engine->listener_count; i++) {
    if (port_of(engine->listeners[i]) == handed.server_port) {
      kcp_listener_take(engine->listeners[i], &handed.peer, bytes, len, true);
      return;
    }
  }
}

static void on_mail(evutil_socket_t fd, short what, void *owner) {
  struct kcp_engine *engine = owner;
  (void)fd;
  (void)what;
  kcp_mailbox_receive(engine->mailbox, on_handed, engine);
}

// Returns what is wrong, or NULL.
static const char *open_mailbox(struct kcp_engine *engine, char *why, size_t why_size) {
  struct worker *worker = engine->worker;
  int error;
  engine->mailbox = kcp_mailbox_open(kcp_owners_secret(worker->kcp_owners), (unsigned)worker->index,
                                     sizeof(struct handed), &error);
  if (!engine->mailbox) {
    snprintf(why, why_size, "the socket for datagrams from other workers can't be had: %s",
             error == ERROR_SYSTEM ? strerror(errno) : error_text(error));
    return why;
  }
  engine->mail = event_new(worker->base, kcp_mailbox_fd(engine->mailbox), EV_READ | EV_PERSIST,
                           on_mail, engine);
  return engine->mail && event_add(engine->mail, NULL) == 0 ? NULL : "out of memory";
}

// --- Who has just ended ------------------------------------------------------------------------

static uint64_t closed_hash(const struct kcp_engine *engine, const struct kcp_peer *peer,
                            uint32_t conv) {
  uint8_t what[KCP_PEER_KEY_BYTES + sizeof conv];
  uint8_t out[crypto_shorthash_BYTES];
  uint64_t hash;
  kcp_peer_key(peer, what);
  memcpy(what + KCP_PEER_KEY_BYTES, &conv, sizeof conv);
  crypto_shorthash(out, what, sizeof what, engine->closed_key);
  memcpy(&hash, out, sizeof hash);
  return hash;
}

// A slot holds the connection that fell into it last: the upper bits of its hash, and in the lower
// ones the second until which it counts.
enum { CLOSED_TIME_BITS = 24 };
static const uint64_t closed_time_mask = (1U << CLOSED_TIME_BITS) - 1;

static uint64_t *closed_slot(const struct kcp_engine *engine, uint64_t hash) {
  return &engine->closed[hash % CLOSED_SLOTS];
}

void kcp_engine_remember_closed(struct kcp_engine *engine, const struct kcp_peer *peer,
                                uint32_t conv, int64_t now_ms) {
  uint64_t hash = closed_hash(engine, peer, conv);
  uint64_t until_s = (uint64_t)(now_ms + CLOSED_KEPT_MS) / 1000;
  *closed_slot(engine, hash) = (hash & ~closed_time_mask) | (until_s & closed_time_mask);
}

bool kcp_engine_was_closed(const struct kcp_engine *engine, const struct kcp_peer *peer,
                           uint32_t conv, int64_t now_ms) {
  uint64_t hash = closed_hash(engine, peer, conv);
  uint64_t slot = *closed_slot(engine, hash);
  uint64_t left_s = ((slot & closed_time_mask) - (uint64_t)now_ms / 1000) & closed_time_mask;
  return (slot & ~closed_time_mask) == (hash & ~closed_time_mask) &&
         left_s <= CLOSED_KEPT_MS / 1000;
}

// --- The whole ---------------------------------------------------------------------------------

static void set_link(struct kcp_engine *engine) {
  engine->link = kcp_settings_for_link(&engine->worker->config.kcp);
  engine->link.code = engine->code;
  engine->link.scratch = engine->scratch;
  engine->link.kcp.spares = &engine->spares;
}

void kcp_engine_apply_settings(struct kcp_engine *engine) {
  const struct config *config = &engine->worker->config;
  engine->link.smux.streams_max = (uint32_t)config->kcp.streams;
  address_limits_set(engine->pending_addresses, (size_t)config->kcp.pending_per_address);
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
  TAILQ_INIT(&engine->pending);
  bool with_fec = config->kcp.data_shards > 0;
  if (with_fec) {
    engine->code =
        reed_solomon_new((unsigned)config->kcp.data_shards, (unsigned)config->kcp.parity_shards);
  }
  engine->wheel =
      timer_wheel_new(WHEEL_GRANULARITY_MS, clock_monotonic_ms(), kcp_connection_on_timer);
  engine->wheel_timer = event_new(worker->base, -1, 0, on_wheel_timer, engine);
  engine->flush = event_new(worker->base, -1, 0, on_flush, engine);
  engine->pending_addresses = address_limits_new((size_t)config->kcp.pending_per_address);
  engine->closed = calloc(CLOSED_SLOTS, sizeof *engine->closed);
  if ((with_fec && !engine->code) || !engine->wheel || !engine->wheel_timer || !engine->flush ||
      !engine->pending_addresses || !engine->closed || open_mailbox(engine, why, why_size)) {
    kcp_engine_free(engine);
    return NULL;
  }
  crypto_shorthash_keygen(engine->closed_key);
  set_link(engine);
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
  if (engine->mail) {
    event_free(engine->mail);
  }
  kcp_mailbox_close(engine->mailbox);
  timer_wheel_free(engine->wheel);
  reed_solomon_free(engine->code);
  address_limits_free(engine->pending_addresses);
  kcp_spares_free(&engine->spares);
  free(engine->closed);
  free(engine);
}
