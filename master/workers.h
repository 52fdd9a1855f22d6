// Starts the workers, watches them, and replaces those that die.
//
// A worker is fork and exec of janus-worker, handed its descriptors
// (common/handover.h). One that dies is replaced at once; one that keeps dying,
// after a pause that doubles up to a bound.
#ifndef JANUS_MASTER_WORKERS_H
#define JANUS_MASTER_WORKERS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/channel.h"
#include "common/config.h"
#include "common/counters.h"
#include "master/listeners.h"

enum worker_state {
  WORKER_WAITING,   // dead, to be started after a pause
  WORKER_STARTING,  // started, has not said that it is ready
  WORKER_RUNNING,
  WORKER_STOPPING,
};
const char *worker_state_name(enum worker_state state);

struct workers;

struct workers_events {
  // A message from worker index; content is valid for the call.
  void (*on_message)(int index, enum channel_type type, const void *content, void *owner);
  // Worker index is dead: everything it had is gone.
  void (*on_dead)(int index, void *owner);
  // All workers run, for the first time.
  void (*on_all_ready)(void *owner);
  // After workers_stop: the last one is gone. May free the workers.
  void (*on_all_gone)(void *owner);
};

struct workers_options {
  const char *program;          // path of janus-worker
  const struct config *config;  // as is handed to the workers
  const struct secrets *secrets;
  const struct listeners *listeners;  // each with as many sockets as there are workers
  size_t listener_count;
  int route_table_fd;
  int node_table_fd;
  int tls_fd;
};

// For reading; kept by the workers module.
struct worker_info {
  pid_t pid;
  enum worker_state state;
  uint64_t restarts;
  int64_t since_ms;  // wall clock, of the last change of state
};

// Starts as many workers as there are sockets. All in options is borrowed for the
// life of the result. NULL when out of memory or descriptors.
struct workers *workers_new(struct event_base *base, const struct workers_options *options,
                            const struct workers_events *events, void *owner);
void workers_free(struct workers *workers);

// Kills those that hang, to be replaced; each second.
void workers_watch(struct workers *workers);

// Tells all to close their sessions and leave; kills those that have not within
// worker.stop_timeout and some grace.
void workers_stop(struct workers *workers);
// Kills all at once.
void workers_kill(struct workers *workers);

int workers_count(const struct workers *workers);
int workers_running(const struct workers *workers);
void workers_info(const struct workers *workers, int index, struct worker_info *info);

// The counts of worker index with those of its predecessors; gauges of the living.
void workers_read_counters(const struct workers *workers, int index,
                           struct counters_values *values);
// The CPU time of its predecessors, seconds.
double workers_retired_cpu_s(const struct workers *workers, int index);

// How many bytes of pushes it takes now (common/channel.h). ERROR_EXHAUSTED: that was too
// many.
size_t workers_push_room(const struct workers *workers, int index);
int workers_send_push(struct workers *workers, int index, const struct channel_push *push,
                      const uint64_t *receivers, const uint8_t *packet);
int workers_send(struct workers *workers, int index, enum channel_type type, const void *content);

#endif
