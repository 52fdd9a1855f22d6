#include "worker/limits.h"

#include <stdlib.h>
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
  int64_t gained_milli;
  bucket->filled_ms = now_ms;
  // A token for each second and unit of the rate is a thousandth for each ms.
  if (__builtin_mul_overflow(passed_ms, bucket->rate_per_s, &gained_milli) ||
      gained_milli > missing_milli) {
    bucket->level_milli = bucket->burst_milli;
  } else {
    bucket->level_milli += gained_milli;
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

// --- A client's ------------------------------------------------------------------------

static struct token_bucket bucket_of(int64_t per_s, int64_t burst, int64_t level_milli,
                                     int64_t filled_ms) {
  return (struct token_bucket){.rate_per_s = per_s,
                               .burst_milli = burst * 1000,
                               .level_milli = level_milli,
                               .filled_ms = filled_ms};
}

static struct token_bucket messages_of(const struct client_levels *levels,
                                       const struct client_rates *rates) {
  return bucket_of(rates->messages_per_s, rates->messages_burst, levels->messages_milli,
                   levels->filled_ms);
}

static struct token_bucket bytes_of(const struct client_levels *levels,
                                    const struct client_rates *rates) {
  return bucket_of(rates->bytes_per_s, rates->bytes_burst, levels->bytes_milli, levels->filled_ms);
}

void client_levels_init(struct client_levels *levels, const struct client_rates *rates,
                        int64_t now_ms) {
  *levels = (struct client_levels){.messages_milli = rates->messages_burst * 1000,
                                   .bytes_milli = rates->bytes_burst * 1000,
                                   .filled_ms = now_ms};
}

void client_levels_set(struct client_levels *levels, const struct client_rates *before,
                       const struct client_rates *rates, int64_t now_ms) {
  struct token_bucket messages = messages_of(levels, before);
  struct token_bucket bytes = bytes_of(levels, before);
  token_bucket_set(&messages, rates->messages_per_s, rates->messages_burst, now_ms);
  token_bucket_set(&bytes, rates->bytes_per_s, rates->bytes_burst, now_ms);
  *levels = (struct client_levels){.messages_milli = messages.level_milli,
                                   .bytes_milli = bytes.level_milli,
                                   .filled_ms = now_ms};
}

int64_t client_levels_charge(struct client_levels *levels, const struct client_rates *rates,
                             size_t messages, size_t bytes, int64_t now_ms) {
  struct token_bucket of_messages = messages_of(levels, rates);
  struct token_bucket of_bytes = bytes_of(levels, rates);
  int64_t wait_ms = token_bucket_charge(&of_messages, (int64_t)messages, now_ms);
  int64_t bytes_wait_ms = token_bucket_charge(&of_bytes, (int64_t)bytes, now_ms);
  *levels = (struct client_levels){.messages_milli = of_messages.level_milli,
                                   .bytes_milli = of_bytes.level_milli,
                                   .filled_ms = now_ms};
  return bytes_wait_ms > wait_ms ? bytes_wait_ms : wait_ms;
}

// --- Connections of an address -----------------------------------------------------------

struct address_count {
  struct network counted_as;
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
  const struct network key = network_counted_as(address);
  struct address_count *count = NULL;
  HASH_FIND(hh, limits->counts, &key, sizeof key, count);
  if (!count) {
    count = calloc(1, sizeof *count);
    if (!count) {
      return NULL;
    }
    count->counted_as = key;
    HASH_ADD(hh, limits->counts, counted_as, sizeof count->counted_as, count);
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
