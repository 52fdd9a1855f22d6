// Sealed shared-memory segments that one process makes and another maps through
// an inherited descriptor. A segment has no name, so none can be left behind.
#ifndef JANUS_COMMON_SHM_H
#define JANUS_COMMON_SHM_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

struct shm {
  void *base;
  size_t size;
  int fd;  // close-on-exec; whoever hands it on clears that in the child
};

// Makes a zeroed segment of size bytes, mapped writable here, its size sealed.
// With only_writer nobody else can ever map it writable (F_SEAL_FUTURE_WRITE):
// the tables that the master publishes. Without, the one who inherits it may
// write: a worker's counters. ERROR_SYSTEM.
int shm_create(struct shm *shm, const char *name, size_t size, bool only_writer) MUST_CHECK;

// Maps an inherited segment. Checks that its size is sealed, so that no access
// can fault later. Takes over fd, also on failure. ERROR_SYSTEM, or
// ERROR_INVALID for an unsealed or empty one.
int shm_map(struct shm *shm, int fd, bool writable) MUST_CHECK;

void shm_unmap(struct shm *shm);  // unmaps and closes; a zeroed struct is accepted

#endif
