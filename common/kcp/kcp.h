// KCP: from datagrams that are lost, doubled and reordered to one reliable stream of bytes in
// each direction (the wire of kcp-go 5.6.22; what it does not ask for, we do as we see fit).
//
// It holds no clock and no timer: the caller gives the time (ms of any clock, of which the low 32
// bits go on the wire), and calls kcp_flush when kcp_due says so. All integers are little-endian.
//
// Loop thread only; one belongs to one connection.
#ifndef JANUS_COMMON_KCP_KCP_H
#define JANUS_COMMON_KCP_KCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum {
  KCP_SEGMENT_HEADER_BYTES = 24,
  KCP_INTERVAL_MIN_MS = 10,
  KCP_MTU_MIN = 50,
  KCP_MTU_MAX = 1492,  // kcp-go's receive buffer is 1500 bytes, FEC's header within
  KCP_FIRST_PEER_WINDOW = 32,
  KCP_DEAD_TRANSMISSIONS = 20,  // of one segment, while nothing comes: nobody is there
  KCP_DEAD_SILENCE_MS = 20000,
};
// Memory of small segments that were acknowledged, to be used again before any other: what the
// connections of a loop share of it is warm, where the allocator's is cold. Begins as zeros.
struct kcp_spares {
  struct outgoing *first;
  size_t count;
};
void kcp_spares_free(struct kcp_spares *spares);

enum kcp_command { KCP_PUSH = 81, KCP_ACK = 82, KCP_ASK_WINDOW = 83, KCP_TELL_WINDOW = 84 };

struct kcp_settings {
  bool nodelay;             // RTO of at least 30 ms in place of 100, and a slower backoff
  uint32_t interval_ms;     // of the periodic flush while something is under way; at least 10
  uint32_t resend;          // acknowledgements passing a segment before it is sent again; 0: never
  bool congestion_window;   // nc = 0
  bool ack_nodelay;         // acknowledgements go out with kcp_flush_acks, not with the interval
  uint32_t send_window;     // segments
  uint32_t receive_window;  // at most 65535
  uint32_t mtu;             // bytes of one output
  struct kcp_spares *spares;  // shared by the connections of a thread; may be NULL
};

struct kcp_counts {
  uint64_t segments_in;  // of data
  uint64_t segments_out;
  uint64_t duplicates_in;
  uint64_t outside_window_in;
  uint64_t retransmits;       // all of them;
  uint64_t fast_retransmits;  // of these: since later ones were acknowledged
  uint64_t window_stalls;     // times the peer's window, or ours, was full
  uint64_t malformed;         // inputs that ended in an error
};

struct kcp_state {  // as it is now
  uint32_t conv;
  bool has_round_trip;  // else the next is none; below a millisecond it is 0
  uint32_t srtt_ms;
  uint32_t rto_ms;
  uint32_t peer_window;
  uint32_t receive_window_free;
  uint32_t in_flight;    // segments
  uint32_t queued;       // segments not yet sent
  size_t unacked_bytes;  // in flight or queued
};

struct kcp;

// One output of up to mtu bytes, behind `headroom` bytes of room that may be written over;
// valid for the call.
typedef void kcp_output(uint8_t *bytes, size_t len, void *owner);

// scratch (headroom + mtu bytes) is borrowed, and used within kcp_flush and kcp_flush_acks alone:
// all connections of a thread may share it. settings are borrowed. NULL when out of memory.
struct kcp *kcp_new(uint32_t conv, const struct kcp_settings *settings, uint8_t *scratch,
                    size_t headroom, kcp_output *output, void *owner);
void kcp_free(struct kcp *kcp);  // accepts NULL
// Numbers of the first segments, for tests of the wrap-around.
void kcp_start_at(struct kcp *kcp, uint32_t send_next, uint32_t receive_next);
// What the clock in its segments is ahead of that of the calls, before the first flush. Peers only
// send it back: with a number drawn at random nobody can who has not had a segment.
void kcp_hide_clock(struct kcp *kcp, uint32_t ahead_ms);
// Whether the clock of one has come back.
bool kcp_peer_is_there(const struct kcp *kcp);

// What the beginning of a payload says, without taking it in: for whoever has to find the
// connection it belongs to. False: it holds no whole segment header.
struct kcp_glance {
  uint32_t conv;
  uint32_t sn;
  uint32_t una;
  uint8_t command;
};
bool kcp_glance(const uint8_t *payload, size_t len, struct kcp_glance *glance);

// Takes in one payload, hostile; regular is false for what FEC recovered, which tells nothing of
// the round trip and the peer's window. What stands before a fault counts. ERROR_MALFORMED: a
// conv that is not ours, an unknown command, a length that does not fit, or data of length 0.
// ERROR_MEMORY.
int kcp_input(struct kcp *kcp, const uint8_t *payload, size_t len, bool regular,
              int64_t now_ms) MUST_CHECK;
// Of the bytes that would be read next, those that this payload brings, hostile and not taken in:
// copied to out, and how many there are; 0 also while earlier ones were not read.
size_t kcp_peek(const struct kcp *kcp, const uint8_t *payload, size_t len, uint8_t *out,
                size_t room);
// What happened since the last flush asks for. A full flush: something was written, what waits may
// go now, a segment turned out to be lost, or our window is open again; else of the
// acknowledgements alone, where ack_nodelay is set.
enum kcp_wanted { KCP_NOTHING, KCP_FLUSH_ACKS, KCP_FLUSH };
enum kcp_wanted kcp_wants(const struct kcp *kcp);

void kcp_flush(struct kcp *kcp, int64_t now_ms);
void kcp_flush_acks(struct kcp *kcp, int64_t now_ms);
// When kcp_flush is to be called next, on the same clock; KCP_NEVER while nothing is under way.
#define KCP_NEVER INT64_MAX
int64_t kcp_due(const struct kcp *kcp, int64_t now_ms);
// A segment was sent KCP_DEAD_TRANSMISSIONS times without an answer, and nothing has come for
// KCP_DEAD_SILENCE_MS, or ever: on a short path that many transmissions alone take a few seconds,
// which a player in a lift has to survive, and a queue too short for a burst may cut off the same
// segments again and again.
bool kcp_is_dead(const struct kcp *kcp);

// The next bytes of the stream, in order: those of one segment, writable, until kcp_read_done.
// False: there are none. While they are not read they fill the receive window.
bool kcp_read(struct kcp *kcp, uint8_t **bytes, size_t *len);
void kcp_read_done(struct kcp *kcp);

// Whether the stream takes more: fewer segments wait than the windows let out. It is a rule for
// writers; kcp_write itself takes any amount.
bool kcp_takes_more(const struct kcp *kcp);
// Appends to the stream: what does not fill a segment is filled up by the next write, unless it
// has been sent. ERROR_MEMORY: nothing was taken.
int kcp_write(struct kcp *kcp, const uint8_t *bytes, size_t len) MUST_CHECK;

void kcp_describe(const struct kcp *kcp, struct kcp_state *state);
const struct kcp_counts *kcp_counts(const struct kcp *kcp);
void kcp_prefetch(const struct kcp *kcp);  // accepts NULL

#endif
