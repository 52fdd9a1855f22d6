#include "tools/ctl/top.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "tools/ctl/look.h"

enum { HOTTEST = 20, COLUMNS_DEFAULT = 100, LINES_DEFAULT = 40 };

struct top {
  struct ctl_gateway gateway;
  int64_t interval_ms;  // between looks
  int64_t looks;        // ends after so many; 0: on q or an interrupt
};

static volatile sig_atomic_t interrupted;
static volatile sig_atomic_t resized;

static void on_interrupt(int number) {
  (void)number;
  interrupted = 1;
}

static void on_resize(int number) {
  (void)number;
  resized = 1;
}

struct screen {
  bool painted;     // stdout is a terminal, and is to be painted
  bool reads_keys;  // from stdin
  char *text;       // of the last look
  struct termios as_it_was;
  sigset_t mask_as_it_was;
  // What is said meanwhile, to be said again when the screen is the old one: it would go with
  // the other one.
  FILE *complaints;
  char *complaint;
  size_t complaint_len;
};

// --- On the screen -----------------------------------------------------------------------

static void paint(const struct screen *screen) {
  struct winsize size;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
    size = (struct winsize){.ws_col = COLUMNS_DEFAULT, .ws_row = LINES_DEFAULT};
  }
  ctl_look_paint(stdout, screen->text ? screen->text : "", "q ends it", size.ws_col, size.ws_row);
  fflush(stdout);
}

static int show(const struct top *top, const json_t *look, struct screen *screen) {
  if (top->gateway.as_json) {
    json_dumpf(look, stdout, JSON_COMPACT);
    fputs("\n", stdout);
  } else {
    size_t len;
    free(screen->text);
    screen->text = NULL;
    FILE *out = open_memstream(&screen->text, &len);
    if (out) {
      ctl_look_print(out, look);
      fclose(out);
    }
    if (screen->painted) {
      paint(screen);
    } else {
      printf("%s\n", screen->text ? screen->text : "");
    }
  }
  if (fflush(stdout) == 0 && !ferror(stdout)) {
    return EXIT_SUCCESS;
  }
  fprintf(screen->complaints, "janusctl: can't write: %s\n", strerror(errno));
  return EXIT_FAILURE;
}

// Signals come while it waits for the next look, at no other time, so that none is missed.
static void catch_signals(struct screen *screen) {
  static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
  struct sigaction action = {.sa_handler = on_interrupt};
  sigset_t caught;
  sigemptyset(&caught);
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    sigaction(ends[i], &action, NULL);
    sigaddset(&caught, ends[i]);
  }
  action.sa_handler = on_resize;
  sigaction(SIGWINCH, &action, NULL);
  sigaddset(&caught, SIGWINCH);
  sigprocmask(SIG_BLOCK, &caught, &screen->mask_as_it_was);
}

static void screen_enter(struct screen *screen) {
  if (screen->reads_keys) {
    struct termios raw = screen->as_it_was;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VSUSP] = _POSIX_VDISABLE;  // it would leave the shell on this screen
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  if (screen->painted) {
    fputs("\033[?1049h\033[?25l\033[2J", stdout);  // the other screen, without a cursor
    paint(screen);
    FILE *complaints = open_memstream(&screen->complaint, &screen->complaint_len);
    screen->complaints = complaints ? complaints : stderr;
  }
}

static void screen_leave(struct screen *screen) {
  if (screen->painted) {
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
  }
  if (screen->reads_keys) {
    tcsetattr(STDIN_FILENO, TCSANOW, &screen->as_it_was);
  }
  if (screen->complaints != stderr) {
    fclose(screen->complaints);
    fputs(screen->complaint ? screen->complaint : "", stderr);
    free(screen->complaint);
  }
}

// Waits for the next look; meanwhile the last one follows the screen's size. False: it is
// enough.
static bool wait_for_next(int64_t until_ms, const struct screen *screen) {
  struct pollfd input = {.fd = screen->reads_keys ? STDIN_FILENO : -1, .events = POLLIN};
  for (;;) {
    int64_t left_ms = until_ms - clock_monotonic_ms();
    left_ms = left_ms > 0 ? left_ms : 0;  // keys are heard even when each look comes late
    const struct timespec left = {.tv_sec = left_ms / 1000,
                                  .tv_nsec = (long)(left_ms % 1000) * 1000000};
    int ready = ppoll(&input, 1, &left, &screen->mask_as_it_was);
    char key = 0;
    if (interrupted) {
      return false;
    }
    if (ready > 0 && (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q')) {
      return false;
    }
    if (resized) {
      resized = 0;
      if (screen->painted) {
        paint(screen);
      }
    }
    if (ready == 0) {
      return true;
    }
  }
}

// --- Looking --------------------------------------------------------------------------------

static json_t *ask_for_stats(const struct top *top, FILE *complaints, int *status) {
  json_t *request = json_pack("{s:s}", "command", "stats");
  struct ctl_gateway gateway = top->gateway;
  gateway.complaints = complaints;
  json_t *answer = ctl_ask(&gateway, request, status);
  json_decref(request);
  return answer;
}

// Since whoever looked before, a second ago or more.
static json_t *ask_for_hottest(const struct top *top, FILE *complaints, int *status) {
  json_t *request =
      json_pack("{s:s, s:s, s:i}", "command", "sessions", "sort", "hot", "limit", HOTTEST);
  struct ctl_gateway gateway = top->gateway;
  gateway.complaints = complaints;
  json_t *answer = ctl_ask(&gateway, request, status);
  json_decref(request);
  return answer;
}

static int look_on(const struct top *top, struct screen *screen) {
  int status = EXIT_SUCCESS;
  json_t *hottest = ask_for_hottest(top, screen->complaints, &status);  // now they are counted
  json_t *before = hottest ? ask_for_stats(top, screen->complaints, &status) : NULL;
  int64_t before_us = clock_monotonic_us();
  json_decref(hottest);
  for (int64_t looks = 0; before && (top->looks == 0 || looks < top->looks); looks++) {
    if (!wait_for_next(before_us / 1000 + top->interval_ms, screen)) {
      break;
    }
    json_t *now = ask_for_stats(top, screen->complaints, &status);
    int64_t now_us = clock_monotonic_us();
    hottest = now ? ask_for_hottest(top, screen->complaints, &status) : NULL;
    if (hottest) {
      json_t *look = ctl_look_compare(before, now, (double)(now_us - before_us) / 1e6);
      json_object_set(look, "sessions", json_object_get(hottest, "sessions"));
      json_object_set(look, "complete", json_object_get(hottest, "complete"));
      status = show(top, look, screen);
      json_decref(look);
    }
    json_decref(hottest);
    json_decref(before);
    before = now;
    before_us = now_us;
    if (status != EXIT_SUCCESS) {
      break;
    }
  }
  json_decref(before);
  return status;
}

int ctl_top_run(const struct ctl_call *call) {
  const json_t *interval_ms = json_object_get(call->request, "interval_ms");
  const struct top top = {
      .gateway = call->gateway,
      .interval_ms = interval_ms ? json_integer_value(interval_ms) : 1000,
      .looks = json_integer_value(json_object_get(call->request, "count")),
  };
  struct screen screen = {.complaints = stderr};
  screen.painted = !top.gateway.as_json && isatty(STDOUT_FILENO);
  screen.reads_keys = screen.painted && tcgetattr(STDIN_FILENO, &screen.as_it_was) == 0;
  catch_signals(&screen);
  screen_enter(&screen);
  int status = look_on(&top, &screen);
  screen_leave(&screen);
  free(screen.text);
  return status;
}
