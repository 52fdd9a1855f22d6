#include "master/replays.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uthash.h>

// Clients choose their keys, so these are hashed under a secret first: else somebody
// could choose many that fall into one bucket of the table.
enum { DIGEST_BYTES = crypto_generichash_BYTES_MIN };

struct seen {
  uint8_t digest[DIGEST_BYTES];
  int64_t until_ms;
  TAILQ_ENTRY(seen) age;
  UT_hash_handle hh;
};

struct replays {
  int64_t keep_ms;
  size_t capacity;
  uint8_t secret[crypto_generichash_KEYBYTES];
  struct seen *seen;
  TAILQ_HEAD(replays_ages, seen) by_age;  // all are kept for the same time: oldest first
};

struct replays *replays_new(int64_t keep_ms, size_t capacity) {
  struct replays *replays = calloc(1, sizeof *replays);
  if (replays) {
    replays->keep_ms = keep_ms;
    replays->capacity = capacity;
    randombytes_buf(replays->secret, sizeof replays->secret);
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
  uint8_t digest[DIGEST_BYTES];
  struct seen *seen;
  crypto_generichash(digest, sizeof digest, key, KEY_X25519_BYTES, replays->secret,
                     sizeof replays->secret);
  // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
  while ((seen = TAILQ_FIRST(&replays->by_age)) && seen->until_ms <= now_ms) {
    forget(replays, seen);
  }
  HASH_FIND(hh, replays->seen, digest, sizeof digest, seen);
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
  memcpy(seen->digest, digest, sizeof digest);
  seen->until_ms = now_ms + replays->keep_ms;
  TAILQ_INSERT_TAIL(&replays->by_age, seen, age);
  HASH_ADD(hh, replays->seen, digest, sizeof seen->digest, seen);
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
