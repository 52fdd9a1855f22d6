// Starts the workers, watches them, and replaces those that die, or are to be replaced.
//
// A worker is fork and exec of janus-worker, handed its descriptors
// (common/handover.h). One that dies is replaced at once; one that keeps dying,
// after a pause that doubles up to a bound.
//
// There are as many places as workers are to take players, each with its sockets, and a process
// in each. Every process has a number of its own, by which all else in the master knows it. One
// that is replaced keeps its number, while its successor has another and the place: it drains,
// which is to say that it keeps its players until they leave or its time is up. Its number is
// free again when it is gone.
#ifndef JANUS_MASTER_WORKERS_H
#define JANUS_MASTER_WORKERS_H

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/channel.h"
#include "common/config.h"
#include "common/counters.h"
#include "master/listeners.h"

struct kcp_mailboxes;

enum worker_state {
  WORKER_NONE,      // no process has this number
  WORKER_WAITING,   // dead, to be started after a pause
  WORKER_STARTING,  // started, has not said that it is ready
  WORKER_RUNNING,
  WORKER_DRAINING,  // takes no new players
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
  // Worker index drains, since successor serves in its place; or (successor < 0) it goes on,
  // since its successor did not come up.
  void (*on_replaced)(int index, int successor, void *owner);
  // After workers_stop: the last one is gone. May free the workers.
  void (*on_all_gone)(void *owner);
};

enum { WORKER_NO_PLACE = -1 };

struct workers_options {
  int program_fd;  // of janus-worker: the same for all, whatever becomes of the file meanwhile
  const struct config *config;  // as is handed to the workers
  const struct secrets *secrets;
  const struct listeners *listeners;  // each with as many sockets as there are places
  size_t listener_count;
  int route_table_fd;
  int node_table_fd;
  int tls_fd;
  int kcp_owners_fd;
  const struct kcp_mailboxes *kcp_mailboxes;  // NULL: no listener is or was for KCP
  // Of a master that this one takes over from, or NULL: what workers_save has written. Its workers
  // serve on, and tell what there is to know of them; on_all_ready comes when all have.
  const json_t *saved;
};

// For reading; kept by the workers module.
struct worker_info {
  pid_t pid;
  enum worker_state state;
  uint64_t restarts;
  int64_t since_ms;       // wall clock, of the last change of state
  int place;              // WORKER_NO_PLACE once another one has it
  uint64_t generation;    // counted up with each that replaces all workers
  int64_t drain_left_ms;  // while it drains: until it is over; CHANNEL_DRAIN_NEVER
};

// Starts as many workers as worker.count says. All in options is borrowed for the
// life of the result. NULL when out of memory or descriptors.
struct workers *workers_new(struct event_base *base, const struct workers_options *options,
                            const struct workers_events *events, void *owner);
void workers_free(struct workers *workers);

// The settings have changed, and maybe the keys: tells all workers.
void workers_settings_changed(struct workers *workers);

// Kills those that hang, to be replaced; each second.
void workers_watch(struct workers *workers);

// Starts a successor of worker index, which drains as drain says (leave is ours) when that one is
// ready; on_replaced tells. ERROR_NOT_FOUND: it has no place; ERROR_BUSY: it is being replaced
// already, or all are stopping; ERROR_EXHAUSTED: too many are draining; ERROR_SYSTEM.
int workers_replace(struct workers *workers, int index,
                    const struct channel_drain *drain) MUST_CHECK;
// The same for all of them: a new generation, which starts with the settings as they are now.
// Those of generations that are too old (drain.generations) are to send their players away now.
// Nothing has been done when it fails.
int workers_renew(struct workers *workers, const struct channel_drain *drain) MUST_CHECK;
// As many places as count, for each of which the listeners have a socket; those that are too
// many drain as drain says.
void workers_resize(struct workers *workers, int count, const struct channel_drain *drain);
// All that take players take no new ones, until workers_undrain. Nobody leaves.
void workers_drain(struct workers *workers, const struct channel_drain *drain);
void workers_undrain(struct workers *workers);

// The program of the master is to be replaced: nothing is to be on its way between it and the
// workers. workers_are_held tells when all that live have said their last word; workers_resume
// undoes it. ERROR_BUSY: some are just starting, being replaced, or stopping.
bool workers_are_held(const struct workers *workers);
int workers_hold(struct workers *workers) MUST_CHECK;
void workers_resume(struct workers *workers);
// What the next program of this process has to know of its children, with the numbers of the
// descriptors that it has to find open; keep is called for each of them. Only while all are held.
json_t *workers_save(const struct workers *workers, void (*keep)(int fd, void *context),
                     void *context);

// Kills those of the program before that have not told who they have.
void workers_end_silent(struct workers *workers);

// Tells all to send their players away, evenly over spread_ms, and leave; kills those that have not
// within that, worker.stop_timeout and some grace.
void workers_stop(struct workers *workers, int64_t spread_ms);
// Kills all at once.
void workers_kill(struct workers *workers);

// Their numbers are below this; some may be nobody's now.
int workers_count(const struct workers *workers);
int workers_places(const struct workers *workers);
int workers_running(const struct workers *workers);   // that have a place and serve, or drain there
int workers_draining(const struct workers *workers);  // that have left their place
uint64_t workers_generation(const struct workers *workers);  // the newest
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
