#include "worker/kcp_listener.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/networks.h"
#include "common/prefetch.h"
#include "worker/acceptor.h"
#include "worker/kcp_closed.h"
#include "worker/kcp_connection.h"
#include "worker/kcp_forwarder.h"
#include "worker/kcp_strangers.h"
#include "worker/worker.h"

#define LOG_MODULE LOG_MODULE_LISTENER

// Of the hash tables: each element looked at on the way costs a wait for memory where clients are
// many and quiet.
#undef HASH_BKT_CAPACITY_THRESH
#define HASH_BKT_CAPACITY_THRESH 2U

// A client's first datagram has the beginning of its stream, or what follows closely: the first
// segments that it may send without an answer.
enum { FIRST_SEGMENTS = KCP_FIRST_PEER_WINDOW };

static struct counters *counters_of(const struct kcp_listener *listener) {
  return listener->engine->worker->counters;
}

// --- By address ------------------------------------------------------------------------------
//
// A client that comes again from the address and port that it had, with another conv, gets a new
// connection, and the one before stays until it falls silent or the new one's client is known to be
// there: whoever writes another's address into a datagram cuts nobody off.

static struct kcp_connection *find_first(struct kcp_listener *listener, const uint8_t *key) {
  struct kcp_connection *first = NULL;
  HASH_FIND(hh, listener->connections, key, KCP_PEER_KEY_BYTES, first);
  return first;
}

static struct kcp_connection *find_conv(struct kcp_connection *first, uint32_t conv) {
  while (first && first->conv != conv) {
    first = first->next;
  }
  return first;
}

static void insert(struct kcp_listener *listener, struct kcp_connection *connection) {
  struct kcp_connection *before = find_first(listener, connection->key);
  kcp_forwarder_tell(listener->engine->forwarder, connection);
  if (before) {
    HASH_DELETE(hh, listener->connections, before);
  }
  connection->next = before;
  HASH_ADD(hh, listener->connections, key, KCP_PEER_KEY_BYTES, connection);
  HASH_ADD(hh_conv, listener->by_conv, conv, sizeof connection->conv, connection);
}

void kcp_listener_forget(struct kcp_listener *listener, struct kcp_connection *connection) {
  struct kcp_connection *first = find_first(listener, connection->key);
  struct kcp_connection *next = connection->next;
  kcp_forwarder_untell(listener->engine->forwarder, connection, first != connection || next);
  HASH_DELETE(hh_conv, listener->by_conv, connection);
  if (first == connection) {
    HASH_DELETE(hh, listener->connections, connection);
    if (next) {
      HASH_ADD(hh, listener->connections, key, KCP_PEER_KEY_BYTES, next);
    }
    return;
  }
  while (first && first->next != connection) {
    first = first->next;
  }
  if (first) {
    first->next = next;
  }
}

// An older one of the address has nobody at its other end any more; what it still sent would reach
// the one that has taken its place.
void kcp_listener_supersede(struct kcp_listener *listener, struct kcp_connection *connection) {
  struct kcp_connection *other = find_first(listener, connection->key);
  while (other) {
    struct kcp_connection *next = other->next;
    if (other != connection && !other->pending) {
      kcp_connection_end(other, CLOSE_CLIENT_RESET);
    }
    other = next;
  }
}

// --- A client that has another address now ------------------------------------------------------

static void move(struct kcp_listener *listener, struct kcp_connection *connection,
                 const struct kcp_peer *peer) {
  char from[64], to[64];
  uint64_t suppressed;
  network_format_socket(&connection->peer.address.any, kcp_peer_address_len(&connection->peer),
                        from, sizeof from);
  network_format_socket(&peer->address.any, kcp_peer_address_len(peer), to, sizeof to);
  kcp_listener_forget(listener, connection);
  connection->peer = *peer;
  kcp_peer_key(peer, connection->key);
  insert(listener, connection);
  counters_add(counters_of(listener), COUNTER_KCP_ROAMED, 1);
  if (worker_may_log(listener->engine->worker, WORKER_LOG_ROAMED, &suppressed)) {
    log_info("client_roamed", "client=%" PRIu64 " from=%s to=%s suppressed=%" PRIu64,
             connection->client, from, to, suppressed);
  }
}

// The connection that the datagram goes on with, from another address: moved there. NULL: none.
static struct kcp_connection *roam(struct kcp_listener *listener, const struct kcp_peer *peer,
                                   const struct kcp_glance *glance, const uint8_t *bytes,
                                   size_t len) {
  struct kcp_connection *connection = NULL;
  if (!listener->engine->worker->config.kcp.roaming) {
    return NULL;
  }
  HASH_FIND(hh_conv, listener->by_conv, &glance->conv, sizeof glance->conv, connection);
  if (!connection || !acceptor_allows(listener->listener, &peer->address.any) ||
      !kcp_connection_is_next(connection, bytes, len)) {
    return NULL;
  }
  move(listener, connection, peer);
  return connection;
}

// Of one address no more than two: whoever comes a third time takes the place of one that nobody
// has logged in on, or else of the oldest.
static void make_room(struct kcp_connection *first) {
  if (first && first->next) {
    kcp_connection_end(first->pending ? first : first->next, CLOSE_CLIENT_RESET);
  }
}

// --- The beginning -----------------------------------------------------------------------------

static void refuse(struct kcp_listener *listener, const struct kcp_peer *peer,
                   enum close_reason reason) {
  acceptor_refused(listener->listener, &peer->address.any, kcp_peer_address_len(peer), reason);
}

// NULL when it may not be: said and counted.
static struct kcp_connection *admit(struct kcp_listener *listener, const struct kcp_peer *peer,
                                    uint32_t conv, int64_t now_ms) {
  struct kcp_engine *engine = listener->engine;
  struct kcp_connection *connection = NULL;
  enum close_reason reason;
  uint8_t key[KCP_PEER_KEY_BYTES];
  if (!acceptor_allows(listener->listener, &peer->address.any)) {
    refuse(listener, peer, CLOSE_ADDRESS_DENIED);
    return NULL;
  }
  if (!kcp_strangers_make_room(engine->strangers, &peer->address.any, now_ms)) {
    counters_add(counters_of(listener), COUNTER_KCP_DROPPED_PENDING, 1);
    return NULL;
  }
  struct place *place = acceptor_take_place(listener->listener, &reason);
  if (place && !acceptor_count_address(place, &peer->address.any)) {
    acceptor_leave_place(place);
    place = NULL;
    reason = CLOSE_ADDRESS_LIMIT;
  }
  if (place && !(connection = kcp_connection_new(listener, peer, conv, place, now_ms))) {
    acceptor_leave_place(place);
    reason = CLOSE_OUT_OF_MEMORY;
  }
  if (!connection) {
    refuse(listener, peer, reason);
    return NULL;
  }
  counters_split_add(counters_of(listener), SPLIT_CONNECTIONS_ACCEPTED, LISTENER_KIND_KCP, 1);
  kcp_peer_key(peer, key);
  make_room(find_first(listener, key));
  insert(listener, connection);
  return connection;
}

static void begin(struct kcp_listener *listener, const struct kcp_peer *peer, uint8_t *bytes,
                  size_t len, const struct kcp_glance *glance, int64_t now_ms) {
  if (glance->command != KCP_PUSH || glance->sn >= FIRST_SEGMENTS) {
    counters_add(counters_of(listener), COUNTER_KCP_DROPPED_UNKNOWN, 1);
    return;
  }
  if (kcp_closed_has(listener->engine->closed, peer, glance->conv, now_ms)) {
    counters_add(counters_of(listener), COUNTER_KCP_DROPPED_CLOSED, 1);
    return;
  }
  // Who has had something from us was in before: by a worker that is gone, say.
  if (glance->una != 0 || !listener->accepting) {
    counters_add(counters_of(listener), COUNTER_KCP_DROPPED_UNKNOWN, 1);
    return;
  }
  struct kcp_connection *connection = admit(listener, peer, glance->conv, now_ms);
  if (connection) {
    kcp_connection_input(connection, bytes, len, now_ms);
  }
}

// --- Datagrams -----------------------------------------------------------------------------------

// Of its address's connections the one that a datagram of parity is for: which can't be seen, but
// players come first.
static struct kcp_connection *find_for_parity(struct kcp_connection *first) {
  struct kcp_connection *connection = first;
  while (connection && connection->pending) {
    connection = connection->next;
  }
  return connection ? connection : first;
}

void kcp_listener_take(struct kcp_listener *listener, const struct kcp_peer *peer, uint8_t *bytes,
                       size_t len, bool handed) {
  struct kcp_glance glance;
  uint8_t key[KCP_PEER_KEY_BYTES];
  int64_t now_ms = clock_monotonic_ms();
  bool has_glance = link_glance(bytes, len, &glance);
  if (!has_glance && !link_is_parity(bytes, len)) {
    counters_add(counters_of(listener), COUNTER_KCP_MALFORMED, 1);
    return;
  }
  kcp_peer_key(peer, key);
  struct kcp_connection *first = find_first(listener, key);
  struct kcp_connection *connection =
      has_glance ? find_conv(first, glance.conv) : find_for_parity(first);
  if (!connection && !handed &&
      kcp_forwarder_hand_over(listener->engine->forwarder, (uint16_t)listener->listener->port, peer,
                              has_glance ? &glance : NULL, first != NULL, bytes, len)) {
    return;
  }
  if (!connection && has_glance) {
    connection = roam(listener, peer, &glance, bytes, len);
  }
  if (connection) {
    kcp_connection_input(connection, bytes, len, now_ms);
  } else if (!has_glance || (first && glance.sn != 0)) {
    counters_add(counters_of(listener), COUNTER_KCP_DROPPED_UNKNOWN, 1);
  } else {
    begin(listener, peer, bytes, len, &glance, now_ms);
  }
}

// In steps, each of which needs what the one before has asked for.
static void on_batch(const struct kcp_peer peers[], size_t count, void *owner) {
  struct kcp_listener *listener = owner;
  uint8_t keys[KCP_SOCKET_BATCH][KCP_PEER_KEY_BYTES];
  const UT_hash_bucket *buckets[KCP_SOCKET_BATCH];
  struct kcp_connection *found[KCP_SOCKET_BATCH];
  size_t known = 0;
  if (!listener->connections) {
    return;
  }
  const UT_hash_table *table = listener->connections->hh.tbl;
  for (size_t i = 0; i < count; i++) {
    unsigned hash;
    kcp_peer_key(&peers[i], keys[i]);
    HASH_VALUE(keys[i], KCP_PEER_KEY_BYTES, hash);
    buckets[i] = &table->buckets[hash & (table->num_buckets - 1)];
    prefetch(buckets[i], sizeof *buckets[i]);
  }
  for (size_t i = 0; i < count; i++) {
    prefetch(buckets[i]->hh_head, sizeof *buckets[i]->hh_head);
  }
  for (size_t i = 0; i < count; i++) {
    found[known] = find_first(listener, keys[i]);
    known += found[known] != NULL;
  }
  for (size_t i = 0; i < known; i++) {
    prefetch(found[i], sizeof *found[i]);
  }
  for (size_t i = 0; i < known; i++) {
    link_prefetch(found[i]->link);
  }
  for (size_t i = 0; i < known; i++) {
    link_prefetch_layers(found[i]->link);
  }
}

static void on_datagram(const struct kcp_peer *peer, uint8_t *bytes, size_t len, void *owner) {
  kcp_listener_take(owner, peer, bytes, len, false);
}

void kcp_listener_send(struct kcp_listener *listener, const struct kcp_peer *peer,
                       const uint8_t *bytes, size_t len) {
  kcp_socket_send(listener->socket, peer, bytes, len);
}

void kcp_listener_flush(struct kcp_listener *listener) { kcp_socket_flush(listener->socket); }

// --- The whole -----------------------------------------------------------------------------------

void kcp_listener_start(struct kcp_listener *listener) {
  listener->accepting = true;
  kcp_socket_read(listener->socket, true);
}

void kcp_listener_rest(struct kcp_listener *listener) { listener->accepting = false; }

void kcp_listener_stop(struct kcp_listener *listener) {
  struct kcp_connection *first;
  struct kcp_connection *other;
  HASH_ITER(hh, listener->connections, first, other) {
    struct kcp_connection *next;
    for (struct kcp_connection *connection = first; connection; connection = next) {
      next = connection->next;
      if (connection->opened == 0) {
        kcp_connection_cut(connection);
      }
    }
  }
}

void kcp_listener_give_up(struct kcp_listener *listener) {
  listener->accepting = false;
  kcp_socket_read(listener->socket, false);
}

void kcp_listener_read_on(struct kcp_listener *listener) {
  kcp_socket_read(listener->socket, true);
}

struct kcp_listener *kcp_listener_new(struct kcp_engine *engine, struct listener *of_acceptor,
                                      int fd) {
  static const struct kcp_socket_events events = {.on_batch = on_batch, .on_datagram = on_datagram};
  struct worker *worker = engine->worker;
  struct kcp_listener *listener = calloc(1, sizeof *listener);
  if (!listener) {
    return NULL;
  }
  listener->engine = engine;
  listener->listener = of_acceptor;
  listener->socket = kcp_socket_new(worker->base, fd, worker->counters, &events, listener);
  if (!listener->socket) {
    free(listener);
    return NULL;
  }
  engine->listeners[engine->listener_count++] = listener;
  return listener;
}

void kcp_listener_free(struct kcp_listener *listener) {
  if (!listener) {
    return;
  }
  struct kcp_connection *connection;
  while ((connection = listener->connections)) {
    kcp_connection_cut(connection);
  }
  kcp_socket_free(listener->socket);
  free(listener);
}
