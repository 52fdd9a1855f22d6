#include "worker/kcp_forwarder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/kcp_owners.h"
#include "worker/acceptor.h"
#include "worker/kcp_connection.h"
#include "worker/kcp_listener.h"
#include "worker/kcp_mailbox.h"
#include "worker/worker.h"

struct kcp_forwarder {
  struct worker *worker;
  kcp_forwarder_on_datagram *on_datagram;
  void *owner;
  struct kcp_mailbox *mailbox;
  struct event *mail;   // something has come
  struct event *flush;  // something is to be sent
};

// What goes with a datagram that is handed over.
struct handed {
  struct kcp_peer peer;
  uint16_t server_port;
};

static uint16_t port_of(const struct kcp_connection *connection) {
  return (uint16_t)connection->listener->listener->port;
}

// Until its client is known to be there it takes no name that another one has: it may be made of
// datagrams with somebody's address in them, who would be cut off from the worker that has him.
static void tell(struct kcp_forwarder *forwarder, uint64_t key, bool is_trusted) {
  struct kcp_owners *owners = forwarder->worker->kcp_owners;
  if (!is_trusted && kcp_owners_find(owners, key) != KCP_OWNERS_NOBODY) {
    return;
  }
  if (kcp_owners_insert(owners, key, (unsigned)forwarder->worker->index) != 0) {
    counters_add(forwarder->worker->counters, COUNTER_KCP_OWNERS_FULL, 1);
  }
}

void kcp_forwarder_tell(struct kcp_forwarder *forwarder, const struct kcp_connection *connection) {
  const struct kcp_owners *owners = forwarder->worker->kcp_owners;
  uint16_t port = port_of(connection);
  bool is_trusted = connection->address_validated;
  tell(forwarder, kcp_owners_key(owners, &connection->peer.address.any, port), is_trusted);
  tell(forwarder, kcp_owners_conv_key(owners, connection->conv, port), is_trusted);
}

void kcp_forwarder_untell(struct kcp_forwarder *forwarder, const struct kcp_connection *connection,
                          bool but_address) {
  struct kcp_owners *owners = forwarder->worker->kcp_owners;
  uint16_t port = port_of(connection);
  unsigned number = (unsigned)forwarder->worker->index;
  kcp_owners_remove(owners, kcp_owners_conv_key(owners, connection->conv, port), number);
  if (!but_address) {
    kcp_owners_remove(owners, kcp_owners_key(owners, &connection->peer.address.any, port), number);
  }
}

static bool is_beginning(const struct kcp_glance *glance) {
  return glance->command == KCP_PUSH && glance->sn == 0;
}

// KCP_OWNERS_NOBODY: no other worker.
static int owner_of(struct kcp_forwarder *forwarder, uint16_t port, const struct kcp_peer *peer,
                    const struct kcp_glance *glance, bool is_known) {
  const struct kcp_owners *owners = forwarder->worker->kcp_owners;
  int me = forwarder->worker->index;
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
  bool counts = is_known || forwarder->worker->config.kcp.roaming;
  return counts && by_conv != me ? by_conv : KCP_OWNERS_NOBODY;
}

bool kcp_forwarder_hand_over(struct kcp_forwarder *forwarder, uint16_t server_port,
                             const struct kcp_peer *peer, const struct kcp_glance *glance,
                             bool is_known, const uint8_t *bytes, size_t len) {
  struct handed handed;
  int owner = owner_of(forwarder, server_port, peer, glance, is_known);
  if (owner == KCP_OWNERS_NOBODY) {
    return false;
  }
  memset(&handed, 0, sizeof handed);
  handed.peer = *peer;
  handed.server_port = server_port;
  bool sent = kcp_mailbox_send(forwarder->mailbox, (unsigned)owner, &handed, bytes, len) == 0;
  counters_add(forwarder->worker->counters, sent ? COUNTER_KCP_HANDED_OUT : COUNTER_KCP_HANDED_LOST,
               1);
  event_active(forwarder->flush, EV_TIMEOUT, 0);
  return true;
}

static void count_lost(struct kcp_forwarder *forwarder) {
  counters_add(forwarder->worker->counters, COUNTER_KCP_HANDED_LOST,
               kcp_mailbox_take_lost(forwarder->mailbox));
}

static void on_flush(evutil_socket_t fd, short what, void *owner) {
  struct kcp_forwarder *forwarder = owner;
  (void)fd;
  (void)what;
  kcp_mailbox_flush(forwarder->mailbox);
  count_lost(forwarder);
}

static void on_handed(const void *head, uint8_t *bytes, size_t len, void *owner) {
  struct kcp_forwarder *forwarder = owner;
  struct handed handed;
  memcpy(&handed, head, sizeof handed);
  counters_add(forwarder->worker->counters, COUNTER_KCP_HANDED_IN, 1);
  forwarder->on_datagram(handed.server_port, &handed.peer, bytes, len, forwarder->owner);
}

static void on_mail(evutil_socket_t fd, short what, void *owner) {
  struct kcp_forwarder *forwarder = owner;
  (void)fd;
  (void)what;
  kcp_mailbox_receive(forwarder->mailbox, on_handed, forwarder);
}

// --- The whole ---------------------------------------------------------------------------------

static bool open_mailbox(struct kcp_forwarder *forwarder) {
  struct worker *worker = forwarder->worker;
  const int first = worker->kcp_mailboxes_fd;
  int others[CONFIG_WORKER_NUMBERS];
  for (int number = 0; number < CONFIG_WORKER_NUMBERS; number++) {
    others[number] = first + 1 + number;
  }
  forwarder->mailbox = kcp_mailbox_new(first, others, sizeof(struct handed));
  if (!forwarder->mailbox) {
    return false;
  }
  // That was for the worker that had the number before; nobody sends to it now (kcp_owners_clear).
  kcp_mailbox_drop(forwarder->mailbox);
  count_lost(forwarder);
  forwarder->mail = event_new(worker->base, first, EV_READ | EV_PERSIST, on_mail, forwarder);
  return forwarder->mail && event_add(forwarder->mail, NULL) == 0;
}

struct kcp_forwarder *kcp_forwarder_new(struct worker *worker,
                                        kcp_forwarder_on_datagram *on_datagram, void *owner,
                                        char *why, size_t why_size) {
  struct kcp_forwarder *forwarder = calloc(1, sizeof *forwarder);
  snprintf(why, why_size, "out of memory");
  if (!forwarder) {
    return NULL;
  }
  forwarder->worker = worker;
  forwarder->on_datagram = on_datagram;
  forwarder->owner = owner;
  forwarder->flush = event_new(worker->base, -1, 0, on_flush, forwarder);
  if (!forwarder->flush || !open_mailbox(forwarder)) {
    kcp_forwarder_free(forwarder);
    return NULL;
  }
  return forwarder;
}

void kcp_forwarder_free(struct kcp_forwarder *forwarder) {
  if (!forwarder) {
    return;
  }
  if (forwarder->mail) {
    event_free(forwarder->mail);
  }
  if (forwarder->flush) {
    event_free(forwarder->flush);
  }
  kcp_mailbox_free(forwarder->mailbox);
  free(forwarder);
}
