// The arithmetic on whole shards that the erasure code is made of, in the ways there are to do
// it. The bytes are the same; which is used is settled when a code is made. For reed_solomon.c
// and its tests alone.
#ifndef JANUS_COMMON_KCP_REED_SOLOMON_KERNEL_H
#define JANUS_COMMON_KCP_REED_SOLOMON_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "common/kcp/reed_solomon.h"

enum {
  REED_SOLOMON_POLYNOMIAL = 0x11d,  // of the field
  REED_SOLOMON_TABLE_BYTES = 32,    // for each coefficient
};

// Rows of a matrix: one makes one shard, its sum over the columns of coefficient times shard.
struct reed_solomon_rows {
  unsigned count;
  unsigned columns;
  const uint8_t *coefficients;  // row after row
  uint8_t *tables;              // room for REED_SOLOMON_TABLE_BYTES for each coefficient
};

struct reed_solomon_kernel {
  const char *name;
  // Fills the tables. NULL if it needs none.
  void (*prepare)(const struct reed_solomon_rows *rows);
  // Adds shard, as that of column, to each row's out: of len bytes, not 0.
  void (*add)(const struct reed_solomon_rows *rows, unsigned column, const uint8_t *shard,
              size_t len, uint8_t *const out[]);
};

const struct reed_solomon_kernel *reed_solomon_portable(void);
// NULL where the build has no ISA-L, or the processor nothing that makes it the faster one.
const struct reed_solomon_kernel *reed_solomon_isal(void);

// As reed_solomon_new, which chooses by itself.
struct reed_solomon *reed_solomon_new_with(const struct reed_solomon_kernel *kernel, unsigned data,
                                           unsigned parity);

#endif
