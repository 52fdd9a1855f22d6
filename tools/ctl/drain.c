#include "tools/ctl/drain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/ctl/answers.h"
#include "tools/ctl/table.h"

enum {
  UNANSWERED_MAX = 20,  // in a row
  GONE_LOOKS = 3,       // until nobody's listening is the end, and not a gateway that starts anew
};

enum { GOES_ON = -1 };

static const struct timespec between_looks = {.tv_nsec = 500 * 1000000L};

struct progress {
  const struct ctl_gateway *gateway;
  bool painted;     // on a terminal: one line, written over and over
  json_int_t said;  // sessions, when last said; -1: not yet
  int unanswered;   // questions, in a row
  int gone;         // of these, those that nobody was there for
};

// --- Showing it -------------------------------------------------------------------------

static void show(struct progress *progress, const json_t *drain) {
  json_int_t sessions = json_integer_value(json_object_get(drain, "sessions"));
  const json_t *left = json_object_get(drain, "left_ms");
  char state[CELL_BYTES], time_left[CELL_BYTES];
  if (progress->gateway->as_json || (!progress->painted && sessions == progress->said)) {
    return;
  }
  cell_format(json_object_get(drain, "state"), CELL_TEXT, state);
  for (char *c = state; *c != '\0'; c++) {
    *c = *c == '_' ? ' ' : *c;
  }
  cell_format(left, CELL_DURATION, time_left);
  printf("%s%s: %" JSON_INTEGER_FORMAT " player%s%s%s%s", progress->painted ? "\r" : "", state,
         sessions, sessions == 1 ? "" : "s", left ? ", done within " : "", left ? time_left : "",
         progress->painted ? "\033[K" : "\n");
  fflush(stdout);
  progress->said = sessions;
}

static void end_line(const struct progress *progress) {
  if (progress->painted && progress->said >= 0) {
    printf("\n");
    fflush(stdout);
  }
}

static void print_json(const json_t *answer) {
  json_dumpf(answer, stdout, JSON_INDENT(2));
  printf("\n");
}

static int done(const struct progress *progress, const json_t *answer, const char *text) {
  end_line(progress);
  if (progress->gateway->as_json) {
    print_json(answer);
  } else {
    printf("%s\n", text);
  }
  return ctl_flush(progress->gateway);
}

static int stopped(const struct progress *progress) {
  json_t *answer = json_pack("{s:b, s:{s:s}}", "ok", 1, "drain", "state", "stopped");
  int status = done(progress, answer, "the gateway has stopped after its drain");
  json_decref(answer);
  return status;
}

static int undrained(const struct progress *progress) {
  end_line(progress);
  ctl_complain(progress->gateway, "somebody has undrained it: players are taken again");
  return CTL_REFUSED;
}

// --- Waiting ----------------------------------------------------------------------------

// Complains of what a question comes to. GOES_ON: now it is answered.
static int give_up(const struct progress *progress, const json_t *request) {
  int status;
  end_line(progress);
  json_t *answer = ctl_ask(progress->gateway, request, &status);
  json_decref(answer);
  return answer ? GOES_ON : status;
}

// One that can't answer just now is asked again; one that no longer listens has stopped. GOES_ON,
// or the exit status.
static int look(struct progress *progress, const json_t *request) {
  json_t *answer = ctl_try(progress->gateway, request);
  bool gone = !answer && (errno == ECONNREFUSED || errno == ENOENT);
  const json_t *drain = json_object_get(answer, "drain");
  const char *state = json_string_value(json_object_get(drain, "state"));
  int status = GOES_ON;
  progress->unanswered = answer ? 0 : progress->unanswered + 1;
  progress->gone = gone ? progress->gone + 1 : 0;
  if (progress->gone == GONE_LOOKS) {
    status = stopped(progress);
  } else if (progress->unanswered >= UNANSWERED_MAX || (answer && !state)) {
    status = give_up(progress, request);
  } else if (state && strcmp(state, "drained") == 0) {
    status = done(progress, answer, "drained: no player is left");
  } else if (state && strcmp(state, "serving") == 0) {
    status = undrained(progress);
  } else if (state) {
    show(progress, drain);
  }
  json_decref(answer);
  return status;
}

static int follow(struct progress *progress) {
  json_t *request = json_pack("{s:s}", "command", "drain status");
  int status;
  while ((status = look(progress, request)) == GOES_ON) {
    nanosleep(&between_looks, NULL);
  }
  json_decref(request);
  return status;
}

int ctl_drain_run(const struct ctl_call *call) {
  struct progress progress = {
      .gateway = &call->gateway,
      .painted = !call->gateway.as_json && isatty(STDOUT_FILENO),
      .said = -1,
  };
  bool wait = !json_object_get(call->request, "no_wait");
  int status;
  // Ours alone.
  json_object_del(call->request, "no_wait");
  json_object_del(call->request, "wait");
  json_t *answer = ctl_ask(&call->gateway, call->request, &status);
  if (!answer) {
    return status;
  }
  if (wait) {
    if (progress.painted) {
      fprintf(stderr, "Ctrl-C ends the watching alone; janusctl undrain ends the drain.\n");
    }
    show(&progress, json_object_get(answer, "drain"));
    status = follow(&progress);
  } else if (call->gateway.as_json) {
    print_json(answer);
    status = ctl_flush(&call->gateway);
  } else {
    ctl_print_drain(answer);
    status = ctl_flush(&call->gateway);
  }
  json_decref(answer);
  return status;
}
