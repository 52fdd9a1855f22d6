// The erasure code of the KCP transport's FEC: GF(2^8) with polynomial 0x11d, a Vandermonde
// matrix over the points 0, 1, 2, ... made systematic (the default of klauspost/reedsolomon).
// With ISA-L where the build has it (HAVE_ISAL), else portable; the bytes are the same.
//
// Immutable once made; any thread.
#ifndef JANUS_COMMON_KCP_REED_SOLOMON_H
#define JANUS_COMMON_KCP_REED_SOLOMON_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum { REED_SOLOMON_SHARDS_MAX = 256 };  // data and parity together

struct reed_solomon;

// NULL when out of memory, or for numbers that can't be: both are at least 1, their sum at most
// REED_SOLOMON_SHARDS_MAX.
struct reed_solomon *reed_solomon_new(unsigned data, unsigned parity);
void reed_solomon_free(struct reed_solomon *code);  // accepts NULL
unsigned reed_solomon_data(const struct reed_solomon *code);
unsigned reed_solomon_parity(const struct reed_solomon *code);
// The row of the matrix by which parity shard `parity` is made: one byte for each data shard.
const uint8_t *reed_solomon_row(const struct reed_solomon *code, unsigned parity);

// Adds data shard `index` of len bytes to each of the parity shards, which begin as zeros and are
// at least as long: what is missing at a shard's end counts as zeros.
void reed_solomon_add(const struct reed_solomon *code, unsigned index, const uint8_t *shard,
                      size_t len, uint8_t *const parity[]);

// Makes the missing data shards again. shards holds D + P pointers, NULL for those that are not
// there; all have len bytes (the caller extends them with zeros). out holds D pointers, set for
// each missing data shard, to len bytes. ERROR_NOT_FOUND: fewer than D are there.
int reed_solomon_recover(const struct reed_solomon *code, const uint8_t *const shards[], size_t len,
                         uint8_t *const out[]) MUST_CHECK;

#endif
