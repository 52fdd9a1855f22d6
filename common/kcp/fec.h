// The outermost layer of the KCP transport: each datagram's header of sequence number and kind,
// and the parity datagrams from which lost ones are made again (Reed-Solomon, as kcp-go and
// klauspost/reedsolomon have it). It knows nothing of what it carries.
//
// A group is D data datagrams and then P of parity; its place in the sequence is a multiple of
// D + P. Data goes out at once; parity behind the D-th. All integers are little-endian.
//
// Loop thread only; one encoder and one decoder belong to one connection.
#ifndef JANUS_COMMON_KCP_FEC_H
#define JANUS_COMMON_KCP_FEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/kcp/reed_solomon.h"

enum {
  FEC_HEADER_BYTES = 8,  // of a data datagram: sequence 4, kind 2, size 2
  FEC_DATA = 0xf1,
  FEC_PARITY = 0xf2,
  FEC_OUT_OF_BAND = 0xf3,  // of later versions of kcp-go; to be dropped
  FEC_DATAGRAM_MAX_BYTES = 1500,
  FEC_GROUPS_KEPT = 4,  // by the decoder
  FEC_PARITY_GAP_MS = 500,
};

// --- Sending ---------------------------------------------------------------------------------

struct fec_encoder;

// code is borrowed. NULL when out of memory. Shard bytes are held only while a group is open and
// the connection is not idle.
struct fec_encoder *fec_encoder_new(const struct reed_solomon *code);
void fec_encoder_free(struct fec_encoder *encoder);  // accepts NULL
// The next sequence number (a multiple of D + P), for tests of the wrap-around.
void fec_encoder_start_at(struct fec_encoder *encoder, uint32_t sequence);

// One datagram: `out` is valid for the call.
typedef void fec_output(uint8_t *datagram, size_t len, void *owner);

// Sends payload of len bytes, which stands behind FEC_HEADER_BYTES of room in buffer, and behind
// the last of its group the parity. Out of memory, or with a payload that makes more than
// FEC_DATAGRAM_MAX_BYTES, the group gets no parity, which is legal. output leaves encoder alone.
void fec_encoder_send(struct fec_encoder *encoder, uint8_t *buffer, size_t len, int64_t now_ms,
                      fec_output *output, void *owner);
// The connection is idle: what the open group holds is given up; it gets no parity.
void fec_encoder_rest(struct fec_encoder *encoder);

// --- Receiving -------------------------------------------------------------------------------

struct fec_decoder;

struct fec_counts {
  uint64_t parity_in;   // datagrams
  uint64_t recovered;   // payloads made again
  uint64_t unusable;    // recovered, but with a size that can't be
  uint64_t duplicates;  // of a sequence number that was there
  uint64_t late;        // of a group no longer kept, or far from the others
  uint64_t misplaced;   // of a kind that is not its place's: the peer's numbers are not ours
};

// code is borrowed: the shard numbers that the peer is taken to have. NULL when out of memory.
// It holds at most FEC_GROUPS_KEPT groups of D + P datagrams, and nothing of a whole group. While
// the peer shows other numbers nothing is recovered. A group that it could not hold for want of
// memory is not recovered.
struct fec_decoder *fec_decoder_new(const struct reed_solomon *code);
void fec_decoder_free(struct fec_decoder *decoder);  // accepts NULL
size_t fec_decoder_held_bytes(const struct fec_decoder *decoder);
const struct fec_counts *fec_decoder_counts(const struct fec_decoder *decoder);

// Nothing has come for a while: what is missing of the groups that it holds has been sent again by
// now, and they are given up.
void fec_decoder_rest(struct fec_decoder *decoder);

// What a datagram brought: valid for the call. regular is false for what was recovered.
typedef void fec_payload(uint8_t *payload, size_t len, bool regular, void *owner);

// Takes in one datagram, hostile: with FEC's header or without (plain KCP; then decoder may be
// NULL, as it may be when this side has no FEC: data is delivered, parity dropped). First its own
// payload is delivered, and then what it helped to recover. ERROR_MALFORMED: it is too short,
// or of a kind that is not ours.
int fec_decoder_input(struct fec_decoder *decoder, uint8_t *datagram, size_t len,
                      fec_payload *deliver, void *owner) MUST_CHECK;
void fec_decoder_prefetch(const struct fec_decoder *decoder);  // accepts NULL
void fec_encoder_prefetch(const struct fec_encoder *encoder);  // accepts NULL

#endif
