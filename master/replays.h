// Handshakes seen of late, by the client's public key: one that was captured and is
// sent again is known, whichever worker it comes to. A key is remembered for as long as
// the timestamp beside it could still be good; an honest client draws a new one for
// each login.
//
// Bounded: beyond the capacity the oldest is forgotten early.
#ifndef JANUS_MASTER_REPLAYS_H
#define JANUS_MASTER_REPLAYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/keys.h"

enum replays_verdict {
  REPLAYS_FIRST,       // not seen before, and remembered from now on
  REPLAYS_FIRST_FULL,  // the same; the oldest gave way for it
  REPLAYS_AGAIN,       // seen before
  REPLAYS_NO_MEMORY,
};

struct replays;

// keep_ms is how long a key is remembered. NULL when out of memory.
struct replays *replays_new(int64_t keep_ms, size_t capacity);
void replays_free(struct replays *replays);  // accepts NULL

// now_ms: the monotonic clock.
enum replays_verdict replays_check(struct replays *replays, const uint8_t key[KEY_X25519_BYTES],
                                   int64_t now_ms);

size_t replays_count(const struct replays *replays);

#endif
