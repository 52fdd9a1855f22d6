// Datagrams of KCP that come to another worker than the one that has their connection: this worker
// says in the table that all share which connections it has (common/kcp_owners.h), and hands what
// is another one's to that (worker/kcp_mailbox.h).
//
// Loop thread only.
#ifndef JANUS_WORKER_KCP_FORWARDER_H
#define JANUS_WORKER_KCP_FORWARDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/kcp_socket.h"

struct kcp_connection;
struct kcp_forwarder;
struct kcp_glance;
struct worker;

// A datagram that another worker has handed over, which came to our port of that number; its bytes
// are writable. Valid for the call.
typedef void kcp_forwarder_on_datagram(uint16_t server_port, const struct kcp_peer *peer,
                                       uint8_t *bytes, size_t len, void *owner);

// NULL with the reason in why.
struct kcp_forwarder *kcp_forwarder_new(struct worker *worker,
                                        kcp_forwarder_on_datagram *on_datagram, void *owner,
                                        char *why, size_t why_size);
void kcp_forwarder_free(struct kcp_forwarder *forwarder);  // accepts NULL

// This worker has the connection, which the others find by its address and by its conv. When it
// begins, when its address changes, and again when its client is known to be there.
void kcp_forwarder_tell(struct kcp_forwarder *forwarder, const struct kcp_connection *connection);
// No longer; but_address: another connection of this worker has the same address.
void kcp_forwarder_untell(struct kcp_forwarder *forwarder, const struct kcp_connection *connection,
                          bool but_address);

// Hands the datagram, which came to that port of ours, to the worker that has its connection.
// glance is NULL for one of parity; is_known: a connection of its address is here, of another conv.
// False: no other worker has it. It goes out before the loop waits.
bool kcp_forwarder_hand_over(struct kcp_forwarder *forwarder, uint16_t server_port,
                             const struct kcp_peer *peer, const struct kcp_glance *glance,
                             bool is_known, const uint8_t *bytes, size_t len);

#endif
