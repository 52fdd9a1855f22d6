#include "worker/limits.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "common/networks.h"

void token_bucket_init(struct token_bucket *bucket, int64_t rate_per_s, int64_t burst,
                       int64_t now_ms) {
  *bucket = (struct token_bucket){.rate_per_s = rate_per_s,
                                  .burst_milli = burst * 1000,
                                  .level_milli = burst * 1000,
                                  .filled_ms = now_ms};
}

static void fill(struct token_bucket *bucket, int64_t now_ms) {
  int64_t passed_ms = now_ms - bucket->filled_ms;
  int64_t missing_milli = bucket->burst_milli - bucket->level_milli;
  bucket->filled_ms = now_ms;
  // A token for each second and unit of the rate is a thousandth for each ms.
  if (passed_ms > missing_milli / bucket->rate_per_s) {
    bucket->level_milli = bucket->burst_milli;  // and no product that could overflow
  } else {
    bucket->level_milli += passed_ms * bucket->rate_per_s;
  }
}

void token_bucket_set(struct token_bucket *bucket, int64_t rate_per_s, int64_t burst,
                      int64_t now_ms) {
  if (bucket->rate_per_s == 0) {  // what it has says nothing
    token_bucket_init(bucket, rate_per_s, burst, now_ms);
    return;
  }
  fill(bucket, now_ms);
  bucket->rate_per_s = rate_per_s;
  bucket->burst_milli = burst * 1000;
  if (bucket->level_milli > bucket->burst_milli) {
    bucket->level_milli = bucket->burst_milli;
  }
}

bool token_bucket_take(struct token_bucket *bucket, int64_t amount, int64_t now_ms) {
  if (bucket->rate_per_s == 0) {
    return true;
  }
  fill(bucket, now_ms);
  if (bucket->level_milli < amount * 1000) {
    return false;
  }
  bucket->level_milli -= amount * 1000;
  return true;
}

int64_t token_bucket_charge(struct token_bucket *bucket, int64_t amount, int64_t now_ms) {
  if (bucket->rate_per_s == 0) {
    return 0;
  }
  fill(bucket, now_ms);
  bucket->level_milli -= amount * 1000;
  if (bucket->level_milli >= 0) {
    return 0;
  }
  return (-bucket->level_milli + bucket->rate_per_s - 1) / bucket->rate_per_s;
}

struct address_count {
  uint8_t address[NETWORK_ADDRESS_BYTES];
  size_t count;
  UT_hash_handle hh;
};

struct address_limits {
  size_t max;
  struct address_count *counts;
};

struct address_limits *address_limits_new(size_t max) {
  struct address_limits *limits = calloc(1, sizeof *limits);
  if (limits) {
    limits->max = max;
  }
  return limits;
}

void address_limits_set(struct address_limits *limits, size_t max) { limits->max = max; }

void address_limits_free(struct address_limits *limits) {
  if (!limits) {
    return;
  }
  struct address_count *count;
  struct address_count *next;
  HASH_ITER(hh, limits->counts, count, next) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it has left the hash
    HASH_DELETE(hh, limits->counts, count);
    free(count);
  }
  free(limits);
}

struct address_count *address_limits_acquire(struct address_limits *limits,
                                             const struct sockaddr *address) {
  uint8_t key[NETWORK_ADDRESS_BYTES];
  struct address_count *count = NULL;
  network_address_of_socket(address, key);
  HASH_FIND(hh, limits->counts, key, sizeof key, count);
  if (!count) {
    count = calloc(1, sizeof *count);
    if (!count) {
      return NULL;
    }
    memcpy(count->address, key, sizeof key);
    HASH_ADD(hh, limits->counts, address, sizeof count->address, count);
  }
  if (limits->max > 0 && count->count >= limits->max) {
    return NULL;
  }
  count->count++;
  return count;
}

void address_limits_release(struct address_limits *limits, struct address_count *count) {
  if (--count->count == 0) {
    HASH_DELETE(hh, limits->counts, count);
    free(count);
  }
}
