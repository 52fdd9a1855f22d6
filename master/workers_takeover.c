#include "master/workers.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/shm.h"
#include "master/worker_process.h"

#define LOG_MODULE LOG_MODULE_MASTER

bool workers_are_held(const struct workers *workers) {
  for (int i = 0; i < workers->count; i++) {
    const struct worker_process *process = &workers->process[i];
    // One without a channel is dying: its end is awaited.
    if (process->info.pid != 0 &&
        (!process->held || !process->channel || channel_queued_bytes(process->channel) > 0)) {
      return false;
    }
  }
  return true;
}

int workers_hold(struct workers *workers) {
  if (workers->stopping || workers->holding || workers->draining ||
      workers_is_being_replaced(workers)) {
    return ERROR_BUSY;
  }
  for (int i = 0; i < workers->count; i++) {
    const struct worker_process *process = &workers->process[i];
    if (process->info.state == WORKER_STARTING || process->info.state == WORKER_STOPPING) {
      return ERROR_BUSY;
    }
  }
  workers->holding = true;
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    process->held = false;
    // One that leaves has closed its channel already: its end is awaited.
    if (process->channel && channel_send(process->channel, CHANNEL_HOLD, NULL) != 0) {
      workers_resume(workers);
      return ERROR_BUSY;
    }
  }
  return 0;
}

void workers_resume(struct workers *workers) {
  workers->holding = false;
  for (int i = 0; i < workers->count; i++) {
    struct worker_process *process = &workers->process[i];
    if (process->channel) {
      (void)!channel_send(process->channel, CHANNEL_RESUME, NULL);
    }
  }
}

static json_t *numbers_of(const struct counters_values *values) {
  const uint64_t *numbers = (const uint64_t *)(const void *)values;
  json_t *array = json_array();
  for (size_t i = 0; i < sizeof *values / sizeof *numbers; i++) {
    json_array_append_new(array, json_integer((json_int_t)numbers[i]));
  }
  return array;
}
_Static_assert(sizeof(struct counters_values) % sizeof(uint64_t) == 0, "nothing but numbers");

json_t *workers_save(const struct workers *workers, void (*keep)(int fd, void *context),
                     void *context) {
  json_t *processes = json_array();
  for (int i = 0; i < workers->count; i++) {
    const struct worker_process *process = &workers->process[i];
    bool lives = process->info.pid != 0;
    json_t *one = json_pack(
        "{s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:o}", "number", i, "pid",
        (int)process->info.pid, "place", process->info.place, "generation",
        (json_int_t)process->info.generation, "restarts", (json_int_t)process->info.restarts,
        "since_ms", (json_int_t)process->info.since_ms, "started_ms",
        (json_int_t)process->started_ms, "drained_by_ms", (json_int_t)process->drained_by_ms,
        "retired_cpu_s", process->retired_cpu_s, "retired", numbers_of(&process->retired));
    if (lives) {
      int channel = channel_fd(process->channel);
      json_object_set_new(one, "channel_fd", json_integer(channel));
      json_object_set_new(one, "counters_fd", json_integer(process->counters.fd));
      keep(channel, context);
      keep(process->counters.fd, context);
    }
    json_array_append_new(processes, one);
  }
  return json_pack("{s:I, s:i, s:o}", "generation", (json_int_t)workers->generation, "places",
                   workers->places, "processes", processes);
}

static json_int_t saved_number(const json_t *saved, const char *name) {
  return json_integer_value(json_object_get(saved, name));
}

static void take_numbers(struct counters_values *values, const json_t *numbers) {
  const size_t count = sizeof *values / sizeof(uint64_t);
  for (size_t i = 0; json_array_size(numbers) == count && i < count; i++) {
    uint64_t number = (uint64_t)json_integer_value(json_array_get(numbers, i));
    memcpy((char *)values + i * sizeof number, &number, sizeof number);
  }
}

// One that lives. What can't be taken over is ended: its players come again.
static void take_over_living(struct worker_process *process, const json_t *saved) {
  struct workers *workers = process->workers;
  int channel = (int)saved_number(saved, "channel_fd");
  const int fds[CHANNEL_FDS] = {[CHANNEL_FD_ROUTES] = workers->options.route_table_fd,
                                [CHANNEL_FD_NODES] = workers->options.node_table_fd,
                                [CHANNEL_FD_TLS] = workers->options.tls_fd};
  process->info.pid = (pid_t)saved_number(saved, "pid");
  process->taken_over = true;
  process->pushed = 0;
  fcntl(channel, F_SETFD, FD_CLOEXEC);
  bool good = shm_map(&process->counters, (int)saved_number(saved, "counters_fd"), true) == 0 &&
              process->counters.size >= sizeof(struct counters) &&
              channel_send_take_over(channel, fds) == 0;
  if (good) {
    const struct counters *counters = process->counters.base;
    fcntl(process->counters.fd, F_SETFD, FD_CLOEXEC);
    process->pushed =
        atomic_load_explicit(&counters->counter[COUNTER_PUSHES_ADDRESSED], memory_order_relaxed);
    process->channel = worker_process_open_channel(process, channel);
  } else {
    close(channel);
  }
  if (!process->channel) {
    log_error("worker_not_taken_over", "worker=%d pid=%d", process->index, (int)process->info.pid);
    kill(process->info.pid, SIGKILL);
  }
  process->info.state = process->info.place == WORKER_NO_PLACE ? WORKER_DRAINING : WORKER_RUNNING;
  if (process->drained_by_ms != 0) {
    int64_t left_ms = process->drained_by_ms - clock_monotonic_ms();
    worker_process_start_timer(process, left_ms > 0 ? left_ms : 0);
  }
  log_info("worker_taken_over", "worker=%d pid=%d place=%d", process->index, (int)process->info.pid,
           process->info.place);
}

// False: out of memory.
bool workers_take_over(struct workers *workers, const json_t *saved) {
  const json_t *one;
  size_t i;
  workers->generation = (uint64_t)saved_number(saved, "generation");
  json_array_foreach(json_object_get(saved, "processes"), i, one) {
    // Numbers are given from the lowest on, and one that is free is taken again soon.
    int number = (int)saved_number(one, "number");
    if (number != workers->count || number >= CONFIG_WORKER_NUMBERS) {
      return false;
    }
    struct worker_process *process = worker_process_take(workers, (int)saved_number(one, "place"));
    if (!process) {
      return false;
    }
    process->info.generation = (uint64_t)saved_number(one, "generation");
    process->info.restarts = (uint64_t)saved_number(one, "restarts");
    process->info.since_ms = saved_number(one, "since_ms");
    process->started_ms = saved_number(one, "started_ms");
    process->drained_by_ms = saved_number(one, "drained_by_ms");
    process->retired_cpu_s = json_real_value(json_object_get(one, "retired_cpu_s"));
    take_numbers(&process->retired, json_object_get(one, "retired"));
    if (saved_number(one, "pid") != 0) {
      take_over_living(process, one);
    } else {
      process->info.state = WORKER_STOPPING;  // so that its number is not given to the next one
    }
  }
  for (int n = 0; n < workers->count; n++) {
    if (workers->process[n].info.pid == 0) {
      worker_process_free(&workers->process[n]);
    }
  }
  return true;
}

bool workers_any_taken_over(const struct workers *workers) {
  for (int i = 0; i < workers->count; i++) {
    if (workers->process[i].taken_over) {
      return true;
    }
  }
  return false;
}

void workers_end_silent(struct workers *workers) {
  for (int i = 0; i < workers->count; i++) {
    const struct worker_process *process = &workers->process[i];
    if (process->taken_over && process->info.pid != 0) {
      log_error("worker_hangs",
                "worker=%d pid=%d hint=\"it has not told the new program who it has\"", i,
                (int)process->info.pid);
      kill(process->info.pid, SIGKILL);
    }
  }
}
