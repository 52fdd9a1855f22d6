#include "common/kcp_owners.h"

#include <netinet/in.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/networks.h"
#include "common/shm.h"

enum {
  MAGIC = 0x6b6f776e,  // counted up when an entry means something else
  OWNER_BITS = 8,      // of an entry; the others are the key's
};

typedef _Atomic uint64_t entry;  // 0: it is free

struct segment {
  uint64_t magic;
  uint8_t hash_key[crypto_shorthash_KEYBYTES];
  // Two lines of the cache, which are fetched together.
  _Alignas(128) entry buckets[KCP_OWNERS_BUCKETS][KCP_OWNERS_BUCKET_ENTRIES];
};

struct kcp_owners {
  struct shm shm;
  struct segment *segment;
};

_Static_assert(CONFIG_WORKER_NUMBERS < 1 << OWNER_BITS, "the owner's number and one fits");
_Static_assert(crypto_shorthash_BYTES == sizeof(uint64_t), "a key is one hash");
_Static_assert((KCP_OWNERS_BUCKETS & (KCP_OWNERS_BUCKETS - 1)) == 0, "a power of two");

static struct kcp_owners *owners_of(struct shm *shm, int *error) {
  struct kcp_owners *owners = malloc(sizeof *owners);
  if (!owners) {
    shm_unmap(shm);
    *error = ERROR_MEMORY;
    return NULL;
  }
  *owners = (struct kcp_owners){.shm = *shm, .segment = shm->base};
  return owners;
}

struct kcp_owners *kcp_owners_create(int *error) {
  struct shm shm;
  if ((*error = shm_create(&shm, "janus-kcp-owners", sizeof(struct segment), false)) != 0) {
    return NULL;
  }
  struct segment *segment = shm.base;
  randombytes_buf(segment->hash_key, sizeof segment->hash_key);
  segment->magic = MAGIC;
  return owners_of(&shm, error);
}

struct kcp_owners *kcp_owners_open(int fd, int *error) {
  struct shm shm;
  if ((*error = shm_map(&shm, fd, true)) != 0) {
    return NULL;
  }
  if (shm.size != sizeof(struct segment) || ((const struct segment *)shm.base)->magic != MAGIC) {
    shm_unmap(&shm);
    *error = ERROR_INVALID;
    return NULL;
  }
  return owners_of(&shm, error);
}

void kcp_owners_free(struct kcp_owners *owners) {
  if (owners) {
    shm_unmap(&owners->shm);
    free(owners);
  }
}

int kcp_owners_fd(const struct kcp_owners *owners) { return owners->shm.fd; }

size_t kcp_owners_layout(void) { return sizeof(struct segment) + MAGIC; }

// --- Keys ------------------------------------------------------------------------------------

enum kind { BY_ADDRESS, BY_CONV };

static uint64_t hash(const struct kcp_owners *owners, const void *name, size_t len) {
  uint64_t key;
  crypto_shorthash((uint8_t *)&key, name, len, owners->segment->hash_key);
  return key;
}

uint64_t kcp_owners_key(const struct kcp_owners *owners, const struct sockaddr *client,
                        uint16_t server_port) {
  struct {
    uint8_t address[NETWORK_ADDRESS_BYTES];
    uint32_t kind;
    uint16_t client_port;
    uint16_t server_port;
  } name = {.kind = BY_ADDRESS, .server_port = server_port};
  _Static_assert(sizeof name == NETWORK_ADDRESS_BYTES + 8, "without padding");
  network_address_of_socket(client, name.address);
  name.client_port = client->sa_family == AF_INET6
                         ? ((const struct sockaddr_in6 *)(const void *)client)->sin6_port
                         : ((const struct sockaddr_in *)(const void *)client)->sin_port;
  return hash(owners, &name, sizeof name);
}

uint64_t kcp_owners_conv_key(const struct kcp_owners *owners, uint32_t conv, uint16_t server_port) {
  const uint32_t name[] = {BY_CONV, conv, server_port};
  return hash(owners, name, sizeof name);
}

// --- Entries ---------------------------------------------------------------------------------
//
// The lowest bits of the key choose the bucket, all but the lowest ones tell the entry apart: what
// is not among these is in the bucket's number.

static entry *bucket_of(const struct kcp_owners *owners, uint64_t key) {
  return owners->segment->buckets[key & (KCP_OWNERS_BUCKETS - 1)];
}

static uint64_t owner_of(uint64_t word) { return word & ((1 << OWNER_BITS) - 1); }

static uint64_t tag_of(uint64_t word) { return word >> OWNER_BITS; }

static uint64_t word_of(uint64_t key, unsigned worker) {
  return (tag_of(key) << OWNER_BITS) | (worker + 1);
}

// An entry says all there is in itself, so that no order among them has to be kept.
static uint64_t look(const entry *at) { return atomic_load_explicit(at, memory_order_relaxed); }

static bool change(entry *at, uint64_t from, uint64_t to) {
  return atomic_compare_exchange_strong_explicit(at, &from, to, memory_order_relaxed,
                                                 memory_order_relaxed);
}

// The first entry of that key, or else the first free one. NULL: neither is there.
static entry *place_for(const struct kcp_owners *owners, uint64_t key, uint64_t *found) {
  entry *bucket = bucket_of(owners, key), *vacant = NULL;
  for (int i = 0; i < KCP_OWNERS_BUCKET_ENTRIES; i++) {
    uint64_t word = look(&bucket[i]);
    if (word != 0 && tag_of(word) == tag_of(key)) {
      *found = word;
      return &bucket[i];
    }
    if (word == 0 && !vacant) {
      vacant = &bucket[i];
    }
  }
  *found = 0;
  return vacant;
}

int kcp_owners_insert(struct kcp_owners *owners, uint64_t key, unsigned worker) {
  const uint64_t word = word_of(key, worker);
  // Another one may take the entry meanwhile, but each time somebody gets further.
  for (;;) {
    uint64_t found;
    entry *place = place_for(owners, key, &found);
    if (!place) {
      return ERROR_EXHAUSTED;
    }
    if (found == word || change(place, found, word)) {
      return 0;
    }
  }
}

// Two that insert the same key at the same time may both get an entry: each removes its own.
void kcp_owners_remove(struct kcp_owners *owners, uint64_t key, unsigned worker) {
  const uint64_t word = word_of(key, worker);
  entry *bucket = bucket_of(owners, key);
  for (int i = 0; i < KCP_OWNERS_BUCKET_ENTRIES; i++) {
    if (look(&bucket[i]) == word) {
      change(&bucket[i], word, 0);
    }
  }
}

int kcp_owners_find(const struct kcp_owners *owners, uint64_t key) {
  const entry *bucket = bucket_of(owners, key);
  for (int i = 0; i < KCP_OWNERS_BUCKET_ENTRIES; i++) {
    uint64_t word = look(&bucket[i]);
    if (word != 0 && tag_of(word) == tag_of(key)) {
      return (int)owner_of(word) - 1;
    }
  }
  return KCP_OWNERS_NOBODY;
}

void kcp_owners_clear(struct kcp_owners *owners, unsigned worker) {
  for (size_t b = 0; b < KCP_OWNERS_BUCKETS; b++) {
    entry *bucket = owners->segment->buckets[b];
    for (int i = 0; i < KCP_OWNERS_BUCKET_ENTRIES; i++) {
      uint64_t word = look(&bucket[i]);
      if (owner_of(word) == worker + 1) {
        change(&bucket[i], word, 0);
      }
    }
  }
}

bool kcp_owners_has_others(const struct kcp_owners *owners, unsigned worker) {
  for (size_t b = 0; b < KCP_OWNERS_BUCKETS; b++) {
    for (int i = 0; i < KCP_OWNERS_BUCKET_ENTRIES; i++) {
      uint64_t word = look(&owners->segment->buckets[b][i]);
      if (word != 0 && owner_of(word) != worker + 1) {
        return true;
      }
    }
  }
  return false;
}
