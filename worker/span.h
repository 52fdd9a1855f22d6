// One span while it is put together, and its encoding. What is added is borrowed until
// span_encode. More attributes or events than there is room for are left out.
// Pure functions, any thread.
#ifndef JANUS_WORKER_SPAN_H
#define JANUS_WORKER_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/trace_context.h"
#include "proto/otlp_trace.pb-c.h"

enum {
  SPAN_ATTRIBUTES_MAX = 20,
  SPAN_EVENTS_MAX = 16,
  SPAN_EVENT_ATTRIBUTES = 2,
};

struct span_attribute {
  Otlp__KeyValue pair;
  Otlp__AnyValue value;
};

struct span_event {
  Otlp__Span__Event event;
  Otlp__KeyValue *pairs[SPAN_EVENT_ATTRIBUTES];
  struct span_attribute attributes[SPAN_EVENT_ATTRIBUTES];
};

struct span {
  Otlp__Span span;
  Otlp__Status status;
  Otlp__KeyValue *pairs[SPAN_ATTRIBUTES_MAX];
  struct span_attribute attributes[SPAN_ATTRIBUTES_MAX];
  Otlp__Span__Event *event_list[SPAN_EVENTS_MAX];
  struct span_event events[SPAN_EVENTS_MAX];
};

// name is borrowed; self too. parent_id NULL: it is a root.
void span_init(struct span *span, const char *name, Otlp__Span__SpanKind kind,
               const struct trace_context *self, const uint8_t *parent_id);
void span_set_times(struct span *span, uint64_t start_ns, uint64_t end_ns);
// It failed; error is a name from a bounded set, and becomes error.type.
void span_set_error(struct span *span, const char *error);

void span_add_text(struct span *span, const char *key, const char *value);
void span_add_integer(struct span *span, const char *key, int64_t value);
void span_add_bool(struct span *span, const char *key, bool value);

// An event "check" with its name, and whether it was passed.
void span_add_check(struct span *span, uint64_t time_ns, const char *name, bool passed);

size_t span_encoded_bytes(const struct span *span);
void span_encode(const struct span *span, uint8_t *bytes);

#endif
