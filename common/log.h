// Log lines: one each, key=value, a fixed event name first, to standard error.
//
//   log_info("session_open", "uid=%" PRId64 " color=%s", uid, color);
//
// prints  2025-07-01T10:00:00.123Z info worker=1 event=session_open uid=10001 color=blue
// or, with the type "json", the same fields as a JSON object.
//
// Values that a client can choose must go through %s only as the result of
// log_quote, which escapes and shortens them. Never a secret, never a payload.
// Any thread; a line is one write(2).
#ifndef JANUS_COMMON_LOG_H
#define JANUS_COMMON_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_type { LOG_TYPE_TEXT, LOG_TYPE_JSON };

// who names the process in each line, such as "master" or "worker=1"; copied.
void log_setup(enum log_type type, enum log_level level, const char *who);
// "debug", "info", "warn", "error"; false when name is none of them.
bool log_level_from_name(const char *name, enum log_level *level);
const char *log_level_name(enum log_level level);
bool log_enabled(enum log_level level);

void log_write(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)

// For lines that a client can provoke: a token bucket for each place. Returns
// false when the line is to be left out; *suppressed is how many were left out
// since the last one that was let through (for the caller to print when > 0).
// One thread for each limit.
struct log_limit {
  double tokens;
  int64_t refilled_ms;
  uint64_t left_out;
};
bool log_limit_allow(struct log_limit *limit, int64_t now_ms, uint64_t *suppressed);

// text in double quotes with everything but printable ASCII escaped, cut to fit;
// returns buffer.
const char *log_quote(char *buffer, size_t size, const char *text, size_t len);

#endif
