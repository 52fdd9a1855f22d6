// The two clocks, and durations as the event loop takes them. Any thread.
#ifndef JANUS_COMMON_CLOCK_H
#define JANUS_COMMON_CLOCK_H

#include <stdint.h>
#include <sys/time.h>
#include <time.h>

static inline int64_t clock_read_ms(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// For durations and deadlines: never jumps.
static inline int64_t clock_monotonic_ms(void) { return clock_read_ms(CLOCK_MONOTONIC_COARSE); }

// Finer, and dearer: for what is measured or bounded within a turn of the loop.
static inline int64_t clock_monotonic_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

// Wall clock, ms since the epoch: for what other machines see.
static inline int64_t clock_wall_ms(void) { return clock_read_ms(CLOCK_REALTIME); }

// The same, finer.
static inline int64_t clock_wall_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline struct timeval clock_timeval(int64_t ms) {
  return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

#endif
