// The nodes (backends) that the registry knows, in shared memory: written whole
// by the master on each change, copied whole by each worker when the version
// has moved.
#ifndef JANUS_COMMON_NODE_TABLE_H
#define JANUS_COMMON_NODE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum {
  NODE_SERVICE_MAX_BYTES = 127,
  NODE_COLOR_MAX_BYTES = 63,
  NODE_ADDRESS_MAX_BYTES = 127,
  NODE_WEIGHT_DEFAULT = 100,
};

struct node {
  char service[NODE_SERVICE_MAX_BYTES + 1];
  char color[NODE_COLOR_MAX_BYTES + 1];
  char address[NODE_ADDRESS_MAX_BYTES + 1];  // host:port
  uint32_t weight;                           // 0: takes no new routes, keeps those it has
  bool secure;                               // TLS
  int64_t since_ms;                          // wall clock, when the registry first saw it
};

// By service and address, which make a node what it is; for qsort and bsearch too.
int node_compare(const void *a, const void *b);

struct node_table;

// In the master: makes the segment for up to capacity nodes.
struct node_table *node_table_create(size_t capacity, int *error);
// In a worker: maps it read-only; takes over fd.
struct node_table *node_table_open(int fd, int *error);
void node_table_free(struct node_table *table);
int node_table_fd(const struct node_table *table);

// Master only: replaces all nodes. ERROR_EXHAUSTED over the capacity: then the
// first ones up to it are published.
int node_table_publish(struct node_table *table, const struct node *nodes, size_t count) MUST_CHECK;

// Master only: whether the registry can be seen at present, so that the nodes published are
// all that there are. At first it can't.
void node_table_set_current(struct node_table *table, bool current);
// Any process. One load.
bool node_table_is_current(const struct node_table *table);

// Any process: a number that changes with each publication. One load.
uint64_t node_table_version(const struct node_table *table);

// Copies all nodes into *nodes (malloc'd, for the caller to free; NULL when
// there are none) with the version they belong to. ERROR_BUSY when the writer
// kept interfering or died in between: keep the copy one has and ask again later.
int node_table_read(const struct node_table *table, struct node **nodes, size_t *count,
                    uint64_t *version) MUST_CHECK;

#endif
