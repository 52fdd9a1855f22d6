#include "tools/bench/bench.h"
#include "common/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

void bench_say(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("janus-bench: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
}

// --- The measured period ---------------------------------------------------------

static void end_period(struct bench *bench) {
  if (bench->measuring) {
    bench->measuring = false;
    bench->ended_ns = bench_now_ns();
    bench->cpu_used_us = cpu_set_used_us(&bench->cpu) - bench->cpu_started_us;
    bench->own_cpu_used_us = cpu_own_used_us() - bench->own_cpu_started_us;
  }
}

void bench_stop(struct bench *bench, int exit_code) {
  end_period(bench);
  bench->exit_code = exit_code;
  event_base_loopbreak(bench->base);
}

static void on_phase(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  struct bench *bench = argument;
  if (bench->measuring) {
    bench_stop(bench, BENCH_PASSED);
    return;
  }
  bench->measuring = true;
  bench->done = 0;
  bench->shown = 0;
  histogram_clear(&bench->latency);
  bench->started_ns = bench_now_ns();
  bench->cpu_started_us = cpu_set_used_us(&bench->cpu);
  bench->own_cpu_started_us = cpu_own_used_us();
  if (bench->options.duration_ms > 0) {
    struct timeval duration = clock_timeval(bench->options.duration_ms);
    event_add(bench->phase_timer, &duration);
  }
}

static void on_progress(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  struct bench *bench = argument;
  uint64_t since = bench->done >= bench->shown ? bench->done - bench->shown : bench->done;
  fprintf(stderr, "\r%s  %8llu/s  p50 %.0f us  p99 %.0f us  failed %llu   ",
          bench->measuring ? "measuring" : "warming up", (unsigned long long)since,
          (double)histogram_percentile(&bench->latency, 50) / 1e3,
          (double)histogram_percentile(&bench->latency, 99) / 1e3,
          (unsigned long long)bench->failed);
  bench->shown = bench->done;
}

// Without a duration the end of standard input ends the period, where it is a
// pipe or a terminal; SIGINT and SIGTERM do always.
static void on_input(evutil_socket_t fd, short what, void *argument) {
  (void)what;
  struct bench *bench = argument;
  char ignored[256];
  if (read(fd, ignored, sizeof ignored) <= 0) {
    event_del(bench->input);
    bench_stop(bench, BENCH_PASSED);
  }
}

void bench_start(struct bench *bench) {
  bench->phase_timer = evtimer_new(bench->base, on_phase, bench);
  struct timeval warmup = clock_timeval(bench->options.warmup_ms);
  event_add(bench->phase_timer, &warmup);
  if (isatty(STDERR_FILENO)) {
    struct timeval second = {1, 0};
    bench->progress_timer = event_new(bench->base, -1, EV_PERSIST, on_progress, bench);
    event_add(bench->progress_timer, &second);
  }
  struct stat status;
  bool can_wait = isatty(STDIN_FILENO) || (fstat(STDIN_FILENO, &status) == 0 &&
                                           (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode)));
  if (bench->options.duration_ms == 0 && bench->options.count == 0 && can_wait) {
    bench->input = event_new(bench->base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, bench);
    event_add(bench->input, NULL);
  }
}

void bench_record(struct bench *bench, int64_t latency_ns) {
  bench->done++;
  histogram_record(&bench->latency, latency_ns < 0 ? 0 : (uint64_t)latency_ns);
  if (bench->measuring && bench->options.count > 0 &&
      bench->done >= (uint64_t)bench->options.count) {
    bench_stop(bench, BENCH_PASSED);
  }
}

// --- The report ------------------------------------------------------------------

static bool json_open;

void bench_report_number(const struct bench *bench, const char *name, double value,
                         const char *unit) {
  if (bench->options.json) {
    printf("%s\"%s\":%.3f", json_open ? "," : "{", name, value);
    json_open = true;
  } else {
    printf("%-14s %12.2f %s\n", name, value, unit);
  }
}

void bench_report_end(const struct bench *bench) {
  if (bench->options.json) {
    puts(json_open ? "}" : "{}");
    json_open = false;
  }
  fflush(stdout);
}

void bench_report_work(const struct bench *bench, const char *rate_name) {
  static const struct {
    const char *name;
    double percent;
  } percentiles[] = {{"p50_us", 50}, {"p90_us", 90}, {"p99_us", 99}, {"p999_us", 99.9}};
  double seconds = (double)(bench->ended_ns - bench->started_ns) / 1e9;
  double done = (double)bench->done;
  if (bench->progress_timer) {
    fputc('\n', stderr);
  }
  bench_report_number(bench, "count", done, "");
  bench_report_number(bench, "failed", (double)bench->failed, "");
  bench_report_number(bench, "seconds", seconds, "s");
  bench_report_number(bench, rate_name, seconds > 0 ? done / seconds : 0, "1/s");
  bench_report_number(bench, "mean_us", histogram_mean(&bench->latency) / 1e3, "us");
  for (size_t i = 0; i < sizeof percentiles / sizeof percentiles[0]; i++) {
    uint64_t ns = histogram_percentile(&bench->latency, percentiles[i].percent);
    bench_report_number(bench, percentiles[i].name, (double)ns / 1e3, "us");
  }
  bench_report_number(bench, "max_us", (double)bench->latency.max / 1e3, "us");
  if (done > 0) {
    if (bench->cpu.count > 0) {
      bench_report_number(bench, "cpu_us", (double)bench->cpu_used_us / done, "us each");
    }
    bench_report_number(bench, "own_cpu_us", (double)bench->own_cpu_used_us / done, "us each");
  }
}
