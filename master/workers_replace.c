#include "master/workers.h"

#include <errno.h>
#include <signal.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/worker_process.h"

#define LOG_MODULE LOG_MODULE_MASTER

// --- One ---------------------------------------------------------------------------------

// One that leaves its place; or does so earlier than it was told before.
void worker_process_drain(struct worker_process *process, struct channel_drain drain) {
  const struct config *config = process->workers->options.config;
  int64_t bound_ms =
      drain.timeout_ms + drain.spread_ms + config->worker.stop_timeout_ms + WORKER_STOP_GRACE_MS;
  drain.leave = CHANNEL_LEAVE_PLACE;
  process->info.place = WORKER_NO_PLACE;
  evtimer_del(process->timer);
  if (process->info.pid == 0) {  // it was to be started
    worker_process_set_state(process, WORKER_NONE);
    return;
  }
  log_info("worker_drains", "worker=%d pid=%d timeout_ms=%lld spread_ms=%lld", process->index,
           (int)process->info.pid, (long long)drain.timeout_ms, (long long)drain.spread_ms);
  if (!process->channel || channel_send(process->channel, CHANNEL_DRAIN, &drain) != 0) {
    kill(process->info.pid, SIGTERM);
  }
  worker_process_set_state(process, WORKER_DRAINING);
  process->drained_by_ms = clock_monotonic_ms() + bound_ms;
  worker_process_start_timer(process, bound_ms);
}

// Whether one that is to be replaced still has the place.
bool worker_process_has_predecessor(const struct worker_process *process) {
  return process->predecessor != NOBODY && process->info.place != WORKER_NO_PLACE &&
         process->workers->process[process->predecessor].info.place == process->info.place;
}

struct worker_process *worker_process_successor(struct worker_process *process) {
  struct workers *workers = process->workers;
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *other = &workers->process[i];
    if (other->predecessor == process->index && other->info.place == process->info.place &&
        other != process && other->info.state != WORKER_NONE) {
      return other;
    }
  }
  return NULL;
}

// Between two starts, its next one is what is wanted.
static bool is_replaced_by_its_start(const struct worker_process *process) {
  return process->info.state == WORKER_WAITING;
}

static int start_successor(struct worker_process *process, const struct channel_drain *drain) {
  struct workers *workers = process->workers;
  if (is_replaced_by_its_start(process)) {
    process->info.generation = workers->generation;
    return 0;
  }
  struct worker_process *successor = worker_process_take(workers, process->info.place);
  if (!successor) {
    return ERROR_EXHAUSTED;
  }
  successor->predecessor = process->index;
  successor->predecessor_drain = *drain;
  if (worker_process_start(successor) != 0) {
    worker_process_free(successor);
    return ERROR_SYSTEM;
  }
  return 0;
}

bool workers_is_being_replaced(const struct workers *workers) {
  for (int i = 0; i < workers->count; i++) {
    const struct worker_process *process = &workers->process[i];
    if (process->info.state != WORKER_NONE && worker_process_has_predecessor(process)) {
      return true;
    }
  }
  return false;
}

int workers_replace(struct workers *workers, int index, const struct channel_drain *drain) {
  struct worker_process *process =
      index >= 0 && index < workers->count ? &workers->process[index] : NULL;
  if (!process || process->info.state == WORKER_NONE || process->info.place == WORKER_NO_PLACE) {
    return ERROR_NOT_FOUND;
  }
  if (workers->stopping || worker_process_has_predecessor(process) ||
      worker_process_successor(process) || is_replaced_by_its_start(process)) {
    return ERROR_BUSY;
  }
  return start_successor(process, drain);
}

// One that has left its place already; the earlier end counts.
static void drain_earlier(struct worker_process *process, const struct channel_drain *drain) {
  const struct config *config = process->workers->options.config;
  int64_t bound_ms = clock_monotonic_ms() + drain->timeout_ms + drain->spread_ms +
                     config->worker.stop_timeout_ms + WORKER_STOP_GRACE_MS;
  if (process->channel && bound_ms < process->drained_by_ms) {
    worker_process_drain(process, *drain);
  }
}

// Those that would be too many generations at a time.
void workers_send_the_oldest_away(struct workers *workers, const struct channel_drain *drain) {
  const struct config *config = workers->options.config;
  struct channel_drain now = {.spread_ms = drain->spread_ms};
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    if (process->info.state == WORKER_DRAINING && process->info.place == WORKER_NO_PLACE &&
        process->info.generation + (uint64_t)config->drain.generations < workers->generation) {
      drain_earlier(process, &now);
    }
  }
}

static size_t free_numbers(const struct workers *workers) {
  size_t count = (size_t)(CONFIG_WORKER_NUMBERS - workers->count);
  for (int i = 0; i < workers->count; i++) {
    count += workers_number_is_free(workers, i);
  }
  return count;
}

int workers_renew(struct workers *workers, const struct channel_drain *drain) {
  if (workers->stopping || workers_is_being_replaced(workers)) {
    return ERROR_BUSY;
  }
  if (free_numbers(workers) < (size_t)workers->places) {
    return ERROR_EXHAUSTED;
  }
  workers->generation++;
  for (int place = 0; place < workers->places; place++) {
    struct worker_process *process = worker_process_at(workers, place);
    int error = process ? start_successor(process, drain) : ERROR_NOT_FOUND;
    if (error != 0) {  // it goes on as it is
      log_error("worker_not_replaced", "place=%d error=\"%s\"", place, error_text(error));
    }
  }
  workers_send_the_oldest_away(workers, drain);
  return 0;
}

void workers_resize(struct workers *workers, int count, const struct channel_drain *drain) {
  for (; workers->places < count; workers->places++) {
    struct worker_process *process = worker_process_take(workers, workers->places);
    if (!process) {
      log_error("worker_start_failed", "place=%d hint=\"too many workers are draining\"",
                workers->places);
      return;
    }
    if (worker_process_start(process) != 0) {
      worker_process_start_later(process);
    }
  }
  if (count >= workers->places) {
    return;
  }
  workers->places = count;
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    if (process->info.state != WORKER_NONE && process->info.place >= count) {
      worker_process_drain(process, *drain);
    }
  }
}

void workers_drain(struct workers *workers, const struct channel_drain *drain) {
  workers->draining = true;
  workers->drain = *drain;
  workers->drain.leave = CHANNEL_LEAVE_NOT;
  workers->draining_since_ms = clock_monotonic_ms();
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    if (process->info.place == WORKER_NO_PLACE && process->info.state == WORKER_DRAINING) {
      drain_earlier(process, drain);
    } else if (process->channel && process->info.state != WORKER_NONE) {
      (void)!channel_send(process->channel, CHANNEL_DRAIN, &workers->drain);
      if (process->info.state == WORKER_RUNNING) {
        worker_process_set_state(process, WORKER_DRAINING);
      }
    }
  }
}

void workers_undrain(struct workers *workers) {
  workers->draining = false;
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    if (process->channel && process->info.place != WORKER_NO_PLACE) {
      (void)!channel_send(process->channel, CHANNEL_UNDRAIN, NULL);
      if (process->info.state == WORKER_DRAINING) {
        worker_process_set_state(process, WORKER_RUNNING);
      }
    }
  }
}
