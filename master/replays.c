#include "master/replays.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uthash.h>

struct seen {
  uint8_t key[KEY_X25519_BYTES];
  int64_t until_ms;
  TAILQ_ENTRY(seen) age;
  UT_hash_handle hh;
};

struct replays {
  int64_t keep_ms;
  size_t capacity;
  struct seen *seen;
  TAILQ_HEAD(replays_ages, seen) by_age;  // all are kept for the same time: oldest first
};

struct replays *replays_new(int64_t keep_ms, size_t capacity) {
  struct replays *replays = calloc(1, sizeof *replays);
  if (replays) {
    replays->keep_ms = keep_ms;
    replays->capacity = capacity;
    TAILQ_INIT(&replays->by_age);
  }
  return replays;
}

static void forget(struct replays *replays, struct seen *seen) {
  TAILQ_REMOVE(&replays->by_age, seen, age);
  HASH_DELETE(hh, replays->seen, seen);
  free(seen);
}

enum replays_verdict replays_check(struct replays *replays, const uint8_t key[KEY_X25519_BYTES],
                                   int64_t now_ms) {
  struct seen *seen;
  while ((seen = TAILQ_FIRST(&replays->by_age)) && seen->until_ms <= now_ms) {
    forget(replays, seen);
  }
  HASH_FIND(hh, replays->seen, key, KEY_X25519_BYTES, seen);
  if (seen) {
    return REPLAYS_AGAIN;
  }
  bool full = replays_count(replays) >= replays->capacity;
  if (full) {
    forget(replays, TAILQ_FIRST(&replays->by_age));
  }
  seen = calloc(1, sizeof *seen);
  if (!seen) {
    return REPLAYS_NO_MEMORY;
  }
  memcpy(seen->key, key, KEY_X25519_BYTES);
  seen->until_ms = now_ms + replays->keep_ms;
  TAILQ_INSERT_TAIL(&replays->by_age, seen, age);
  HASH_ADD(hh, replays->seen, key, KEY_X25519_BYTES, seen);
  return full ? REPLAYS_FIRST_FULL : REPLAYS_FIRST;
}

size_t replays_count(const struct replays *replays) { return HASH_COUNT(replays->seen); }

void replays_free(struct replays *replays) {
  if (!replays) {
    return;
  }
  struct seen *seen;
  while ((seen = TAILQ_FIRST(&replays->by_age))) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    forget(replays, seen);
  }
  free(replays);
}
