// smux version 2: many streams, each with its own window, on one reliable stream of bytes (the wire
// of xtaci/smux 1.5.34). It knows nothing of what carries it: bytes come in by smux_input, and go
// out by the carrier's write when the carrier has room.
//
// Frames are written to the carrier as soon as it takes them, within any function here but those
// that only tell or pause; what it does not take waits for smux_pump, which is to be called when it
// may take more, and after smux_input.
//
// It holds no timer: the caller gives the time, and calls smux_tick when smux_due says so.
//
// Loop thread only; one belongs to one connection.
#ifndef JANUS_COMMON_KCP_SMUX_H
#define JANUS_COMMON_KCP_SMUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum {
  SMUX_VERSION = 2,
  SMUX_HEADER_BYTES = 8,
  SMUX_FIRST_PEER_WINDOW = 262144,  // until the peer tells another
};
enum smux_command { SMUX_SYN, SMUX_FIN, SMUX_PSH, SMUX_NOP, SMUX_UPD };

struct smux_settings {
  bool client;                    // opens streams; else the peer does
  uint32_t frame_bytes;           // of payload in one frame that we send; at most 65535
  uint32_t stream_bytes;          // the window of a stream that we tell
  uint32_t session_bytes;         // that all streams together may hold unread; more is not read
  uint32_t streams_max;           // at a time
  int64_t keepalive_interval_ms;  // between two NOPs of ours, at most; 0: none
  int64_t keepalive_timeout_ms;   // a peer silent for it, or up to twice that, is gone; 0: never
};

struct smux;
struct smux_stream;

// What it stands on.
struct smux_carrier {
  // Whether a further frame may be written now.
  bool (*takes_more)(void *owner);
  // Appends to the stream. ERROR_MEMORY.
  int (*write)(const uint8_t *bytes, size_t len, void *owner);
};

// Upward. Any of them may close streams, and write to them; none may free the smux.
struct smux_events {
  // The peer has opened a stream: whose it is from now on, or NULL: none can be had, and it is
  // ended at once.
  void *(*on_open)(struct smux_stream *stream, void *owner);
  // Bytes of it, writable, valid for the call. Returns how many were used: the rest comes again
  // with more behind it, or when the stream is resumed. What is used opens the peer's window.
  size_t (*on_bytes)(uint8_t *bytes, size_t len, void *stream_owner);
  // The peer has ended it, and all it sent was used, or offered and left; still to be closed. What
  // waited to be sent was given up: the peer takes nothing more.
  void (*on_ended)(void *stream_owner);
  // Within smux_pump: bytes of what waited have gone to the carrier.
  void (*on_sent)(void *stream_owner);
};

// settings, carrier and events are borrowed. NULL when out of memory.
struct smux *smux_new(const struct smux_settings *settings, const struct smux_carrier *carrier,
                      const struct smux_events *events, void *owner, int64_t now_ms);
// Frees it and its streams, without a word to anybody.
void smux_free(struct smux *smux);  // accepts NULL

// Whether it takes bytes now: no more than session_bytes wait unread, and it is not held.
bool smux_takes_input(const struct smux *smux);
// Takes no more until it is released, nor what is left of the bytes at hand; and gives a sign of
// life, which the carrier will have acknowledged: another one when it is held already. For on_open.
void smux_hold(struct smux *smux);
bool smux_is_held(const struct smux *smux);
// Goes on with what was left. As smux_input.
int smux_release(struct smux *smux, int64_t now_ms) MUST_CHECK;
// Bytes from the peer, hostile, in order. ERROR_MALFORMED: the peer breaks the protocol, or a
// stream's window by more than what may be under way; the connection is at its end. ERROR_MEMORY.
int smux_input(struct smux *smux, uint8_t *bytes, size_t len, int64_t now_ms) MUST_CHECK;
// Of bytes that would come next, hostile and not taken in: whose the first payload is (its stream's
// owner), where it stands and how much of it. NULL: there is none, or it goes on with something
// that has come before.
void *smux_peek(const struct smux *smux, const uint8_t *bytes, size_t len, const uint8_t **payload,
                size_t *payload_len);
// Moves what waits to the carrier for as long as that takes more: control frames first, then a
// frame of each stream in turn. ERROR_MEMORY.
int smux_pump(struct smux *smux) MUST_CHECK;
// Whether smux_pump has something to move.
bool smux_has_output(const struct smux *smux);
// Whether all that was written, and each close, is with the carrier. Not so while a stream's bytes
// wait for the peer's window, though smux_pump could not move them.
bool smux_is_drained(const struct smux *smux);

#define SMUX_NEVER INT64_MAX
int64_t smux_due(const struct smux *smux);
// Sends what is due. False: the peer has been silent for too long.
bool smux_tick(struct smux *smux, int64_t now_ms);

// Those open, and those closed whose FIN the carrier has not taken yet.
size_t smux_stream_count(const struct smux *smux);
size_t smux_unread_bytes(const struct smux *smux);

// --- One stream ------------------------------------------------------------------------------

// Opens one, on the client's side. NULL: there are streams_max, or memory is out.
struct smux_stream *smux_open(struct smux *smux, void *stream_owner);
// How much was sent and used so far, for tests of the wrap-around; before any of it.
void smux_stream_start_at(struct smux_stream *stream, uint32_t sent, uint32_t used);
uint32_t smux_stream_id(const struct smux_stream *stream);
// What the windows and the carrier take goes to the carrier at once if nothing else waits; the
// rest is copied, and goes out with smux_pump. ERROR_MEMORY: nothing was taken; or half a frame was
// and the connection is at its end, as smux_pump tells. ERROR_INVALID: the peer has ended the
// stream.
int smux_write(struct smux_stream *stream, const uint8_t *bytes, size_t len) MUST_CHECK;
size_t smux_queued_bytes(const struct smux_stream *stream);   // not yet with the carrier
uint64_t smux_sent_bytes(const struct smux_stream *stream);   // handed to the carrier, ever
uint32_t smux_send_window(const struct smux_stream *stream);  // what the peer takes now
// Stops and restarts on_bytes; what was kept comes within smux_resume.
void smux_pause(struct smux_stream *stream);
void smux_resume(struct smux_stream *stream);
// Sends what waits, then FIN, and forgets the stream; no event comes after this. Without flush
// what waits is given up. Within on_bytes the bytes stay valid for the call.
void smux_close(struct smux_stream *stream, bool flush);
void smux_prefetch(const struct smux *smux);  // accepts NULL

#endif
