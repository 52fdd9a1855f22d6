// Rates and counts that a worker holds its clients to. Loop thread only.
#ifndef JANUS_WORKER_LIMITS_H
#define JANUS_WORKER_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

// A token bucket in whole thousandths of a token, so that nothing is lost to
// rounding. A rate of 0 means no limit.
struct token_bucket {
  int64_t rate_per_s;
  int64_t burst_milli;
  int64_t level_milli;  // below zero: in debt
  int64_t filled_ms;    // when level_milli was right
};

// Starts full. now_ms is monotonic, as everywhere here.
void token_bucket_init(struct token_bucket *bucket, int64_t rate_per_s, int64_t burst,
                       int64_t now_ms);

// Another rate, for what is in it already.
void token_bucket_set(struct token_bucket *bucket, int64_t rate_per_s, int64_t burst,
                      int64_t now_ms);

// Takes amount if it is there; false, and nothing taken, if not.
bool token_bucket_take(struct token_bucket *bucket, int64_t amount, int64_t now_ms);

// Takes amount in any case, and returns for how many ms the bucket is then in
// debt; 0 if it is not.
int64_t token_bucket_charge(struct token_bucket *bucket, int64_t amount, int64_t now_ms);

// A client's two rates, in two buckets that are filled at the same times. What is the same for all
// clients stands with none of them.
struct client_rates {
  int64_t messages_per_s;  // 0: no limit
  int64_t messages_burst;
  int64_t bytes_per_s;  // 0: no limit
  int64_t bytes_burst;
};
struct client_levels {
  int64_t messages_milli;
  int64_t bytes_milli;
  int64_t filled_ms;
};
void client_levels_init(struct client_levels *levels, const struct client_rates *rates,
                        int64_t now_ms);
// Other rates, for what is in it already by those of before.
void client_levels_set(struct client_levels *levels, const struct client_rates *before,
                       const struct client_rates *rates, int64_t now_ms);
// Takes so many messages and bytes, and returns for how many ms the client is then in debt.
int64_t client_levels_charge(struct client_levels *levels, const struct client_rates *rates,
                             size_t messages, size_t bytes, int64_t now_ms);

// Connections of each address. Bounded by the connections there are.
struct address_limits;
struct address_count;

// max is for each address; 0 for no limit.
struct address_limits *address_limits_new(size_t max);
void address_limits_set(struct address_limits *limits, size_t max);  // from now on
void address_limits_free(struct address_limits *limits);             // accepts NULL

// Counts one connection more from this IPv4 address, or from the /64 of this IPv6 one (its port
// does not matter). NULL when it has max already, or memory is out.
struct address_count *address_limits_acquire(struct address_limits *limits,
                                             const struct sockaddr *address);
void address_limits_release(struct address_limits *limits, struct address_count *count);

#endif
