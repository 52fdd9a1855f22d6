#include "common/log_output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define LOG_MODULE LOG_MODULE_LOG

// Set before there are threads. The file keeps its descriptor when it is opened anew.
static enum log_output output = LOG_OUTPUT_STDERR;
static char path[PATH_MAX];
static int file_fd = -1;

static atomic_bool failing;  // the last line was lost
static atomic_bool torn;     // and some of it is in the file
static atomic_ullong lost;   // not yet given out by log_output_tick
static uint64_t lost_in_a_row;
static bool to_journal;  // standard error is the journal

static const int priorities[] = {LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERR};

// As systemd says: the variable has the device and inode of what it has connected.
static bool stderr_is_journal(void) {
  const char *stream = getenv("JOURNAL_STREAM");
  struct stat status;
  char own[64];
  if (!stream || fstat(STDERR_FILENO, &status) != 0) {
    return false;
  }
  snprintf(own, sizeof own, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
  return strcmp(own, stream) == 0;
}

static bool write_all(int fd, const char *bytes, size_t len, bool *some) {
  ssize_t written;
  do {
    written = write(fd, bytes, len);
  } while (written < 0 && errno == EINTR);
  *some = written > 0 && written < (ssize_t)len;
  return written == (ssize_t)len;
}

static bool write_stderr(enum log_level level, const char *line, size_t len) {
  char marked[LOG_OUTPUT_LINE_BYTES + 8];
  bool some;
  if (!to_journal) {
    return write_all(STDERR_FILENO, line, len, &some);
  }
  int marked_len = snprintf(marked, sizeof marked, "<%d>%.*s", priorities[level], (int)len, line);
  return write_all(STDERR_FILENO, marked, (size_t)marked_len, &some);
}

// Said there for whoever looks why the file has nothing.
static void report_failure(int error) {
  // One line like any other: of a very long path, its beginning.
  char text[LOG_OUTPUT_LINE_BYTES], quoted[LOG_OUTPUT_LINE_BYTES - 256];
  int len = snprintf(text, sizeof text,
                     "level=error module=log event=log_lost file=%s error=\"%s\" hint=\"what can't "
                     "be written is counted (log_lost)\"\n",
                     log_quote(quoted, sizeof quoted, path, strlen(path)), strerror(error));
  write_stderr(LOG_LEVEL_ERROR, text, len < (int)sizeof text ? (size_t)len : sizeof text - 1);
}

static void fail(int error) {
  if (!atomic_exchange(&failing, true)) {
    report_failure(error);
  }
}

static void write_file(const char *line, size_t len) {
  char whole[LOG_OUTPUT_LINE_BYTES + 1];
  bool some;
  // What is left of a line must not run into the next.
  if (atomic_exchange(&torn, false)) {
    whole[0] = '\n';
    memcpy(whole + 1, line, len);
    line = whole;
    len++;
  }
  if (write_all(file_fd, line, len, &some)) {
    atomic_store(&failing, false);
    return;
  }
  int error = some ? ENOSPC : errno;
  atomic_fetch_add(&lost, 1);
  if (some || line == whole) {
    atomic_store(&torn, true);
  }
  fail(error);
}

void log_output_write(enum log_level level, const char *line, size_t len) {
  switch (output) {
    case LOG_OUTPUT_FILE: write_file(line, len); return;
    case LOG_OUTPUT_SYSLOG: syslog(priorities[level], "%.*s", (int)len - 1, line); return;
    default: break;
  }
  if (!write_stderr(level, line, len)) {
    atomic_fetch_add(&lost, 1);
  }
}

static int open_file(void) {
  // A FIFO that nobody reads must not hold us up.
  return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
}

// In one step: no other thread ever finds it closed. Takes over fresh.
static void put_in_place(int fresh) {
  if (file_fd < 0) {
    file_fd = fresh;
    return;
  }
  dup3(fresh, file_fd, O_CLOEXEC);
  close(fresh);
}

// Writes are refused from here on, and so counted, until the file can be opened.
static void refuse(int error) {
  int fresh = open("/dev/null", O_RDONLY | O_CLOEXEC);
  fail(error);
  if (fresh >= 0) {
    put_in_place(fresh);
  }
}

static bool is_refusing(void) { return (fcntl(file_fd, F_GETFL) & O_ACCMODE) == O_RDONLY; }

int log_output_open(enum log_output where, const char *file) {
  to_journal = stderr_is_journal();
  if (where == LOG_OUTPUT_FILE) {
    snprintf(path, sizeof path, "%s", file);
    int fresh = open_file();
    if (fresh < 0) {
      return ERROR_SYSTEM;
    }
    put_in_place(fresh);
  } else if (where == LOG_OUTPUT_SYSLOG) {
    openlog("janus-gate", LOG_PID | LOG_NDELAY, LOG_DAEMON);
  }
  output = where;
  return 0;
}

void log_output_open_later(enum log_output where, const char *file) {
  if (log_output_open(where, file) != 0) {
    refuse(errno);
    output = file_fd >= 0 ? where : LOG_OUTPUT_STDERR;
  }
}

int log_output_reopen(void) {
  if (output != LOG_OUTPUT_FILE) {
    return 0;
  }
  int fresh = open_file();
  if (fresh < 0) {
    int error = errno;
    report_failure(error);
    errno = error;
    return ERROR_SYSTEM;
  }
  put_in_place(fresh);
  atomic_store(&torn, false);
  return 0;
}

// Into a file that nobody can find, lines are as good as lost.
static void look_after_file(void) {
  struct stat status;
  bool refusing = is_refusing();
  if (!refusing && fstat(file_fd, &status) == 0 && status.st_nlink > 0) {
    return;
  }
  int fresh = open_file();
  if (fresh >= 0) {
    put_in_place(fresh);
  } else if (!refusing) {
    refuse(errno);
  }
}

uint64_t log_output_tick(void) {
  if (output == LOG_OUTPUT_FILE) {
    look_after_file();
  }
  uint64_t now_lost = atomic_exchange(&lost, 0);
  lost_in_a_row += now_lost;
  // Not in the middle of it: the line shows that it is over by being written.
  if (lost_in_a_row > 0 && now_lost == 0 && !(output == LOG_OUTPUT_FILE && is_refusing())) {
    uint64_t told = lost_in_a_row;
    lost_in_a_row = 0;
    log_warn("log_restored", "lost=%" PRIu64, told);
    if (atomic_load(&failing)) {  // still no: the count stays for later
      atomic_fetch_sub(&lost, 1);
      lost_in_a_row = told;
    }
  }
  return now_lost;
}
