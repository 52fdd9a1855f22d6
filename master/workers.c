#include "master/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/handover.h"
#include "common/loop.h"
#include "common/secrets_pipe.h"
#include "common/shm.h"
#include "master/kcp_mailboxes.h"
#include "master/worker_process.h"

#define LOG_MODULE LOG_MODULE_MASTER

enum {
  FDS_MAX = HANDOVER_LISTENERS + CONFIG_LISTENERS + 1 + CONFIG_WORKER_NUMBERS,
  READY_TIMEOUT_MS = 30000,  // for a worker to come up
  HOLDING_WAIT_MS = 100,
  CALM_MS = 10000,  // a worker that lived this long is not crash-looping
  // Deliveries of pushes under way in a worker, about a second of its time: what comes after
  // them on its channel waits.
  DELIVERIES_MAX = 1 << 17,
};

const char *worker_state_name(enum worker_state state) {
  static const char *const names[] = {"none",    "waiting",  "starting",
                                      "running", "draining", "stopping"};
  return names[state];
}

void worker_process_set_state(struct worker_process *process, enum worker_state state) {
  log_debug("worker_state", "worker=%d pid=%d from=%s to=%s", process->index,
            (int)process->info.pid, worker_state_name(process->info.state),
            worker_state_name(state));
  process->info.state = state;
  process->info.since_ms = clock_wall_ms();
}

void worker_process_start_timer(struct worker_process *process, int64_t ms) {
  loop_start_timer(process->timer, ms);
}

// --- Starting one --------------------------------------------------------------

// The settings as text in a memory file of the worker's own.
static int settings_fd(const struct config *config) {
  int fd = memfd_create("janus-settings", MFD_CLOEXEC);
  FILE *file = fd >= 0 ? fdopen(dup(fd), "w") : NULL;
  bool written = file && config_save(config, file) == 0;
  if (file && fclose(file) != 0) {
    written = false;
  }
  if (fd >= 0 && (!written || lseek(fd, 0, SEEK_SET) != 0)) {
    close(fd);
    fd = -1;
  }
  return fd;
}

// In the child, between fork and exec: only what is safe there.
static _Noreturn void become_worker(const struct workers *workers, int index, const int *fds,
                                    int end) {
  char number[16];
  char *const argv[] = {(char *)"janus-worker", number, NULL};
  int high[FDS_MAX];
  sigset_t none;

  snprintf(number, sizeof number, "%d", index);
  // First out of the way of each other, then to their places.
  int program_fd = fcntl(workers->options.program_fd, F_DUPFD, end);
  for (int i = HANDOVER_CHANNEL; i < end; i++) {
    high[i] = fcntl(fds[i], F_DUPFD, end);
    if (high[i] < 0) {
      _exit(126);
    }
  }
  for (int i = HANDOVER_CHANNEL; i < end; i++) {
    if (dup2(high[i], i) < 0) {
      _exit(126);
    }
  }
  close_range((unsigned)end, ~0U, CLOSE_RANGE_CLOEXEC);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execveat(program_fd, "", argv, environ, AT_EMPTY_PATH);
  _exit(127);
}

static void on_channel_message(enum channel_type type, const void *content, void *owner);
static void on_channel_broken(const char *why, void *owner);

// What drain leaves of its time.
static int64_t drain_left_ms(int64_t timeout_ms, int64_t since_ms) {
  int64_t left_ms = since_ms + timeout_ms - clock_monotonic_ms();
  return timeout_ms < 0 ? timeout_ms : left_ms > 0 ? left_ms : 0;
}

// What is as it is now, not as configured.
static bool tell_first(struct worker_process *process) {
  const struct workers *workers = process->workers;
  struct channel_log_levels levels;
  struct channel_drain drain = workers->drain;
  channel_log_levels_now(&levels);
  drain.timeout_ms = drain_left_ms(drain.timeout_ms, workers->draining_since_ms);
  return channel_send(process->channel, CHANNEL_LOG_LEVELS, &levels) == 0 &&
         (!workers->draining || channel_send(process->channel, CHANNEL_DRAIN, &drain) == 0);
}

struct channel *worker_process_open_channel(struct worker_process *process, int fd) {
  static const struct channel_events events = {on_channel_message, on_channel_broken};
  return channel_new(process->workers->base, fd, &events, process);
}

// What comes from HANDOVER_LISTENERS on. Returns how far it goes.
static int hand_over_sockets(const struct worker_process *process, int *fds) {
  const struct workers_options *options = &process->workers->options;
  int end = HANDOVER_LISTENERS;
  for (size_t i = 0; i < options->listener_count; i++) {
    fds[end++] = options->listeners[i].fds[process->info.place];
  }
  if (options->kcp_mailboxes) {
    fds[end++] = kcp_mailboxes_read_end(options->kcp_mailboxes, process->index);
    for (int number = 0; number < CONFIG_WORKER_NUMBERS; number++) {
      fds[end++] = kcp_mailboxes_write_end(options->kcp_mailboxes, number);
    }
  }
  return end;
}

// What it is handed but for its channel and the sockets, each under its number there. False: some
// of its own could not be made; those that are there are to be closed all the same.
static bool open_handover(struct worker_process *process, int *fds) {
  const struct workers_options *options = &process->workers->options;
  fds[HANDOVER_SETTINGS] = settings_fd(options->config);
  fds[HANDOVER_SECRETS] = secrets_pipe_new(options->secrets);
  if (fds[HANDOVER_SETTINGS] < 0 || fds[HANDOVER_SECRETS] < 0 ||
      shm_create(&process->counters, "janus-counters", sizeof(struct counters), false) != 0) {
    return false;
  }
  fds[HANDOVER_ROUTE_TABLE] = options->route_table_fd;
  fds[HANDOVER_NODE_TABLE] = options->node_table_fd;
  fds[HANDOVER_TLS] = options->tls_fd;
  fds[HANDOVER_KCP_OWNERS] = options->kcp_owners_fd;
  fds[HANDOVER_COUNTERS] = process->counters.fd;
  return true;
}

// It lives, and this is our end of its channel. Without one it is of no use.
static void take_started(struct worker_process *process, pid_t pid, int fd) {
  process->channel = worker_process_open_channel(process, fd);
  if (!process->channel || !tell_first(process)) {
    kill(pid, SIGKILL);
  }
  process->info.pid = pid;
  process->hangs = false;
  process->held = false;
  process->settings_due = false;
  process->pushed = 0;
  worker_process_set_state(process, WORKER_STARTING);
  worker_process_start_timer(process, READY_TIMEOUT_MS);
  log_info("worker_started", "worker=%d pid=%d generation=%" PRIu64, process->index, (int)pid,
           process->info.generation);
}

static void close_fd(int fd) {
  if (fd >= 0) {
    close(fd);
  }
}

int worker_process_start(struct worker_process *process) {
  const struct workers *workers = process->workers;
  int pair[2] = {-1, -1};
  int fds[FDS_MAX];
  pid_t pid = -1;

  process->started_ms = clock_monotonic_ms();  // a start that fails is no calm either
  shm_unmap(&process->counters);
  if (open_handover(process, fds) &&
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
    fds[HANDOVER_CHANNEL] = pair[1];
    pid = fork();
    if (pid == 0) {
      become_worker(workers, process->index, fds, hand_over_sockets(process, fds));
    }
  }
  if (pid > 0) {
    take_started(process, pid, pair[0]);
    pair[0] = -1;
  } else {
    log_error("worker_start_failed", "worker=%d error=\"%s\"", process->index, strerror(errno));
  }
  close_fd(pair[0]);
  close_fd(pair[1]);
  close_fd(fds[HANDOVER_SETTINGS]);
  close_fd(fds[HANDOVER_SECRETS]);
  return pid > 0 ? 0 : ERROR_SYSTEM;
}

// At once the first time, then after a pause that doubles while workers keep
// dying soon after their start.
void worker_process_start_later(struct worker_process *process) {
  const struct config *config = process->workers->options.config;
  bool calm = clock_monotonic_ms() - process->started_ms >= CALM_MS;
  int64_t wait_ms = calm ? 0 : process->backoff_ms;
  int64_t next_ms = wait_ms > 0 ? wait_ms * 2 : config->worker.restart_backoff_ms;
  process->backoff_ms = next_ms < config->worker.restart_backoff_max_ms
                            ? next_ms
                            : config->worker.restart_backoff_max_ms;
  worker_process_set_state(process, WORKER_WAITING);
  worker_process_start_timer(process, wait_ms);
}

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  struct worker_process *process = owner;
  (void)fd;
  (void)what;
  if (process->info.state == WORKER_STARTING) {
    log_error("worker_not_ready", "worker=%d pid=%d after_ms=%d", process->index,
              (int)process->info.pid, READY_TIMEOUT_MS);
    kill(process->info.pid, SIGKILL);
  } else if (process->info.state == WORKER_DRAINING || process->info.state == WORKER_STOPPING) {
    log_error("worker_hangs", "worker=%d pid=%d", process->index, (int)process->info.pid);
    kill(process->info.pid, SIGKILL);
  } else if (process->info.state == WORKER_WAITING && process->workers->holding) {
    worker_process_start_timer(process, HOLDING_WAIT_MS);  // the next program starts it
  } else if (process->info.state == WORKER_WAITING) {
    process->info.restarts++;
    if (worker_process_start(process) != 0) {
      worker_process_start_later(process);
    }
  }
}

// --- What they say ---------------------------------------------------------------

static void look_whether_ready(struct workers *workers) {
  if (!workers->all_ready_told && !workers->stopping &&
      workers_running(workers) == workers->places && !workers_any_taken_over(workers)) {
    workers->all_ready_told = true;
    workers->events.on_all_ready(workers->owner);
  }
}

static void on_ready(struct worker_process *process) {
  struct workers *workers = process->workers;
  if (process->info.state == WORKER_STARTING) {
    evtimer_del(process->timer);
    worker_process_set_state(process, workers->draining ? WORKER_DRAINING : WORKER_RUNNING);
  }
  if (process->predecessor != NOBODY) {
    int predecessor = process->predecessor;
    if (worker_process_has_predecessor(process)) {
      worker_process_drain(&workers->process[predecessor], process->predecessor_drain);
    }
    process->predecessor = NOBODY;
    workers->events.on_replaced(predecessor, process->index, workers->owner);
  }
  process->taken_over = false;
  look_whether_ready(workers);
}

static void on_channel_message(enum channel_type type, const void *content, void *owner) {
  struct worker_process *process = owner;
  struct workers *workers = process->workers;
  if (type == CHANNEL_READY) {
    if (process->info.pid != 0) {  // else it came too late
      on_ready(process);
    }
  } else if (type == CHANNEL_HOLDING) {
    process->held = true;
  } else {
    workers->events.on_message(process->index, type, content, workers->owner);
  }
}

// Usually it is dying, and SIGCHLD tells the rest. One that lives on without its
// channel is of no use.
static void on_channel_broken(const char *why, void *owner) {
  struct worker_process *process = owner;
  const struct workers *workers = process->workers;
  log_debug("worker_channel_broken", "worker=%d why=\"%s\"", process->index, why);
  channel_free(process->channel);
  process->channel = NULL;
  if (process->info.pid != 0 && process->info.place == WORKER_NO_PLACE) {
    worker_process_start_timer(
        process, workers->options.config->worker.stop_timeout_ms + WORKER_STOP_GRACE_MS);
  } else if ((process->info.state == WORKER_RUNNING || process->info.state == WORKER_DRAINING) &&
             process->info.pid != 0) {
    kill(process->info.pid, SIGTERM);
    worker_process_set_state(process, WORKER_STOPPING);
    worker_process_start_timer(
        process, workers->options.config->worker.stop_timeout_ms + WORKER_STOP_GRACE_MS);
  }
}

// --- Their end -------------------------------------------------------------------

static int living(const struct workers *workers) {
  int count = 0;
  for (int i = 0; i < workers->count; i++) {
    count += workers->process[i].info.pid != 0;
  }
  return count;
}

static double seconds_of(struct timeval time) {
  return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static bool is_leaving(const struct worker_process *process) {
  return process->workers->stopping || process->info.place == WORKER_NO_PLACE;
}

void worker_process_free(struct worker_process *process) {
  process->info.place = WORKER_NO_PLACE;
  process->predecessor = NOBODY;
  process->drained_by_ms = 0;
  worker_process_set_state(process, WORKER_NONE);
}

// What is to follow its end.
static void go_on_without(struct worker_process *process) {
  struct workers *workers = process->workers;
  int predecessor = process->predecessor;
  if (is_leaving(process) || worker_process_successor(process)) {
    worker_process_free(process);
  } else if (worker_process_has_predecessor(process)) {  // which is well, as this one was not
    worker_process_free(process);
    log_error("worker_not_replaced", "worker=%d hint=\"its successor did not come up; it goes on\"",
              predecessor);
    workers->events.on_replaced(predecessor, NOBODY, workers->owner);
  } else {
    worker_process_start_later(process);
  }
}

static void on_dead(struct worker_process *process, int status, const struct rusage *usage) {
  struct workers *workers = process->workers;
  struct counters_values last;

  if (WIFSIGNALED(status)) {
    log_error("worker_died", "worker=%d pid=%d signal=%d", process->index, (int)process->info.pid,
              WTERMSIG(status));
  } else if (WEXITSTATUS(status) != 0 || !is_leaving(process)) {
    log_error("worker_died", "worker=%d pid=%d exit_status=%d", process->index,
              (int)process->info.pid, WEXITSTATUS(status));
  } else {
    log_info("worker_left", "worker=%d pid=%d", process->index, (int)process->info.pid);
  }
  counters_read(process->counters.base, &last);
  counters_sum(&process->retired, &last, false);
  process->retired_cpu_s += seconds_of(usage->ru_utime) + seconds_of(usage->ru_stime);
  shm_unmap(&process->counters);
  process->info.pid = 0;  // may be another's from here on
  if (process->channel) {
    channel_drain(process->channel);  // its last words
  }
  channel_free(process->channel);
  process->channel = NULL;
  evtimer_del(process->timer);
  process->taken_over = false;
  workers->events.on_dead(process->index, workers->owner);
  go_on_without(process);
  look_whether_ready(workers);
}

static void on_child_signal(evutil_socket_t number, short what, void *owner) {
  struct workers *workers = owner;
  (void)number;
  (void)what;
  pid_t pid;
  int status;
  struct rusage usage;
  while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
    for (int i = 0; i < workers->count; i++) {
      if (workers->process[i].info.pid == pid) {
        on_dead(&workers->process[i], status, &usage);
      }
    }
  }
  if (workers->stopping && living(workers) == 0) {
    workers->events.on_all_gone(workers->owner);
  }
}

static void on_stop_timeout(evutil_socket_t fd, short what, void *owner) {
  struct workers *workers = owner;
  (void)fd;
  (void)what;
  log_warn("workers_killed", "living=%d", living(workers));
  workers_kill(workers);
}

static void send_due_settings(struct workers *workers) {
  char *text = NULL;
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    if (!process->settings_due) {
      continue;
    }
    if (!text && !(text = config_text(workers->options.config))) {
      return;
    }
    process->settings_due =
        process->channel && channel_send_settings(process->channel, text) == ERROR_EXHAUSTED;
    if (process->channel && !process->settings_due) {  // the keys are read by them
      process->settings_due = channel_send(process->channel, CHANNEL_TLS_CHANGED, NULL) != 0;
    }
  }
  free(text);
}

void workers_settings_changed(struct workers *workers) {
  for (int i = 0; i < workers->count; i++) {
    workers->process[i].settings_due = workers->process[i].channel != NULL;
  }
  send_due_settings(workers);
  const struct channel_drain drain = {.spread_ms = workers->options.config->drain.spread_ms};
  workers_send_the_oldest_away(workers, &drain);
}

void workers_watch(struct workers *workers) {
  send_due_settings(workers);
  int64_t bound_ms = workers->options.config->worker.hang_timeout_ms;
  int64_t now_ms = clock_monotonic_ms();
  for (int i = 0; bound_ms > 0 && i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    const struct counters *counters = process->counters.base;
    bool serves = process->info.state == WORKER_RUNNING || process->info.state == WORKER_DRAINING;
    if (!serves || !counters) {
      continue;
    }
    int64_t beat_ms = (int64_t)atomic_load_explicit(&counters->heartbeat_ms, memory_order_relaxed);
    if (now_ms - beat_ms > bound_ms) {
      log_error("worker_hangs", "worker=%d pid=%d silent_ms=%lld", i, (int)process->info.pid,
                (long long)(now_ms - beat_ms));
      kill(process->info.pid, SIGKILL);
    }
  }
}

void workers_stop(struct workers *workers, int64_t spread_ms) {
  const struct channel_drain drain = {.spread_ms = spread_ms, .leave = CHANNEL_LEAVE_ALL};
  enum channel_type word = spread_ms > 0 ? CHANNEL_DRAIN : CHANNEL_STOP;
  struct timeval bound = clock_timeval(spread_ms + workers->options.config->worker.stop_timeout_ms +
                                       WORKER_STOP_GRACE_MS);
  if (workers->stopping) {
    return;
  }
  workers->stopping = true;
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    evtimer_del(process->timer);
    if (process->info.pid != 0) {
      worker_process_set_state(process, WORKER_STOPPING);
      if (!process->channel || channel_send(process->channel, word, &drain) != 0) {
        kill(process->info.pid, SIGTERM);
      }
    }
  }
  evtimer_add(workers->stop_timer, &bound);
  event_active(workers->child_signal, EV_SIGNAL, 1);  // in case none is alive
}

void workers_kill(struct workers *workers) {
  for (int i = 0; i < workers->count; i++) {
    if (workers->process[i].info.pid != 0) {
      kill(workers->process[i].info.pid, SIGKILL);
    }
  }
}

// --- Numbers and places ----------------------------------------------------------------

// Nobody's, and not that of a dead one whose successor is still to come: whoever had it then
// would be taken for that one.
bool workers_number_is_free(const struct workers *workers, int number) {
  for (int i = 0; i < workers->count; i++) {
    const struct worker_process *process = &workers->process[i];
    if (process->info.state != WORKER_NONE && process->predecessor == number) {
      return false;
    }
  }
  return workers->process[number].info.state == WORKER_NONE;
}

// The lowest that is free, for that place. NULL: there is none, or no memory.
struct worker_process *worker_process_take(struct workers *workers, int place) {
  int number = 0;
  while (number < workers->count && !workers_number_is_free(workers, number)) {
    number++;
  }
  if (number == CONFIG_WORKER_NUMBERS) {
    return NULL;
  }
  struct worker_process *process = &workers->process[number];
  if (number == workers->count) {
    process->workers = workers;
    process->index = number;
    process->counters.fd = -1;
    process->timer = evtimer_new(workers->base, on_timer, process);
    if (!process->timer) {
      return NULL;
    }
    workers->count++;
  }
  process->predecessor = NOBODY;
  process->backoff_ms = 0;
  process->drained_by_ms = 0;
  process->info.place = place;
  process->info.generation = workers->generation;
  return process;
}

struct worker_process *worker_process_at(struct workers *workers, int place) {
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    if (process->info.state != WORKER_NONE && process->info.place == place &&
        !worker_process_has_predecessor(process)) {
      return process;
    }
  }
  return NULL;
}

// --- For others --------------------------------------------------------------------

struct workers *workers_new(struct event_base *base, const struct workers_options *options,
                            const struct workers_events *events, void *owner) {
  struct workers *workers = calloc(1, sizeof *workers);
  if (!workers) {
    return NULL;
  }
  workers->base = base;
  workers->options = *options;
  workers->events = *events;
  workers->owner = owner;
  workers->generation = 1;
  workers->child_signal = evsignal_new(base, SIGCHLD, on_child_signal, workers);
  workers->stop_timer = evtimer_new(base, on_stop_timeout, workers);
  if (!workers->child_signal || !workers->stop_timer ||
      evsignal_add(workers->child_signal, NULL) != 0) {
    workers_free(workers);
    return NULL;
  }
  if (options->saved && !workers_take_over(workers, options->saved)) {
    workers_free(workers);
    return NULL;
  }
  for (; workers->places < (int)options->config->worker.count; workers->places++) {
    if (worker_process_at(workers, workers->places)) {
      continue;
    }
    struct worker_process *process = worker_process_take(workers, workers->places);
    bool started = process && worker_process_start(process) == 0;
    if (process && !started && options->saved) {
      worker_process_start_later(
          process);  // players are here: nothing is given up for one that is missing
    } else if (!started) {
      workers_kill(workers);
      workers_free(workers);
      return NULL;
    }
  }
  event_active(workers->child_signal, EV_SIGNAL, 1);  // for those that died unseen
  return workers;
}

void workers_free(struct workers *workers) {
  if (!workers) {
    return;
  }
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    channel_free(process->channel);
    shm_unmap(&process->counters);
    if (process->timer) {
      event_free(process->timer);
    }
  }
  if (workers->child_signal) {
    event_free(workers->child_signal);
  }
  if (workers->stop_timer) {
    event_free(workers->stop_timer);
  }
  free(workers);
}

int workers_count(const struct workers *workers) { return workers->count; }

int workers_places(const struct workers *workers) { return workers->places; }

int workers_draining(const struct workers *workers) {
  int count = 0;
  for (int i = 0; i < workers->count; i++) {
    const struct worker_info *info = &workers->process[i].info;
    count += info->pid != 0 && info->place == WORKER_NO_PLACE;
  }
  return count;
}

uint64_t workers_generation(const struct workers *workers) { return workers->generation; }

int workers_running(const struct workers *workers) {
  int count = 0;
  for (int i = 0; i < workers->count; i++) {
    const struct worker_info *info = &workers->process[i].info;
    bool serves = info->state == WORKER_RUNNING || info->state == WORKER_DRAINING;
    // Not one that on_dead is told of.
    count += serves && info->place != WORKER_NO_PLACE && info->pid != 0;
  }
  return count;
}

void workers_info(const struct workers *workers, int index, struct worker_info *info) {
  const struct worker_process *process = &workers->process[index];
  int64_t left_ms = process->drained_by_ms - clock_monotonic_ms();
  *info = process->info;
  info->drain_left_ms = process->drained_by_ms == 0 ? CHANNEL_DRAIN_NEVER
                        : left_ms > 0               ? left_ms
                                                    : 0;
}

void workers_read_counters(const struct workers *workers, int index,
                           struct counters_values *values) {
  const struct worker_process *process = &workers->process[index];
  struct counters_values live;
  *values = process->retired;
  if (process->counters.base) {
    counters_read(process->counters.base, &live);
    counters_sum(values, &live, true);
  }
}

double workers_retired_cpu_s(const struct workers *workers, int index) {
  return workers->process[index].retired_cpu_s;
}

int workers_send(struct workers *workers, int index, enum channel_type type, const void *content) {
  struct worker_process *process = &workers->process[index];
  if (!process->channel) {
    return ERROR_NOT_FOUND;
  }
  int error = channel_send(process->channel, type, content);
  if (error == ERROR_EXHAUSTED) {
    // It has not read for a long while: it hangs, and its successor will serve.
    if (!process->hangs) {
      log_error("worker_hangs", "worker=%d pid=%d", index, (int)process->info.pid);
      process->hangs = true;
    }
    kill(process->info.pid, SIGKILL);
  }
  return error;
}

size_t workers_push_room(const struct workers *workers, int index) {
  const struct worker_process *process = &workers->process[index];
  const struct counters *counters = process->counters.base;
  if (!process->channel || !counters) {
    return 0;
  }
  uint64_t worked_off =
      atomic_load_explicit(&counters->counter[COUNTER_PUSHES_ADDRESSED], memory_order_relaxed);
  bool behind = process->pushed > worked_off + DELIVERIES_MAX;
  return behind ? 0 : channel_room(process->channel);
}

int workers_send_push(struct workers *workers, int index, const struct channel_push *push,
                      const uint64_t *receivers, const uint8_t *packet) {
  struct worker_process *process = &workers->process[index];
  int error = process->channel ? channel_send_push(process->channel, push, receivers, packet)
                               : ERROR_NOT_FOUND;
  if (error == 0) {
    process->pushed += push->receiver_count > 0 ? push->receiver_count : push->sessions;
  }
  return error;
}
