#include "common/counters.h"

const char *counter_name(enum counter counter) {
  static const char *const names[COUNTER_COUNT] = {
#define X(identifier, name, help) [COUNTER_##identifier] = name,
      COUNTERS(X)
#undef X
  };
  return names[counter];
}

const char *counter_help(enum counter counter) {
  static const char *const helps[COUNTER_COUNT] = {
#define X(identifier, name, help) [COUNTER_##identifier] = help,
      COUNTERS(X)
#undef X
  };
  return helps[counter];
}

const char *gauge_name(enum gauge gauge) {
  static const char *const names[GAUGE_COUNT] = {
#define X(identifier, name, help) [GAUGE_##identifier] = name,
      GAUGES(X)
#undef X
  };
  return names[gauge];
}

const char *gauge_help(enum gauge gauge) {
  static const char *const helps[GAUGE_COUNT] = {
#define X(identifier, name, help) [GAUGE_##identifier] = help,
      GAUGES(X)
#undef X
  };
  return helps[gauge];
}

static void read_cells(const _Atomic uint64_t *cells, uint64_t *values, size_t count) {
  for (size_t i = 0; i < count; i++) {
    values[i] = atomic_load_explicit(&cells[i], memory_order_relaxed);
  }
}

void counters_read(const struct counters *counters, struct counters_values *values) {
  read_cells(counters->counter, values->counter, COUNTER_COUNT);
  read_cells(counters->closed, values->closed, CLOSE_REASON_COUNT);
  read_cells(counters->gauge, values->gauge, GAUGE_COUNT);
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
}
