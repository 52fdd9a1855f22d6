// Log lines: one each, key=value, a fixed event name first, to where log_output sends them.
//
//   log_info("session_opened", "uid=%" PRId64 " color=%s", uid, color);
//
// prints, in one line,
//   time=2025-07-01T10:00:00.123Z level=info process=worker worker=1 module=session
//   event=session_opened uid=10001 color=blue
// or, with the type "json", the same fields as a JSON object.
//
// A file that logs says below its includes which part of the gateway it is:
//   #define LOG_MODULE LOG_MODULE_SESSION
// and each of these has a level of its own, which can change at run time. One that says nothing
// does not compile.
//
// Values that a client can choose must go through %s only as the result of
// log_quote, which escapes and shortens them. Never a secret, never a payload.
// Any thread; a line is one write(2).
#ifndef JANUS_COMMON_LOG_H
#define JANUS_COMMON_LOG_H

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
// LOGFMT is another name of TEXT.
enum log_type { LOG_TYPE_TEXT, LOG_TYPE_JSON, LOG_TYPE_LOGFMT };

// The parts of the gateway, as an operator knows them. X(identifier, name)
// clang-format off: it takes the long list for an expression
#define LOG_MODULES(X)        \
  X(MASTER, "master")         \
  X(WORKER, "worker")         \
  X(SESSION, "session")       \
  X(TUNNEL, "tunnel")         \
  X(LISTENER, "listener")     \
  X(TLS, "tls")               \
  X(ROUTE, "route")           \
  X(REDIS, "redis")           \
  X(ETCD, "etcd")             \
  X(REGISTRY, "registry")     \
  X(GRPC, "grpc")             \
  X(PUSH, "push")             \
  X(BAN, "ban")               \
  X(CONTROL, "control")       \
  X(OPERATIONS, "operations") \
  X(CONFIG, "config")         \
  X(TRACE, "trace")           \
  X(LOG, "log")
// clang-format on

enum log_module {
#define X(identifier, name) LOG_MODULE_##identifier,
  LOG_MODULES(X)
#undef X
      LOG_MODULE_COUNT
};

// who names the process in each line: "master" or "worker=1"; copied. level is that of every
// module.
void log_setup(enum log_type type, enum log_level level, const char *who);
void log_set_type(enum log_type type);
// "debug", "info", "warn", "error"; false when name is none of them.
bool log_level_from_name(const char *name, enum log_level *level);
const char *log_level_name(enum log_level level);
bool log_module_from_name(const char *name, enum log_module *module);
const char *log_module_name(enum log_module module);

// Any thread reads them, one sets them.
extern _Atomic unsigned char log_levels[LOG_MODULE_COUNT];
static inline enum log_level log_level_of(enum log_module module) {
  return (enum log_level)atomic_load_explicit(&log_levels[module], memory_order_relaxed);
}
void log_set_level(enum log_module module, enum log_level level);
#define log_enabled(level) ((level) >= log_level_of((enum log_module)LOG_MODULE))

void log_line(enum log_module module, enum log_level level, const char *event, const char *format,
              ...) __attribute__((format(printf, 4, 5)));
// The fields are made only when the line is written.
#define log_write(level, ...) \
  (log_enabled(level) ? log_line((enum log_module)LOG_MODULE, level, __VA_ARGS__) : (void)0)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)

// For lines that a client can provoke: a token bucket for each place. Returns
// false when the line is to be left out; *suppressed is how many were left out
// since the last one that was let through (for the caller to print when > 0).
// One thread for each limit.
struct log_limit {
  // What the lines are, for log_limits_tick; then the limit is the loop's and lasts as long as
  // the process. NULL: nothing is said but in the next line.
  const char *kind;
  double tokens;
  int64_t refilled_ms;
  uint64_t left_out;
  bool listed;
  struct log_limit *next;
};
bool log_limit_allow(struct log_limit *limit, int64_t now_ms, uint64_t *suppressed);
// Each second, on the loop: tells what was held back and is followed by no further line.
void log_limits_tick(int64_t now_ms);
// How many lines all limits of the process have left out since this was asked last, for a
// counter. Any thread.
uint64_t log_held_back(void);

// A line that others can provoke, limited at this place; loop only. event is a literal, and there
// is at least one field.
#define log_limited(level, event, format, ...)                                                  \
  do {                                                                                          \
    static struct log_limit limit_here = {.kind = event};                                       \
    uint64_t held_back;                                                                         \
    if (log_enabled(level) && log_limit_allow(&limit_here, clock_monotonic_ms(), &held_back)) { \
      log_write(level, event, format " suppressed=%" PRIu64, __VA_ARGS__, held_back);           \
    }                                                                                           \
  } while (0)

// text in double quotes with everything but printable ASCII escaped, cut to fit;
// returns buffer.
const char *log_quote(char *buffer, size_t size, const char *text, size_t len);

#endif
