// An order on its way through the hub: what push_hub.c and push_elsewhere.c share, and
// nobody else needs.
#ifndef JANUS_MASTER_PUSH_JOB_H
#define JANUS_MASTER_PUSH_JOB_H

#include <sys/queue.h>

#include "common/deflate.h"
#include "master/push_hub.h"

enum {
  BROADCASTS_MAX = 512,  // under way in one worker, and with them so many bytes
  BROADCASTS_MAX_BYTES = 8 << 20,
};

struct job;
TAILQ_HEAD(job_list, job);

// The orders that other gateways have a part in, in the order of their arrival: so they are
// published, and so each player gets them.
struct push_elsewhere {
  struct job_list waiting;
  struct job *looking;  // the first that has not asked for all its players
  size_t count;         // with those that are being published
  size_t bytes;
  size_t lookups;  // under way
  bool asking;     // more of them are being asked for
};

// A broadcast that a worker is not through with.
struct outstanding {
  uint64_t serial;
  size_t bytes;
};

struct backlog {
  struct outstanding ring[BROADCASTS_MAX];
  size_t first;
  size_t count;
  size_t bytes;
};

struct push_hub {
  struct push_hub_options options;
  struct deflater *deflater;
  // The packets of one order, one behind the other, and what is said with each.
  uint8_t *packets;
  size_t packets_room;
  struct channel_push about[PUSH_BODIES_MAX];
  uint64_t serial;  // of the latest broadcast
  struct backlog backlogs[CONFIG_WORKER_NUMBERS];
  struct push_elsewhere elsewhere;
  char origin[CONFIG_TEXT_BYTES + 24];
};

// One player of an order. Sorted by uid; one that is named again shares the fate of the
// first.
struct target {
  int64_t uid;
  size_t position;  // in the order
  enum push_fate fate;
  bool again;
  int worker;           // that has its session, or -1
  uint64_t connection;  // of that
  char *gateway;        // the other one that has it, malloc'd
};

struct job {
  TAILQ_ENTRY(job) link;
  struct push_hub *hub;
  push_on_done *on_done;
  void *context;
  struct push_outcome outcome;
  struct target *targets;
  size_t target_count;
  size_t body_count;
  enum push_fate *fates;
  // What the other gateways get, but for the uids.
  uint8_t *message;
  size_t message_len;
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  size_t next;      // whose gateway is to be found next
  size_t open;      // questions not yet answered
  size_t bytes;     // of memory, while it waits
  bool is_waiting;  // counted among the hub's
};

// Says what came of it, and frees it.
void push_job_finish(struct job *job);

#endif
