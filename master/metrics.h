// What Prometheus scrapes: everything that the counters segments hold, what the master knows
// beside, and the process_* metrics of each process, as text. Reads only: no worker is asked.
// Loop thread only.
#ifndef JANUS_MASTER_METRICS_H
#define JANUS_MASTER_METRICS_H

#include <stdbool.h>
#include <stddef.h>

struct http_request;
struct master;

enum metrics_format { METRICS_TEXT, METRICS_OPENMETRICS };

// Which format a scraper wants, by its Accept header (or NULL).
enum metrics_format metrics_format_wanted(const char *accept);

// The whole page, malloc'd, *len bytes of it. NULL when out of memory.
char *metrics_render(const struct master *master, enum metrics_format format, size_t *len);

// GET /metrics; owner is the struct master.
void metrics_on_request(struct http_request *request, void *owner);

#endif
