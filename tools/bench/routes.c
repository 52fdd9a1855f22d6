// routes: what a look-up in the shared route table costs; by one reader alone, and by one
// for each core while the writer updates 50,000 routes a second.
//
// Readers are measured by their CPU time, since with the writer there are more threads
// than cores; whatever a look-up waits for in memory is in that. How long a machine
// waits for memory that is in no cache differs widely, so that is measured beside it: by
// reads at random, each of which depends on the one before, of memory as large.
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/route_table.h"
#include "tools/bench/bench.h"

enum {
  NODES = 64,
  UPDATES_PER_S = 50000,
  UPDATES_AT_ONCE = 50,
  LOOKUPS_AT_ONCE = 1000,
  READERS_MAX = 64,
  TTL_MS = 24 * 3600 * 1000,
};

struct reader {
  pthread_t thread;
  struct route_table *table;
  const struct job *job;
  uint64_t seed;
  uint64_t lookups;
  uint64_t missed;
  int64_t cpu_ns;
};

struct job {
  size_t routes;
  _Atomic bool stop;
};

static int64_t thread_cpu_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// xorshift: what a reader asks next must cost next to nothing.
static uint64_t next_random(uint64_t *seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 7;
  *seed ^= *seed << 17;
  return *seed;
}

static struct route_key key_of(uint64_t number) {
  return (struct route_key){.tier = ROUTE_PLAYER,
                            .service = "roma.player.service",
                            .color = "blue",
                            .oid = (int64_t)number + 1000000};
}

static int put(struct route_table *table, uint64_t number, uint64_t node) {
  char address[32];
  int64_t now_ms = clock_wall_ms();
  struct route_key key = key_of(number);
  snprintf(address, sizeof address, "10.0.0.%" PRIu64 ":9000", node % NODES);
  return route_table_put(table, &key, address, now_ms + TTL_MS, now_ms);
}

static void *read_routes(void *context) {
  struct reader *reader = context;
  const struct job *job = reader->job;
  int64_t started_ns = thread_cpu_ns();
  while (!atomic_load_explicit(&job->stop, memory_order_relaxed)) {
    int64_t now_ms = clock_wall_ms();
    for (int i = 0; i < LOOKUPS_AT_ONCE; i++) {
      struct route_key key = key_of(next_random(&reader->seed) % job->routes);
      struct route route;
      reader->missed += route_table_lookup(reader->table, &key, now_ms, &route) != 0;
    }
    reader->lookups += LOOKUPS_AT_ONCE;
  }
  reader->cpu_ns = thread_cpu_ns() - started_ns;
  return NULL;
}

// Updates as many as are due until the time is over; returns how many it was.
static uint64_t write_routes(struct route_table *table, size_t routes, int64_t duration_ms,
                             bool really) {
  const struct timespec pause = {.tv_nsec = 1000000};
  uint64_t seed = 0x9e3779b97f4a7c15;
  uint64_t written = 0;
  int64_t started_ns = bench_now_ns();
  int64_t spent_ns;
  while ((spent_ns = bench_now_ns() - started_ns) < duration_ms * 1000000) {
    while (really && (int64_t)written < spent_ns / (1000000000 / UPDATES_PER_S)) {
      for (int i = 0; i < UPDATES_AT_ONCE; i++, written++) {
        uint64_t random = next_random(&seed);
        if (put(table, random % routes, random >> 40) != 0) {
          return 0;
        }
      }
    }
    nanosleep(&pause, NULL);
  }
  return written;
}

// ns for each look-up; negative when it went wrong.
static double measure(struct route_table *table, size_t routes, size_t readers, bool busy,
                      int64_t duration_ms, uint64_t *written, uint64_t *missed) {
  struct reader all[READERS_MAX];
  struct job job = {.routes = routes};
  double sum = -1;
  size_t started = 0;
  memset(all, 0, sizeof all);
  for (; started < readers; started++) {
    struct reader *reader = &all[started];
    int error;
    reader->job = &job;
    reader->seed = 88172645463325252 + started;
    reader->table = route_table_open(dup(route_table_fd(table)), &error);
    if (!reader->table || pthread_create(&reader->thread, NULL, read_routes, reader) != 0) {
      route_table_free(reader->table);
      break;
    }
  }
  *written = write_routes(table, routes, duration_ms, busy);
  atomic_store(&job.stop, true);
  *missed = 0;
  for (size_t i = 0; i < started; i++) {
    pthread_join(all[i].thread, NULL);
    route_table_free(all[i].table);
    *missed += all[i].missed;
    sum = (sum < 0 ? 0 : sum) + (double)all[i].cpu_ns / (double)all[i].lookups;
  }
  return started == readers ? sum / (double)readers : -1;
}

// ns for one dependent read somewhere in so many bytes; negative when out of memory.
static double measure_memory(size_t bytes, int64_t duration_ms) {
  enum { LINE = 64, READS_AT_ONCE = 1000 };
  size_t lines = bytes / LINE;
  volatile uint8_t *memory = calloc(lines, LINE);
  uint64_t seed = 88172645463325252;
  uint64_t reads = 0;
  uint64_t seen = 0;
  if (!memory) {
    return -1;
  }
  for (size_t i = 0; i < lines; i++) {
    memory[i * LINE] = 1;  // in memory for good
  }
  int64_t started_ns = thread_cpu_ns();
  int64_t spent_ns;
  while ((spent_ns = thread_cpu_ns() - started_ns) < duration_ms * 1000000) {
    for (int i = 0; i < READS_AT_ONCE; i++) {
      seen = memory[(next_random(&seed) + seen) % lines * LINE];
    }
    reads += READS_AT_ONCE;
  }
  free((void *)(uintptr_t)memory);
  return (double)spent_ns / (double)reads;
}

static int report(struct bench *bench, struct route_table *table) {
  size_t routes = bench->options.routes;
  int64_t duration_ms = bench->options.duration_ms / 3;
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  size_t readers = cores < 1 ? 1 : cores > READERS_MAX ? READERS_MAX : (size_t)cores;
  uint64_t written, missed_alone, missed_busy;
  bench_say("one reader");
  double alone = measure(table, routes, 1, false, duration_ms, &written, &missed_alone);
  bench_say("%zu readers and the writer", readers);
  double busy = measure(table, routes, readers, true, duration_ms, &written, &missed_busy);
  bench_say("memory alone");
  double memory = measure_memory(route_table_bytes(table), duration_ms);
  if (alone < 0 || busy < 0 || memory < 0 || missed_alone > 0) {
    bench_say("the readers could not be started, or missed routes");
    return BENCH_FAILED;
  }
  double updates_per_s = (double)written * 1000 / (double)duration_ms;
  if (bench->options.json) {
    json_t *json = json_pack("{s:f, s:f, s:f, s:f, s:i, s:f, s:i, s:I, s:I}", "lookup_ns", alone,
                             "lookup_busy_ns", busy, "memory_ns", memory, "busy_ratio",
                             busy / alone, "readers", (int)readers, "updates_per_s", updates_per_s,
                             "routes", (int)routes, "bytes", (json_int_t)route_table_bytes(table),
                             "missed_busy", (json_int_t)missed_busy);
    json_dumpf(json, stdout, JSON_COMPACT);
    printf("\n");
    json_decref(json);
  } else {
    printf("%zu routes in %.1f MiB\n", routes, (double)route_table_bytes(table) / (1 << 20));
    printf("%.0f ns for a look-up by one reader\n", alone);
    printf("%.0f ns for a read of memory as large\n", memory);
    printf("%.0f ns by %zu readers at %.0f updates a second, %.2f times as long\n", busy, readers,
           updates_per_s, busy / alone);
  }
  return BENCH_PASSED;
}

int bench_routes(struct bench *bench) {
  size_t routes = bench->options.routes;
  const struct route_table_options options = {.capacity = {1, routes, 1}};
  int error;
  struct route_table *table = route_table_create(&options, &error);
  if (!table || routes == 0) {
    bench_say("no table of %zu routes: %s", routes, error_text(error));
    return BENCH_FAILED;
  }
  bench_say("filling a table with %zu routes", routes);
  int status = BENCH_PASSED;
  for (size_t i = 0; i < routes && status == BENCH_PASSED; i++) {
    if (put(table, i, i) != 0) {
      bench_say("there was no room for route %zu of %zu", i + 1, routes);
      status = BENCH_FAILED;
    }
  }
  if (status == BENCH_PASSED) {
    status = report(bench, table);
  }
  route_table_free(table);
  return status;
}
