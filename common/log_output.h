// Where log lines go: standard error, a file, or syslog.
//
// Standard error that is the systemd journal gets each line behind its priority. A file is
// appended to; one that was renamed is left for a new one by log_output_reopen, one that was
// removed by log_output_tick. A line that could not be written is lost and counted, and the
// first of them is told of on standard error; a full disk is waited for by nobody. A sink that
// hangs (a pipe that is not read, a network disk, a syslog that is behind) holds up whoever
// writes to it: log to what does not.
//
// log_output_write may be called by any thread, the rest by the loop's.
#ifndef JANUS_COMMON_LOG_OUTPUT_H
#define JANUS_COMMON_LOG_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/log.h"

enum { LOG_OUTPUT_LINE_BYTES = 4096 };  // PIPE_BUF: such a write to a pipe is never torn

enum log_output { LOG_OUTPUT_STDERR, LOG_OUTPUT_FILE, LOG_OUTPUT_SYSLOG };

// Until then, and when it fails, lines go to standard error. file is copied. Nonzero, with
// errno: the file can't be opened.
int log_output_open(enum log_output where, const char *file) MUST_CHECK;
// The same, but a file that can't be opened is tried again at each tick; till then lines are lost.
void log_output_open_later(enum log_output where, const char *file);
// Opens the file anew. Nonzero, with errno: it can't be, and the one that is open is kept.
int log_output_reopen(void);
// Each second: opens a file anew that is gone from its folder, and says when lines are written
// again. Returns how many were lost since the last call.
uint64_t log_output_tick(void);

// line ends with a newline.
void log_output_write(enum log_level level, const char *line, size_t len);

#endif
