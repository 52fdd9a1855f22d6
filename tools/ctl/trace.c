#include "tools/ctl/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "tools/client/names.h"
#include "tools/ctl/table.h"

enum { LINE_MAX_BYTES = 16 << 10 };

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
  (void)number;
  interrupted = 1;
}

// --- A line for people ---------------------------------------------------------------

static int64_t number_of(const json_t *line, const char *name) {
  return json_integer_value(json_object_get(line, name));
}

static void print_time(const json_t *line) {
  int64_t at_us = number_of(line, "at_us");
  time_t seconds = (time_t)(at_us / 1000000);
  struct tm utc;
  char text[32] = "-";
  if (gmtime_r(&seconds, &utc)) {
    strftime(text, sizeof text, "%H:%M:%S", &utc);
  }
  printf("%s.%06dZ  ", text, (int)(at_us % 1000000));
}

static void print_cell(const json_t *line, const char *title, const char *name) {
  char text[CELL_BYTES];
  const json_t *value = json_object_get(line, name);
  if (value) {
    cell_format(value, CELL_NUMBER, text);
    printf("  %s%s%s", title, title[0] != '\0' ? " " : "", text);
  }
}

static void print_us(const json_t *line, const char *title, const char *name) {
  const json_t *value = json_object_get(line, name);
  if (value) {
    printf("  %s %.3f ms", title, (double)json_integer_value(value) / 1000);
  }
}

static void print_packet(const json_t *line) {
  static const char *const optional[] = {"ver", "data_version", "conn_id", "frag_id"};
  int32_t mod = (int32_t)number_of(line, "mod"), seq = (int32_t)number_of(line, "seq");
  const char *module = module_name(mod), *sequence = sequence_name(mod, seq);
  char direction[CELL_BYTES], mod_text[16], seq_text[16];
  snprintf(mod_text, sizeof mod_text, "%" PRId32, mod);
  snprintf(seq_text, sizeof seq_text, "%" PRId32, seq);
  cell_format(json_object_get(line, "direction"), CELL_TEXT, direction);
  for (char *c = direction; *c != '\0'; c++) {
    *c = *c == '_' ? ' ' : *c;
  }
  printf("%-17s  %s %s", direction, module ? module : mod_text, sequence ? sequence : seq_text);
  print_cell(line, "obj", "obj");
  print_cell(line, "index", "index");
  for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) {
    if (number_of(line, optional[i]) != 0) {
      print_cell(line, optional[i], optional[i]);
    }
  }
  printf("  %" PRId64 " bytes", number_of(line, "plain_bytes"));
  if (json_object_get(line, "sealed_bytes")) {
    printf(", sealed %" PRId64, number_of(line, "sealed_bytes"));
  }
  if (json_is_true(json_object_get(line, "compressed"))) {
    printf(", compressed");
  }
  print_us(line, "took", "took_us");
  print_us(line, "waited", "waited_us");
}

static void print_event(const json_t *line) {
  char event[CELL_BYTES];
  cell_format(json_object_get(line, "event"), CELL_TEXT, event);
  for (char *c = event; *c != '\0'; c++) {
    *c = *c == '_' ? ' ' : *c;
  }
  printf("%-17s", event);
  print_cell(line, "reason", "reason");
  print_cell(line, "packets", "lost");
  print_cell(line, "status", "status");
  print_cell(line, "color", "color");
  print_cell(line, "from", "address");
  print_cell(line, "", "transport");
}

static void print_line(const json_t *line) {
  print_time(line);
  if (json_object_get(line, "direction")) {
    print_packet(line);
  } else {
    print_event(line);
  }
  print_cell(line, "", "tunnel");
  print_cell(line, "at", "node");
  print_cell(line, "connection", "connection");
  printf("\n");
}

// --- The stream ------------------------------------------------------------------------

struct following {
  const struct ctl_gateway *gateway;
  bool once;         // ends with the player's last session
  int64_t most;      // ends after so many packets; 0: never
  int64_t until_ms;  // monotonic; 0: never
  bool answered;
  bool done;
  int64_t sessions;
  int64_t packets;
};

static const char *event_of(const json_t *line) {
  const char *event = json_string_value(json_object_get(line, "event"));
  return event ? event : "";
}

// The first line says whether it is to be. False: not.
static bool take_answer(struct following *following, const json_t *line) {
  if (!json_is_true(json_object_get(line, "ok"))) {
    ctl_complain_of_refusal(following->gateway, line);
    return false;
  }
  following->answered = true;
  if (number_of(line, "sessions") == 0) {
    fprintf(stderr, "janusctl: the player is not here now; waiting\n");
  }
  return true;
}

static void take_line(struct following *following, const json_t *line) {
  const char *event = event_of(line);
  following->sessions += strcmp(event, "session") == 0 || strcmp(event, "session_opened") == 0;
  following->sessions -= strcmp(event, "session_closed") == 0;
  following->packets += strcmp(event, "packet") == 0;
  following->done =
      (following->most > 0 && following->packets >= following->most) ||
      (following->once && strcmp(event, "session_closed") == 0 && following->sessions <= 0);
}

// Whole lines of text, the last with its end. False: refused.
static bool take_lines(struct following *following, char *text, size_t len) {
  for (char *end; len > 0 && !following->done; len -= (size_t)(end + 1 - text), text = end + 1) {
    end = memchr(text, '\n', len);
    json_error_t error;
    json_t *line = json_loadb(text, (size_t)(end - text), 0, &error);
    if (!following->answered && !take_answer(following, line)) {
      json_decref(line);
      return false;
    }
    if (following->gateway->as_json) {
      fwrite(text, 1, (size_t)(end + 1 - text), stdout);
    } else if (json_object_get(line, "at_us")) {
      print_line(line);
    }
    take_line(following, line);
    json_decref(line);
  }
  return true;
}

static int wait_ms(const struct following *following) {
  int64_t left_ms = following->until_ms - clock_monotonic_ms();
  return following->until_ms == 0 || left_ms > INT32_MAX ? -1 : left_ms < 0 ? 0 : (int)left_ms;
}

static int follow(int fd, struct following *following, const sigset_t *unblocked) {
  static char buffer[LINE_MAX_BYTES];
  size_t len = 0;
  while (!following->done && !interrupted) {
    int timeout_ms = wait_ms(following);
    const struct timespec timeout = {.tv_sec = timeout_ms / 1000,
                                     .tv_nsec = timeout_ms % 1000 * 1000000L};
    struct pollfd poll = {.fd = fd, .events = POLLIN};
    int ready = ppoll(&poll, 1, timeout_ms < 0 ? NULL : &timeout, unblocked);
    if (ready == 0 || (ready < 0 && errno == EINTR)) {
      if (ready == 0 && timeout_ms == 0) {
        break;
      }
      continue;
    }
    ssize_t got = read(fd, buffer + len, sizeof buffer - len);
    if (got <= 0) {
      ctl_complain(following->gateway, "the gateway has gone, or has ended it");
      return CTL_UNREACHABLE;
    }
    len += (size_t)got;
    char *last = memrchr(buffer, '\n', len);
    size_t whole = last ? (size_t)(last + 1 - buffer) : 0;
    if (whole == 0 && len == sizeof buffer) {
      ctl_complain(following->gateway, "what answers is not a gateway of this kind");
      return CTL_UNREACHABLE;
    }
    if (!take_lines(following, buffer, whole)) {
      return CTL_REFUSED;
    }
    memmove(buffer, buffer + whole, len - whole);
    len -= whole;
    int status = ctl_flush(following->gateway);
    if (status != EXIT_SUCCESS) {
      return status;
    }
  }
  return EXIT_SUCCESS;
}

static int follow_until_interrupted(int fd, struct following *following) {
  const struct sigaction action = {.sa_handler = on_signal};
  sigset_t blocked, unblocked;
  // They come in while it waits, and nowhere else.
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGINT);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &unblocked);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  return follow(fd, following, &unblocked);
}

int ctl_trace_run(const struct ctl_call *call) {
  const json_t *for_ms = json_object_get(call->request, "for_ms");
  struct following following = {
      .gateway = &call->gateway,
      .once = json_is_true(json_object_get(call->request, "once")),
      .most = json_integer_value(json_object_get(call->request, "count")),
      .until_ms = for_ms ? clock_monotonic_ms() + json_integer_value(for_ms) : 0,
  };
  int fd = ctl_open(&call->gateway, call->request);
  if (fd < 0) {
    return CTL_UNREACHABLE;
  }
  int status = follow_until_interrupted(fd, &following);
  close(fd);
  return status;
}
