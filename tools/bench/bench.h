// What the kinds of load have in common: the options, the clock, the phases of a
// measurement and the report.
#ifndef JANUS_TOOLS_BENCH_BENCH_H
#define JANUS_TOOLS_BENCH_BENCH_H

#include <event2/event.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "tools/bench/cpu.h"
#include "tools/client/client.h"
#include "tools/client/credentials.h"
#include "tools/client/histogram.h"

enum { BENCH_PASSED = 0, BENCH_FAILED = 1, BENCH_USAGE = 2, BENCH_CONNECT = 3 };

struct bench_options {
  const char *connect;
  struct credentials credentials;
  struct token_wish wish;  // uid: of the first client, each next one has 1 more
  enum client_mode mode;
  size_t clients;
  size_t login_concurrency;
  size_t data_bytes;
  size_t messages_each;  // each client sends so many and no more; 0: until the time is over
  int64_t heartbeat_ms;  // between two of each player of `idle`; 0: one alone, after the login
  int64_t pause_ms;      // between an answer and the next message; 0: none
  int32_t mod;
  int32_t seq;
  double rate_per_s;
  double broadcasts_per_s;  // 0: each when the one before has arrived everywhere
  const char *entrance;     // of pushes: kind@host:port
  const char *topic;        // of the gateway, for pushes over Redis
  size_t pushes_under_way;
  int64_t duration_ms;  // 0: until standard input ends
  int64_t warmup_ms;
  int64_t count;  // stop after so many; 0: by time
  int64_t timeout_ms;
  size_t streams_per_connection;
  size_t routes;  // in the table of `routes`
  const char *method;
  const char *request;  // what `slow` sends
  struct client_tls tls;
  struct kcp_wire kcp;
  size_t kcp_streams;     // clients on each connection over KCP
  uint32_t source_first;  // 0: none
  uint32_t source_count;
  bool json;
};

struct bench {
  struct bench_options options;
  struct event_base *base;
  struct client_target target;
  struct cpu_set cpu;
  struct event *phase_timer;
  struct event *progress_timer;
  struct event *input;

  // The measured period.
  bool measuring;
  int64_t started_ns;
  int64_t ended_ns;
  int64_t cpu_started_us;
  int64_t cpu_used_us;
  int64_t own_cpu_started_us;
  int64_t own_cpu_used_us;
  struct histogram latency;  // ns
  uint64_t done;             // round trips, logins: what the load counts
  uint64_t failed;
  uint64_t shown;  // of done, in the last progress line
  int exit_code;
  void (*finish)(struct bench *bench);  // at a signal, in place of an end at once; NULL
  void *load;                           // of finish
};

static inline int64_t bench_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// Starts the warm-up, after which the measured period begins and ends by itself;
// the loop is left at its end.
void bench_start(struct bench *bench);
// One unit of work that took latency_ns. Counted within the measured period only.
void bench_record(struct bench *bench, int64_t latency_ns);
// Leaves the loop now, measured period or not.
void bench_stop(struct bench *bench, int exit_code);

// The report, one call for each figure and a last one.
void bench_report_number(const struct bench *bench, const char *name, double value,
                         const char *unit);
void bench_report_end(const struct bench *bench);
// Rate, latency percentiles and CPU for each unit of work, under these names.
void bench_report_work(const struct bench *bench, const char *rate_name);

// A word on standard error, for people.
__attribute__((format(printf, 1, 2))) void bench_say(const char *format, ...);

// The kinds of load; each returns an exit code.
int bench_roundtrip(struct bench *bench);
int bench_rate(struct bench *bench);
int bench_login(struct bench *bench);
int bench_handshake(struct bench *bench);
int bench_routes(struct bench *bench);
int bench_idle(struct bench *bench);
int bench_slow(struct bench *bench);
int bench_push(struct bench *bench);
int bench_broadcast(struct bench *bench);
int bench_direct(struct bench *bench);
int bench_fan_server(struct bench *bench);
int bench_echo_server(struct bench *bench);

#endif
