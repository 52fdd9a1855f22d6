// A connection to a server: its name looked up, TCP, and TLS with ALPN where that is wanted. Bytes
// go straight to the socket and come straight from it; nothing is kept here.
//
// Loop thread only. Callbacks never run from inside the functions below, and must not free the
// connection that they are told of.
#ifndef JANUS_COMMON_TCP_CLIENT_H
#define JANUS_COMMON_TCP_CLIENT_H

#include <event2/event.h>
#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct evdns_base;
struct tcp_client;

// What the connections of a loop share. The caller fills in base and read_buffer, and frees that.
struct tcp_client_shared {
  struct event_base *base;
  uint8_t *read_buffer;
  size_t read_buffer_bytes;
  struct evdns_base *dns;  // made with the first name that is no number
};
// After its connections, and before loop_free.
void tcp_client_shared_clear(struct tcp_client_shared *shared);

struct tcp_client_events {
  // Connected, and TLS is agreed on: bytes may be written.
  void (*on_connected)(void *owner);
  // Some bytes came, borrowed for the call.
  void (*on_bytes)(const uint8_t *bytes, size_t len, void *owner);
  // After a write that was not taken whole.
  void (*on_writable)(void *owner);
  // It is over, whenever: always the last. why is borrowed, and may quote the server.
  void (*on_broken)(const char *why, void *owner);
};

struct tcp_client_target {
  const char *address;  // host:port; an IPv6 address in brackets
  SSL_CTX *tls;         // NULL: none
  const char *name;     // that its certificate must have; NULL: the host's
  const char *alpn;     // the protocol that it must choose, of under 128 bytes
  // The caller will wait for so long: each of the host's addresses gets its share of what is left,
  // since one may swallow whatever is sent there.
  int64_t timeout_ms;
  // How long the server may leave unacknowledged what was sent, or take nothing more, until the
  // connection breaks. 0: as the kernel has it, many minutes.
  unsigned user_timeout_ms;
};

// Begins to connect. target's texts are copied, its context is used on; events are borrowed. NULL
// when out of memory.
struct tcp_client *tcp_client_new(struct tcp_client_shared *shared,
                                  const struct tcp_client_target *target,
                                  const struct tcp_client_events *events, void *owner);
void tcp_client_free(struct tcp_client *client);  // accepts NULL

// Writes what the socket takes of the bytes now, and returns how much that is: on_writable tells
// when it takes more, and on_broken if it is over. Only when connected. Under TLS what was not
// taken has to be the beginning of what is written next.
size_t tcp_client_write(struct tcp_client *client, const uint8_t *bytes, size_t len);

#endif
