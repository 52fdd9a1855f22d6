// What the files workers*.c share, and nobody else includes: one worker process, as the master has
// it. workers.c starts and watches them, workers_replace.c puts others in their place, and
// workers_takeover.c hands them to another program of the master.
#ifndef JANUS_MASTER_WORKER_PROCESS_H
#define JANUS_MASTER_WORKER_PROCESS_H

#include "common/shm.h"
#include "master/workers.h"

enum { WORKER_STOP_GRACE_MS = 2000 };  // beyond worker.stop_timeout

struct worker_process {
  struct workers *workers;
  int index;
  struct worker_info info;
  struct channel *channel;
  struct shm counters;
  struct counters_values retired;  // of the predecessors
  double retired_cpu_s;
  int64_t backoff_ms;
  int64_t started_ms;  // monotonic
  uint64_t pushed;     // sessions that pushes were for, ever
  bool hangs;          // and has been told to end
  bool settings_due;   // there was no room to tell it of them
  bool held;           // has said its last word
  bool taken_over;     // from the master before; has not yet told what it knows
  // Of a successor, until it is ready: who has the place before it (NOBODY), and is then to drain
  // so.
  int predecessor;
  struct channel_drain predecessor_drain;
  int64_t drained_by_ms;  // monotonic: then it is killed; 0: not bounded
  struct event *timer;    // next start, the time to be ready, or drained_by_ms
};

enum { NOBODY = -1 };

struct workers {
  struct event_base *base;
  struct workers_options options;
  struct workers_events events;
  void *owner;
  struct event *child_signal;
  struct event *stop_timer;
  bool stopping;
  bool all_ready_told;
  int places;
  uint64_t generation;
  bool draining;               // all of them,
  struct channel_drain drain;  // so,
  int64_t draining_since_ms;   // monotonic, since then
  bool holding;
  int count;  // numbers that were ever used
  struct worker_process process[CONFIG_WORKER_NUMBERS];
};

// workers.c

void worker_process_set_state(struct worker_process *process, enum worker_state state);
void worker_process_start_timer(struct worker_process *process, int64_t ms);
int worker_process_start(struct worker_process *process);
// At once the first time, then after a pause that doubles.
void worker_process_start_later(struct worker_process *process);
// Takes over fd. NULL when out of memory.
struct channel *worker_process_open_channel(struct worker_process *process, int fd);
// Of those that were ever used.
bool workers_number_is_free(const struct workers *workers, int number);
// One with the lowest number that is free, for that place. NULL: there is none, or no memory.
struct worker_process *worker_process_take(struct workers *workers, int place);
void worker_process_free(struct worker_process *process);  // its number
// The one that serves at the place, not one that is to follow it. NULL: nobody does.
struct worker_process *worker_process_at(struct workers *workers, int place);

// workers_replace.c

// It leaves its place, if it has one; leave is ours. Or it does so earlier than it was told before.
void worker_process_drain(struct worker_process *process, struct channel_drain drain);
// Whether one that it is to replace still has the place.
bool worker_process_has_predecessor(const struct worker_process *process);
struct worker_process *worker_process_successor(struct worker_process *process);
bool workers_is_being_replaced(const struct workers *workers);
void workers_send_the_oldest_away(struct workers *workers, const struct channel_drain *drain);

// workers_takeover.c

// Those that workers_options.saved tells of. False: out of memory, or it is no such thing.
bool workers_take_over(struct workers *workers, const json_t *saved);
bool workers_any_taken_over(const struct workers *workers);

#endif
