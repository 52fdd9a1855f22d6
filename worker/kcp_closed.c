#include "worker/kcp_closed.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

// A slot holds the connection that fell into it last: the upper bits of its hash, and in the lower
// ones the second until which it counts.
enum { SLOTS = 4096, TIME_BITS = 24 };
static const uint64_t time_mask = (1U << TIME_BITS) - 1;

struct kcp_closed {
  uint64_t slots[SLOTS];
  uint8_t key[crypto_shorthash_KEYBYTES];
};

static uint64_t hash_of(const struct kcp_closed *closed, const struct kcp_peer *peer,
                        uint32_t conv) {
  uint8_t what[KCP_PEER_KEY_BYTES + sizeof conv];
  uint8_t out[crypto_shorthash_BYTES];
  uint64_t hash;
  kcp_peer_key(peer, what);
  memcpy(what + KCP_PEER_KEY_BYTES, &conv, sizeof conv);
  crypto_shorthash(out, what, sizeof what, closed->key);
  memcpy(&hash, out, sizeof hash);
  return hash;
}

void kcp_closed_add(struct kcp_closed *closed, const struct kcp_peer *peer, uint32_t conv,
                    int64_t now_ms) {
  uint64_t hash = hash_of(closed, peer, conv);
  uint64_t until_s = (uint64_t)(now_ms + KCP_CLOSED_KEPT_MS) / 1000;
  closed->slots[hash % SLOTS] = (hash & ~time_mask) | (until_s & time_mask);
}

bool kcp_closed_has(const struct kcp_closed *closed, const struct kcp_peer *peer, uint32_t conv,
                    int64_t now_ms) {
  uint64_t hash = hash_of(closed, peer, conv);
  uint64_t slot = closed->slots[hash % SLOTS];
  uint64_t left_s = ((slot & time_mask) - (uint64_t)now_ms / 1000) & time_mask;
  return (slot & ~time_mask) == (hash & ~time_mask) && left_s <= KCP_CLOSED_KEPT_MS / 1000;
}

struct kcp_closed *kcp_closed_new(void) {
  struct kcp_closed *closed = calloc(1, sizeof *closed);
  if (closed) {
    crypto_shorthash_keygen(closed->key);
  }
  return closed;
}

void kcp_closed_free(struct kcp_closed *closed) { free(closed); }
