// A UDP socket that clients share, with its datagrams in batches: many are read and written by one
// system call, and datagrams of one length to one client are given to the kernel as one (UDP
// segmentation offload) where it can do that.
//
// Loop thread only.
#ifndef JANUS_WORKER_KCP_SOCKET_H
#define JANUS_WORKER_KCP_SOCKET_H

#include <event2/event.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/counters.h"

// Who has sent a datagram, and the address of ours that it came to: an answer leaves from there.
struct kcp_peer {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } address;
  union {
    struct in_addr v4;
    struct in6_addr v6;
  } local;
  unsigned interface;  // that a link-local address needs; else 0
};
socklen_t kcp_peer_address_len(const struct kcp_peer *peer);
// Its address and port, in one form for both families.
enum { KCP_PEER_KEY_BYTES = 18 };
void kcp_peer_key(const struct kcp_peer *peer, uint8_t key[KCP_PEER_KEY_BYTES]);

enum {
  KCP_DATAGRAM_MAX_BYTES = 2048,  // one that is longer is cut off, and then malformed
};

struct kcp_socket;

enum { KCP_SOCKET_BATCH = 64 };  // datagrams by one call

struct kcp_socket_events {
  // Datagrams of these peers follow, two or more: time to have memory fetched, for all at once. May
  // be NULL.
  void (*on_batch)(const struct kcp_peer peers[], size_t count, void *owner);
  // One datagram, writable, valid for the call.
  void (*on_datagram)(const struct kcp_peer *peer, uint8_t *bytes, size_t len, void *owner);
};

// Takes over fd, a bound, non-blocking UDP socket with packet information on. Nothing is read until
// kcp_socket_read. NULL when out of memory; then fd is closed.
struct kcp_socket *kcp_socket_new(struct event_base *base, int fd, struct counters *counters,
                                  const struct kcp_socket_events *events, void *owner);
void kcp_socket_free(struct kcp_socket *socket);  // accepts NULL

// Reads, or no longer: what comes stays with the kernel, for whoever else has the socket.
void kcp_socket_read(struct kcp_socket *socket, bool on);

// Puts one datagram of up to KCP_DATAGRAM_MAX_BYTES into the batch, which goes out when it is full,
// and with kcp_socket_flush. What the kernel does not take is counted and lost, as on any network.
void kcp_socket_send(struct kcp_socket *socket, const struct kcp_peer *peer, const uint8_t *bytes,
                     size_t len);
void kcp_socket_flush(struct kcp_socket *socket);

#endif
