// Durations counted in buckets, for percentiles over millions of them.
//
// Log-linear: each power of two is cut into 64 buckets of equal width, so a
// percentile is at most 1/64 (1.6 %) above the true value, whatever its size,
// and recording is a few instructions. No allocation, any one thread.
#ifndef JANUS_TOOLS_CLIENT_HISTOGRAM_H
#define JANUS_TOOLS_CLIENT_HISTOGRAM_H

#include <stdint.h>

enum {
  HISTOGRAM_SUB_BITS = 6,
  HISTOGRAM_BUCKETS = (64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS,
};

struct histogram {
  uint64_t buckets[HISTOGRAM_BUCKETS];
  uint64_t count;
  uint64_t max;
  double sum;
};

void histogram_clear(struct histogram *histogram);
void histogram_record(struct histogram *histogram, uint64_t value);
// Adds all that other has counted.
void histogram_merge(struct histogram *histogram, const struct histogram *other);

// The value that percent (0 to 100) of those recorded do not exceed: the upper
// end of its bucket, never over the largest value recorded. 0 when empty.
uint64_t histogram_percentile(const struct histogram *histogram, double percent);
double histogram_mean(const struct histogram *histogram);  // 0 when empty

#endif
