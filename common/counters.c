#include "common/counters.h"

const struct counters_about counter_about[COUNTER_COUNT] = {
#define X(identifier, keeper, name, help) [COUNTER_##identifier] = {name, help, KEPT_BY_##keeper},
    COUNTERS(X)
#undef X
};

const struct counters_about gauge_about[GAUGE_COUNT] = {
#define X(identifier, name, help) [GAUGE_##identifier] = {name, help, KEPT_BY_WORKERS},
    GAUGES(X)
#undef X
};

#define COUNTER_CELL(identifier) .counter = COUNTER_##identifier, .is_gauge = 0
#define GAUGE_CELL(identifier)   .gauge = GAUGE_##identifier, .is_gauge = 1
const struct split_about split_about[SPLIT_COUNT] = {
#define X(identifier, kind, by_what) \
  [SPLIT_##identifier] = {.by = SPLIT_BY_##by_what, kind##_CELL(identifier)},
    SPLITS(X)
#undef X
};

const struct histogram_about histogram_about[HISTOGRAM_COUNT] = {
#define X(identifier, keeper, name, label, help) \
  [HISTOGRAM_##identifier] = {name, label, help, KEPT_BY_##keeper},
    HISTOGRAMS(X)
#undef X
};

const uint32_t histogram_bounds_us[HISTOGRAM_BOUNDS] = {
    1,    2,     5,     10,    25,     50,     100,    250,     500,     1000,    2500,
    5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};

// --- Reading -------------------------------------------------------------------

static void read_cells(const _Atomic uint64_t *cells, uint64_t *values, size_t count) {
  for (size_t i = 0; i < count; i++) {
    values[i] = atomic_load_explicit(&cells[i], memory_order_relaxed);
  }
}

void counters_read(const struct counters *counters, struct counters_values *values) {
  read_cells(counters->counter, values->counter, COUNTER_COUNT);
  read_cells(counters->closed, values->closed, CLOSE_REASON_COUNT);
  read_cells(counters->gauge, values->gauge, GAUGE_COUNT);
  for (int i = 0; i < SPLIT_COUNT; i++) {
    const struct split_about *about = &split_about[i];
    uint64_t *sum =
        about->is_gauge ? &values->gauge[about->gauge] : &values->counter[about->counter];
    read_cells(counters->split[i], values->split[i], SPLIT_PARTS);
    for (size_t part = 0; part < SPLIT_PARTS; part++) {
      *sum += values->split[i][part];
    }
  }
  for (int i = 0; i < HISTOGRAM_COUNT; i++) {
    const struct histogram_cells *cells = &counters->histogram[i];
    read_cells(cells->bucket, values->histogram[i].bucket, HISTOGRAM_BOUNDS + 1);
    read_cells(&cells->sum_us, &values->histogram[i].sum_us, 1);
  }
}

static void sum_cells(uint64_t *sum, const uint64_t *values, size_t count) {
  for (size_t i = 0; i < count; i++) {
    sum[i] += values[i];
  }
}

void counters_sum(struct counters_values *sum, const struct counters_values *values,
                  _Bool with_gauges) {
  sum_cells(sum->counter, values->counter, COUNTER_COUNT);
  sum_cells(sum->closed, values->closed, CLOSE_REASON_COUNT);
  if (with_gauges) {
    sum_cells(sum->gauge, values->gauge, GAUGE_COUNT);
  }
  for (int i = 0; i < SPLIT_COUNT; i++) {
    if (with_gauges || !split_about[i].is_gauge) {
      sum_cells(sum->split[i], values->split[i], SPLIT_PARTS);
    }
  }
  for (int i = 0; i < HISTOGRAM_COUNT; i++) {
    sum_cells(sum->histogram[i].bucket, values->histogram[i].bucket, HISTOGRAM_BOUNDS + 1);
    sum->histogram[i].sum_us += values->histogram[i].sum_us;
  }
}

double histogram_quantile_us(const struct histogram_values *histogram, double share) {
  uint64_t count = 0;
  for (int i = 0; i <= HISTOGRAM_BOUNDS; i++) {
    count += histogram->bucket[i];
  }
  double rank = share * (double)count;
  double below = 0;
  for (int i = 0; i < HISTOGRAM_BOUNDS && count > 0; i++) {
    double here = (double)histogram->bucket[i];
    double from = i > 0 ? histogram_bounds_us[i - 1] : 0;
    if (here > 0 && below + here >= rank) {
      return from + (histogram_bounds_us[i] - from) * (rank - below) / here;
    }
    below += here;
  }
  return count > 0 ? histogram_bounds_us[HISTOGRAM_BOUNDS - 1] : 0;
}
