// Whether players may be sent here: the rules, and nothing else. What HTTP's /health/ready and
// the gRPC health service say is both from here.
//
//   listening  the sockets are bound, and all workers have taken connections at first
//   workers    at least one runs: the others' successors are on their way
//   draining   the gateway has not been told to stop
//   nodes      the service of each main tunnel type has a node
//
// Redis and etcd are in the detail only: the gateway goes on serving without them, on the routes
// and nodes that it knows, so an outage of theirs must not take all gateways away at once.
// Pure.
#ifndef JANUS_MASTER_READINESS_H
#define JANUS_MASTER_READINESS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/node_table.h"

struct readiness_facts {
  const struct config *config;
  size_t listeners;         // bound for clients
  bool all_workers_served;  // all of them have run, at some time
  int workers;
  int workers_running;
  bool draining;
  const struct node *nodes;
  size_t node_count;
  const char *etcd;  // state of the link; NULL: not used
  const char *redis;
};

enum readiness_check {
  READINESS_LISTENING,
  READINESS_WORKERS,
  READINESS_DRAINING,
  READINESS_NODES,
  READINESS_LINKS,  // never fails
  READINESS_CHECKS,
};
const char *readiness_check_name(enum readiness_check check);

enum readiness_state { READINESS_NOT_READY, READINESS_READY, READINESS_IS_DRAINING };
const char *readiness_state_name(enum readiness_state state);

enum { READINESS_DETAIL_BYTES = 512 };

struct readiness {
  enum readiness_state state;
  struct {
    bool ok;
    char detail[READINESS_DETAIL_BYTES];  // cut where it is longer
  } checks[READINESS_CHECKS];
};

void readiness_evaluate(const struct readiness_facts *facts, struct readiness *readiness);

#endif
