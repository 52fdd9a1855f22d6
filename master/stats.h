// The gateway's numbers as JSON, for janusctl (control_answers.h) and for GET /stats/...
// (stats_http.h) alike. Made at once, from the counters segments and what the master knows: no
// worker is asked. NULL when out of memory. Loop thread only.
#ifndef JANUS_MASTER_STATS_H
#define JANUS_MASTER_STATS_H

#include <jansson.h>

#include "master/master.h"

// All counts of master and workers.
void stats_read_total(const struct master *master, struct counters_values *total);

// Every counter by its name.
json_t *stats_values(const struct counters_values *values);
// Each worker: what process it is and what it has.
json_t *stats_workers(const struct master *master);
// How the gateway stands with etcd and Redis; empty where it needs neither.
json_t *stats_links(const struct master *master);
// What the shared table holds.
json_t *stats_route_table(const struct master *master);

// Whole reports.
json_t *stats_connections(const struct master *master);
json_t *stats_tunnels(const struct master *master);
json_t *stats_routes(const struct master *master);
json_t *stats_build(const struct master *master);

#endif
