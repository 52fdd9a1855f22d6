#include "master/control_drain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "master/control.h"
#include "master/control_command.h"
#include "master/drain.h"
#include "master/upgrade.h"

enum {
  REPLACEMENTS_MAX = 16,  // that are waited for at a time, as many as janusctl may ask
  WANTED_MAX_MS = 7 * 24 * 60 * 60 * 1000,  // as in the configuration
};

// Somebody waits for a worker to be replaced.
struct replacement {
  LIST_ENTRY(replacement) link;
  int worker;
  control_reply *reply;
  void *context;
};

// --- How long they may stay ----------------------------------------------------------

// What the request says, or else the configuration.
static int64_t wanted_ms(const json_t *request, const char *member, int64_t configured_ms) {
  const json_t *value = json_object_get(request, member);
  int64_t ms = json_is_integer(value) ? json_integer_value(value) : -1;
  return ms >= 0 && ms <= WANTED_MAX_MS ? ms : configured_ms;
}

static struct channel_drain wanted_drain(const struct master *master, const json_t *request) {
  return (struct channel_drain){
      .timeout_ms = wanted_ms(request, "timeout_ms", master->config.drain.timeout_ms),
      .spread_ms = wanted_ms(request, "spread_ms", master->config.drain.spread_ms)};
}

// --- The gateway ---------------------------------------------------------------------

static json_t *answer_status(const struct master *master) {
  struct drain_status status;
  gateway_drain_status(master, &status);
  json_t *drain =
      json_pack("{s:s, s:I, s:I}", "state", drain_state_name(status.state), "sessions",
                (json_int_t)status.sessions, "connections", (json_int_t)status.connections);
  if (status.state != DRAIN_SERVING) {
    json_object_update_new(drain, json_pack("{s:I, s:I, s:I, s:I, s:I}", "sessions_at_start",
                                            (json_int_t)master->drain.sessions_before, "since_ms",
                                            (json_int_t)master->drain.since_wall_ms, "timeout_ms",
                                            (json_int_t)master->drain.timeout_ms, "spread_ms",
                                            (json_int_t)master->drain.spread_ms, "left_ms",
                                            (json_int_t)status.left_ms));
  }
  json_t *answer = control_ok();
  json_object_set_new(answer, "drain", drain);
  return answer;
}

json_t *control_drain(struct master *master, const json_t *request, struct question *question) {
  const struct channel_drain wanted = wanted_drain(master, request);
  (void)question;
  if (master->stopping) {
    return control_error("the gateway is stopping");
  }
  gateway_drain_begin(master, wanted.timeout_ms, wanted.spread_ms);
  return answer_status(master);
}

json_t *control_drain_status(struct master *master, const json_t *request,
                             struct question *question) {
  (void)request;
  (void)question;
  return answer_status(master);
}

json_t *control_undrain(struct master *master, const json_t *request, struct question *question) {
  (void)request;
  (void)question;
  if (master->stopping) {
    return control_error("the gateway is stopping");
  }
  switch (gateway_drain_cancel(master)) {
    case 0: return answer_status(master);
    case ERROR_BUSY: return control_error("it is being taken out of the registry; ask again");
    default: return control_error("a listener can't listen again; the log may say more");
  }
}

// --- Another program ----------------------------------------------------------------

// Whoever names a program has it run with our keys.
static bool may_name_program(int asker_fd) {
  struct ucred asker = {.uid = (uid_t)-1};
  socklen_t len = sizeof asker;
  return getsockopt(asker_fd, SOL_SOCKET, SO_PEERCRED, &asker, &len) == 0 &&
         (asker.uid == 0 || asker.uid == geteuid());
}

json_t *control_upgrade(struct master *master, const json_t *request, struct question *question) {
  const char *program = json_string_value(json_object_get(request, "program"));
  if (program && !may_name_program(control_asker_fd(question->context))) {
    return control_error("only root may name a program");
  }
  upgrade_begin(master, program, control_asker_fd(question->context), question->reply,
                question->context);
  return NULL;
}

// --- A worker ------------------------------------------------------------------------

static size_t waiting_count(const struct master *master) {
  const struct replacement *replacement;
  size_t count = 0;
  LIST_FOREACH(replacement, &master->replacements, link) { count++; }
  return count;
}

static json_t *replace(struct master *master, int worker, const struct channel_drain *drain) {
  switch (workers_replace(master->workers, worker, drain)) {
    case 0: return NULL;
    case ERROR_NOT_FOUND: return control_error("no worker of this number takes players");
    case ERROR_BUSY: return control_error("it is being replaced, or just starting; ask again");
    case ERROR_EXHAUSTED:
      return control_error("too many workers are draining: see janusctl workers");
    default: return control_error("a successor can't be started; the log says why");
  }
}

json_t *control_worker_restart(struct master *master, const json_t *request,
                               struct question *question) {
  const json_t *worker = json_object_get(request, "worker");
  const struct channel_drain wanted = wanted_drain(master, request);
  if (!json_is_integer(worker)) {
    return control_error("which worker?");
  }
  if (master->upgrade || master->saved) {
    return control_error("an upgrade is under way; ask again");
  }
  struct replacement *replacement =
      waiting_count(master) < REPLACEMENTS_MAX ? calloc(1, sizeof *replacement) : NULL;
  if (!replacement) {
    return control_error("too many are being replaced; ask again");
  }
  int64_t number = json_integer_value(worker);
  bool is_number = number >= 0 && number < CONFIG_WORKER_NUMBERS;
  json_t *refusal = replace(master, is_number ? (int)number : CONFIG_WORKER_NUMBERS, &wanted);
  if (refusal) {
    free(replacement);
    return refusal;
  }
  *replacement = (struct replacement){
      .worker = (int)number, .reply = question->reply, .context = question->context};
  LIST_INSERT_HEAD(&master->replacements, replacement, link);
  return NULL;
}

static json_t *outcome(int worker, int successor) {
  if (successor < 0) {
    return control_error("its successor did not come up, and it goes on; the log says why");
  }
  json_t *answer = control_ok();
  json_object_set_new(answer, "worker", json_integer(worker));
  json_object_set_new(answer, "successor", json_integer(successor));
  return answer;
}

void control_worker_replaced(struct master *master, int index, int successor) {
  struct replacement *replacement = LIST_FIRST(&master->replacements);
  while (replacement) {
    struct replacement *next = LIST_NEXT(replacement, link);
    if (replacement->worker == index) {
      LIST_REMOVE(replacement, link);
      replacement->reply(outcome(index, successor), replacement->context);
      free(replacement);
    }
    replacement = next;
  }
}

void control_forget_replacements(struct master *master) {
  struct replacement *replacement;
  while ((replacement = LIST_FIRST(&master->replacements))) {
    LIST_REMOVE(replacement, link);
    replacement->reply(control_error("the gateway has stopped"), replacement->context);
    free(replacement);
  }
}
