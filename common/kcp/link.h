// One KCP connection, all its layers joined: datagrams below, streams above. FEC, KCP and smux
// know nothing of each other; what passes between them passes here. The gateway and the tools'
// client both stand on it.
//
// It holds no socket and no timer: datagrams go out through output, and link_tick is to be called
// when link_due says so.
//
// Loop thread only.
#ifndef JANUS_COMMON_KCP_LINK_H
#define JANUS_COMMON_KCP_LINK_H

#include "common/kcp/fec.h"
#include "common/kcp/kcp.h"
#include "common/kcp/smux.h"

// What all links of one kind in a thread share. Borrowed by them.
struct link_settings {
  const struct reed_solomon *code;  // NULL: no FEC
  struct kcp_settings kcp;
  struct smux_settings smux;
  uint8_t *scratch;  // LINK_SCRATCH_BYTES
};
enum { LINK_SCRATCH_BYTES = FEC_HEADER_BYTES + KCP_MTU_MAX };

struct link;

struct link_events {
  // One datagram for the peer, valid for the call.
  void (*output)(const uint8_t *datagram, size_t len, void *owner);
  // The link has something to do: link_flush is to be called before the loop waits. Once for
  // each flush.
  void (*on_dirty)(void *owner);
  struct smux_events streams;
};

// settings and events are borrowed. NULL when out of memory.
struct link *link_new(uint32_t conv, const struct link_settings *settings,
                      const struct link_events *events, void *owner, int64_t now_ms);
// Frees it with its streams, without a word to the peer and without an event.
void link_free(struct link *link);  // accepts NULL
// The numbers of the first datagram (a multiple of the group's size; without FEC, of no effect)
// and of the first segments, for tests of the wrap-around.
void link_start_at(struct link *link, uint32_t sequence, uint32_t send_next, uint32_t receive_next);
// As kcp_hide_clock and kcp_peer_is_there.
void link_hide_clock(struct link *link, uint32_t ahead_ms);
bool link_peer_is_there(const struct link *link);
// For on_open: the streams get nothing more until it is known that the peer is there.
void link_wait_for_peer(struct link *link);

// What a datagram says of the connection it belongs to, without taking it in. False: nothing, as
// one of parity does not, or it makes no sense.
bool link_glance(const uint8_t *datagram, size_t len, struct kcp_glance *glance);
// Whether a datagram is one of parity, which any connection of its sender may be meant by.
bool link_is_parity(const uint8_t *datagram, size_t len);

// Of what would be read next, the first payload that a datagram brings, hostile and not taken in:
// copied to out, with whose it is (its stream's owner) and how long. NULL: it brings none that
// could be judged by itself.
void *link_peek(const struct link *link, const uint8_t *datagram, size_t len,
                uint8_t out[FEC_DATAGRAM_MAX_BYTES], const uint8_t **payload, size_t *payload_len);

// A datagram will come: has the memory fetched that it takes to take it in. The second once that of
// the first may be there.
void link_prefetch(const struct link *link);
void link_prefetch_layers(const struct link *link);

// One datagram from the peer, hostile. 0, or why the link is at its end: ERROR_MALFORMED (smux was
// broken), ERROR_MEMORY. A datagram that makes no sense by itself is counted and dropped.
int link_input(struct link *link, uint8_t *datagram, size_t len, int64_t now_ms) MUST_CHECK;
// Sends what is to be sent now, after inputs and writes. 0, or ERROR_MEMORY.
int link_flush(struct link *link, int64_t now_ms) MUST_CHECK;
// When link_tick is to be called next; LINK_NEVER.
#define LINK_NEVER INT64_MAX
int64_t link_due(const struct link *link, int64_t now_ms);
// 0; ERROR_EXPIRED: the peer is gone (silent, or one segment was sent too often); ERROR_MEMORY.
int link_tick(struct link *link, int64_t now_ms) MUST_CHECK;

// Its streams: what is done to them by hand is followed by link_touch.
struct smux *link_smux(struct link *link);
// Something was written to a stream, or a stream was resumed or closed.
void link_touch(struct link *link);
// All that was written has been acknowledged.
bool link_is_settled(const struct link *link);

struct link_state {
  struct kcp_state kcp;
  struct kcp_counts kcp_counts;
  struct fec_counts fec;
  uint64_t datagrams_in;
  uint64_t datagrams_out;
  uint64_t malformed_in;  // datagrams that made no sense
  size_t streams;
};
void link_describe(const struct link *link, struct link_state *state);

#endif
