// Sends the workers' finished spans to a collector, by OTLP over HTTP.
//
// Spans wait up to trace.queue_bytes; when that is full the oldest are dropped. One export is
// under way at a time. An answer of 429, 502, 503 or 504, or none at all, has it tried again
// with a growing pause (or the one that Retry-After asks for) for up to five minutes; after any
// other its spans are given up. All of it is counted.
// Loop thread only; nothing in it blocks, libcurl looks names up on a thread of its own.
#ifndef JANUS_MASTER_TRACE_EXPORTER_H
#define JANUS_MASTER_TRACE_EXPORTER_H

#include <event2/event.h>

#include "common/channel.h"
#include "common/counters.h"
#include "master/trace_settings.h"

struct trace_exporter;

// All is borrowed for the exporter's life. NULL when out of memory.
struct trace_exporter *trace_exporter_new(struct event_base *base,
                                          const struct trace_settings *settings,
                                          const struct config *config, struct counters *counters);
void trace_exporter_free(struct trace_exporter *exporter);  // accepts NULL; what waits is dropped

// Takes what a worker hands over.
void trace_exporter_take(struct trace_exporter *exporter, const struct channel_spans *spans);

// Sends what waits at once, and once only: the end is near. True while there is something left.
bool trace_exporter_flush(struct trace_exporter *exporter);
// The end has not come: all is as it was. Accepts NULL.
void trace_exporter_resume(struct trace_exporter *exporter);

#endif
