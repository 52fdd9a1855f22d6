#include "tools/client/histogram.h"

#include <stddef.h>
#include <string.h>

enum { SUB_BUCKETS = 1 << HISTOGRAM_SUB_BITS };

// Values below 64 have a bucket each; above, the highest seven bits choose it.
static size_t bucket_of(uint64_t value) {
  if (value < SUB_BUCKETS) {
    return (size_t)value;
  }
  unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
  return ((size_t)shift << HISTOGRAM_SUB_BITS) + (size_t)(value >> shift);
}

static uint64_t bucket_upper_end(size_t bucket) {
  if (bucket < SUB_BUCKETS) {
    return bucket;
  }
  unsigned shift = (unsigned)(bucket >> HISTOGRAM_SUB_BITS) - 1;
  uint64_t top = (bucket & (SUB_BUCKETS - 1)) + SUB_BUCKETS;
  return (top << shift) + ((UINT64_C(1) << shift) - 1);
}

void histogram_clear(struct histogram *histogram) { memset(histogram, 0, sizeof *histogram); }

void histogram_record(struct histogram *histogram, uint64_t value) {
  histogram->buckets[bucket_of(value)]++;
  histogram->count++;
  histogram->sum += (double)value;
  if (value > histogram->max) {
    histogram->max = value;
  }
}

void histogram_merge(struct histogram *histogram, const struct histogram *other) {
  for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
    histogram->buckets[i] += other->buckets[i];
  }
  histogram->count += other->count;
  histogram->sum += other->sum;
  if (other->max > histogram->max) {
    histogram->max = other->max;
  }
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent) {
  if (histogram->count == 0) {
    return 0;
  }
  double exact = (double)histogram->count * percent / 100.0;
  uint64_t rank = (uint64_t)exact;
  if ((double)rank < exact || rank == 0) {
    rank++;
  }
  uint64_t seen = 0;
  for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
    seen += histogram->buckets[i];
    if (seen >= rank) {
      uint64_t end = bucket_upper_end(i);
      return end < histogram->max ? end : histogram->max;
    }
  }
  return histogram->max;
}

double histogram_mean(const struct histogram *histogram) {
  return histogram->count == 0 ? 0 : histogram->sum / (double)histogram->count;
}
