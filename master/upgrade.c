#include "master/upgrade.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <fcntl.h>
#include <grpc/grpc.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/layout.h"
#include "common/loop.h"
#include "master/control.h"
#include "master/json_text.h"
#include "master/master.h"
#include "master/operations_grpc.h"
#include "master/operations_http.h"
#include "master/push_hub.h"
#include "master/push_topics.h"
#include "master/routes.h"
#include "master/takeover.h"
#include "master/trace_exporter.h"

#define LOG_MODULE LOG_MODULE_MASTER

enum {
  TRIAL_MS = 20000,  // for a program to show that it starts
  QUIET_MS = 3000,   // for what is under way
  HELD_MS = 3000,    // for the workers' last words
  LOOK_MS = 10,
  OUTPUT_MAX_BYTES = 4096,  // of the trial
};

enum upgrade_state { UPGRADE_TRIAL, UPGRADE_QUIET, UPGRADE_HELD };

struct upgrade {
  struct master *master;
  enum upgrade_state state;
  char program[512];
  int asker_fd;
  control_reply *reply;
  void *context;
  pid_t trial;
  struct bufferevent *output;
  struct event *timer;
  int64_t until_ms;  // monotonic, of the state
};

static void upgrade_free(struct upgrade *upgrade) {
  if (upgrade->state == UPGRADE_TRIAL && upgrade->trial > 0) {
    kill(upgrade->trial, SIGKILL);
  }
  if (upgrade->output) {
    bufferevent_free(upgrade->output);
  }
  if (upgrade->timer) {
    event_free(upgrade->timer);
  }
  free(upgrade);
}

// All is as it was.
static void fail(struct upgrade *upgrade, const char *why) {
  struct master *master = upgrade->master;
  char quoted[1024];
  log_error("upgrade_failed", "program=%s why=%s", upgrade->program,
            log_quote(quoted, sizeof quoted, why, strlen(why)));
  if (upgrade->state != UPGRADE_TRIAL) {
    operations_http_serve(master->operations_http, master->push_hub);
    operations_grpc_serve(master->operations_grpc, master->push_hub);
    if (master->push_topics) {
      push_topics_resume(master->push_topics);
    }
    trace_exporter_resume(master->trace_exporter);
  }
  if (upgrade->state == UPGRADE_HELD) {
    workers_resume(master->workers);
  }
  master->upgrade = NULL;
  json_t *answer = control_error("");
  json_object_set_new(answer, "error", json_foreign_text(why));
  upgrade->reply(answer, upgrade->context);
  upgrade_free(upgrade);
}

// --- Over ------------------------------------------------------------------------------

static void go_over(struct upgrade *upgrade) {
  char why[640];
  log_info("upgrading", "program=%s sessions=%zu", upgrade->program,
           directory_count(upgrade->master->directory));
  takeover_exec(upgrade->master, upgrade->program, upgrade->asker_fd);
  snprintf(why, sizeof why, "%s can't be executed: %s", upgrade->program, strerror(errno));
  fail(upgrade, why);
}

void upgrade_cancel(struct master *master, const char *why) {
  if (master->upgrade) {
    fail(master->upgrade, why);
  }
  if (master->upgrade_asker) {
    control_answer_asker(control_error(why), master->upgrade_asker);
    master->upgrade_asker = NULL;
  }
}

// Nothing that somebody waits for is with us.
static bool is_quiet(struct master *master) {
  struct http_server_counts http;
  operations_http_counts(master->operations_http, &http);
  return http.waiting == 0 && push_hub_is_idle(master->push_hub) &&
         (!master->push_topics || push_topics_is_quiet(master->push_topics)) &&
         !routes_writing(master->routes) &&
         !(master->trace_exporter && trace_exporter_flush(master->trace_exporter));
}

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  struct upgrade *upgrade = owner;
  (void)fd;
  (void)what;
  switch (upgrade->state) {
    case UPGRADE_TRIAL:
      fail(upgrade,
           "the new program did not say within 20 s that it is good: it hangs, or is none");
      return;
    case UPGRADE_QUIET:
      if (is_quiet(upgrade->master) && workers_hold(upgrade->master->workers) == 0) {
        upgrade->state = UPGRADE_HELD;
        upgrade->until_ms = clock_monotonic_ms() + HELD_MS;
        loop_start_timer(upgrade->timer, LOOK_MS);
      } else if (clock_monotonic_ms() >= upgrade->until_ms) {
        fail(upgrade, is_quiet(upgrade->master)
                          ? "a worker is just starting, being replaced or draining with all; try "
                            "again"
                          : "pushes that are under way do not come to an end; try again");
      } else {
        loop_start_timer(upgrade->timer, LOOK_MS);
      }
      return;
    case UPGRADE_HELD:
      if (workers_are_held(upgrade->master->workers)) {
        go_over(upgrade);
      } else if (clock_monotonic_ms() >= upgrade->until_ms) {
        fail(upgrade, "a worker did not answer within 3 s; see janusctl workers");
      } else {
        loop_start_timer(upgrade->timer, LOOK_MS);
      }
      return;
  }
}

static void become_quiet(struct upgrade *upgrade) {
  struct master *master = upgrade->master;
  upgrade->state = UPGRADE_QUIET;
  upgrade->until_ms = clock_monotonic_ms() + QUIET_MS;
  operations_http_serve(master->operations_http, NULL);
  operations_grpc_serve(master->operations_grpc, NULL);
  if (master->push_topics) {
    push_topics_pause(master->push_topics);
  }
  loop_start_timer(upgrade->timer, LOOK_MS);
}

void upgrade_answer(struct master *master) {
  char why[768];
  json_t *answer;
  if (!master->upgrade_asker) {
    return;
  }
  if (master->went_back) {
    snprintf(why, sizeof why, "the new program did not come up, and this one goes on: %s",
             master->went_back);
    answer = control_error("");
    json_object_set_new(answer, "error", json_foreign_text(why));
  } else {
    answer = json_pack("{s:b, s:s, s:I, s:I}", "ok", 1, "version", JANUS_VERSION, "generation",
                       (json_int_t)workers_generation(master->workers), "sessions",
                       (json_int_t)directory_count(master->directory));
  }
  control_answer_asker(answer, master->upgrade_asker);
  master->upgrade_asker = NULL;
}

// --- The trial ---------------------------------------------------------------------------

static const char good_word[] = "janusd-is-good";

int upgrade_trial(const char *janus_worker) {
  char command[600], line[64] = "";
  grpc_init();
  struct event_base *base = event_base_new();
  snprintf(command, sizeof command, "'%s' --layout", janus_worker);
  FILE *worker = popen(command, "r");
  if (worker) {
    (void)!fgets(line, sizeof line, worker);
  }
  bool fits = worker && pclose(worker) == 0 && strtoull(line, NULL, 16) == layout_id();
  if (!fits) {
    fprintf(stderr, "janusd: %s is of another version than this janusd\n", janus_worker);
  } else if (base) {
    printf("%s version=%s layout=%016" PRIx64 "\n", good_word, JANUS_VERSION, layout_id());
  }
  event_base_free(base);
  grpc_shutdown();
  return fits && base ? 0 : 1;
}

// Its last lines, for people.
static void say_output(const char *text, char *why, size_t size) {
  size_t len = strlen(text);
  while (len > 0 && text[len - 1] == '\n') {
    len--;
  }
  size_t start = len > 400 ? len - 400 : 0;
  if (len == 0) {
    snprintf(why, size, "the new program ended at once without a word: it is no janusd, or broken");
  } else {
    snprintf(why, size, "the new program does not start; it said: %.*s", (int)(len - start),
             text + start);
  }
}

static void on_trial_over(struct upgrade *upgrade) {
  struct evbuffer *input = bufferevent_get_input(upgrade->output);
  char text[OUTPUT_MAX_BYTES + 1], why[600];
  ssize_t len = evbuffer_copyout(input, text, OUTPUT_MAX_BYTES);
  text[len > 0 ? len : 0] = '\0';
  bufferevent_free(upgrade->output);
  upgrade->output = NULL;
  upgrade->trial = -1;  // it is at its end, and its number may be another's
  event_del(upgrade->timer);
  const char *word = strstr(text, good_word);
  const char *layout = word ? strstr(word, "layout=") : NULL;
  if (!layout) {
    say_output(text, why, sizeof why);
    fail(upgrade, why);
    return;
  }
  if (strtoull(layout + strlen("layout="), NULL, 16) != layout_id()) {
    fail(upgrade,
         "the new program does not understand the workers of this one: players would be "
         "cut. Drain the gateway (janusctl drain), and restart the service");
    return;
  }
  become_quiet(upgrade);
}

static void on_trial_read(struct bufferevent *buffer, void *owner) {
  struct upgrade *upgrade = owner;
  if (evbuffer_get_length(bufferevent_get_input(buffer)) > OUTPUT_MAX_BYTES) {
    kill(upgrade->trial, SIGKILL);
    on_trial_over(upgrade);
  }
}

static void on_trial_event(struct bufferevent *buffer, short what, void *owner) {
  (void)buffer;
  (void)what;
  on_trial_over(owner);
}

// In the child, between fork and exec.
static _Noreturn void become_trial(const struct upgrade *upgrade, int output) {
  const struct takeover_arguments *are = &upgrade->master->arguments;
  char *arguments[] = {(char *)"janusd",
                       (char *)"--config",
                       (char *)are->config_path,
                       (char *)"--trial",
                       are->worker ? (char *)"--worker" : NULL,
                       (char *)are->worker,
                       NULL};
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
  execv(upgrade->program, arguments);
  _exit(127);
}

static bool start_trial(struct upgrade *upgrade) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return false;
  }
  upgrade->trial = fork();
  if (upgrade->trial == 0) {
    become_trial(upgrade, ends[1]);
  }
  close(ends[1]);
  evutil_make_socket_nonblocking(ends[0]);
  upgrade->output = upgrade->trial > 0 ? bufferevent_socket_new(upgrade->master->base, ends[0],
                                                                BEV_OPT_CLOSE_ON_FREE)
                                       : NULL;
  if (!upgrade->output) {
    close(ends[0]);
    return false;
  }
  bufferevent_setcb(upgrade->output, on_trial_read, NULL, on_trial_event, upgrade);
  bufferevent_enable(upgrade->output, EV_READ);
  loop_start_timer(upgrade->timer, TRIAL_MS);
  return true;
}

// --- The beginning ---------------------------------------------------------------------------

// What keeps it from being begun, or NULL.
static const char *obstacle(const struct master *master) {
  return master->stopping              ? "the gateway is stopping"
         : master->upgrade             ? "an upgrade is under way"
         : master->drain.on            ? "the gateway is draining; janusctl undrain first"
         : !master->all_workers_served ? "the gateway is still starting; try again"
                                       : NULL;
}

void upgrade_begin(struct master *master, const char *program, int asker_fd, control_reply *reply,
                   void *context) {
  const char *why = obstacle(master);
  struct upgrade *upgrade = why ? NULL : calloc(1, sizeof *upgrade);
  if (!upgrade || !(upgrade->timer = evtimer_new(master->base, on_timer, upgrade))) {
    free(upgrade);
    reply(control_error(why ? why : "out of memory"), context);
    return;
  }
  upgrade->master = master;
  upgrade->trial = -1;
  upgrade->asker_fd = asker_fd;
  upgrade->reply = reply;
  upgrade->context = context;
  snprintf(upgrade->program, sizeof upgrade->program, "%s", program ? program : master->program);
  master->upgrade = upgrade;
  log_info("upgrade_begun", "program=%s", upgrade->program);
  if (access(upgrade->program, X_OK) != 0) {
    char text[640];
    snprintf(text, sizeof text, "%s can't be executed: %s", upgrade->program, strerror(errno));
    fail(upgrade, text);
  } else if (!start_trial(upgrade)) {
    fail(upgrade, "the new program can't be tried: no memory, or no descriptors");
  }
}
