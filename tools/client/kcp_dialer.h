// A client's connections over KCP: each on a connected UDP socket of its own, with one stream of
// bytes or several. What thousands of them can share is in one dialer: the erasure code, the
// buffers for datagrams, and one timer of the loop.
//
// Datagrams are read and written in batches; what is written to streams within one turn of the
// loop leaves at its end. Loop thread only.
#ifndef JANUS_TOOLS_CLIENT_KCP_DIALER_H
#define JANUS_TOOLS_CLIENT_KCP_DIALER_H

#include <event2/event.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/error.h"

// How the wire is spoken: what the gateway's side has to fit. Zeros are the ecosystem's defaults.
struct kcp_wire {
  bool low_latency;        // its profile of that name
  bool has_fec;            // what follows was given; else the profile's
  unsigned data_shards;    // both 0: no FEC
  unsigned parity_shards;  // for each group
  unsigned idle_streams;   // opened with each connection and never used, as its client does
};

// "10+3", or "off". ERROR_INVALID.
int kcp_wire_parse_fec(const char *text, struct kcp_wire *wire) MUST_CHECK;
// "default" or "low-latency". ERROR_INVALID.
int kcp_wire_parse_profile(const char *text, struct kcp_wire *wire) MUST_CHECK;

struct kcp_dialer;
struct kcp_stream;

// Each may close its stream, and write to it.
struct kcp_stream_events {
  // Bytes that came, writable, valid for the call. Returns how many were used: the rest comes
  // again with more behind it.
  size_t (*on_bytes)(uint8_t *bytes, size_t len, void *owner);
  // The stream is at its end, and still to be closed: 0 when the peer has ended it, or why its
  // connection is: ERROR_EXPIRED when the peer is silent, ERROR_MALFORMED, ERROR_MEMORY.
  void (*on_ended)(int error, void *owner);
};

// NULL when out of memory. wire is copied, events are borrowed.
struct kcp_dialer *kcp_dialer_new(struct event_base *base, const struct kcp_wire *wire,
                                  const struct kcp_stream_events *events);
// After its streams. Those closed may still have something under way, which is given
// KCP_DIALER_LINGER_MS, without the loop. Accepts NULL.
void kcp_dialer_free(struct kcp_dialer *dialer);
enum { KCP_DIALER_LINGER_MS = 500 };

// Opens a stream, on a connection of its own or on that of `beside`. Nothing is known of the peer
// by that: KCP has no word for a connection that stands. NULL, with errno.
struct kcp_stream *kcp_dial(struct kcp_dialer *dialer, const struct sockaddr *address,
                            socklen_t address_len, struct in_addr source, struct kcp_stream *beside,
                            void *owner);
// What was written still goes out, and then the peer is told. No event comes after this. Accepts
// NULL.
void kcp_stream_close(struct kcp_stream *stream);

// Takes any amount. ERROR_MEMORY. What is written after the end is lost.
int kcp_stream_write(struct kcp_stream *stream, const uint8_t *bytes, size_t len) MUST_CHECK;
// What was written, on any stream of its connection, and has not been acknowledged.
size_t kcp_stream_unsent_bytes(const struct kcp_stream *stream);
// Stops and restarts on_bytes. What was kept comes in a later turn of the loop.
void kcp_stream_pause(struct kcp_stream *stream, bool paused);
// What the system last said of the way to the peer, as that nobody listens there; 0: nothing.
int kcp_stream_path_errno(const struct kcp_stream *stream);

#endif
