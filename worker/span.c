#include "worker/span.h"

void span_init(struct span *span, const char *name, Otlp__Span__SpanKind kind,
               const struct trace_context *self, const uint8_t *parent_id) {
  // What the counts do not reach is never read.
  otlp__span__init(&span->span);
  otlp__status__init(&span->status);
  span->span.name = (char *)(uintptr_t)name;
  span->span.kind = kind;
  span->span.trace_id = (ProtobufCBinaryData){TRACE_ID_BYTES, (uint8_t *)(uintptr_t)self->trace_id};
  span->span.span_id =
      (ProtobufCBinaryData){TRACE_SPAN_ID_BYTES, (uint8_t *)(uintptr_t)self->span_id};
  if (parent_id) {
    span->span.parent_span_id =
        (ProtobufCBinaryData){TRACE_SPAN_ID_BYTES, (uint8_t *)(uintptr_t)parent_id};
  }
  span->span.flags = self->sampled;
  span->span.attributes = span->pairs;
  span->span.events = span->event_list;
}

void span_set_times(struct span *span, uint64_t start_ns, uint64_t end_ns) {
  span->span.start_time_unix_nano = start_ns;
  // The wall clock may have been set back meanwhile.
  span->span.end_time_unix_nano = end_ns > start_ns ? end_ns : start_ns;
}

void span_set_error(struct span *span, const char *error) {
  span->status.code = OTLP__STATUS__STATUS_CODE__ERROR;
  span->span.status = &span->status;
  span_add_text(span, "error.type", error);
}

static void set(struct span_attribute *attribute, const char *key,
                Otlp__AnyValue__ValueCase value_case) {
  otlp__key_value__init(&attribute->pair);
  otlp__any_value__init(&attribute->value);
  attribute->pair.key = (char *)(uintptr_t)key;
  attribute->pair.value = &attribute->value;
  attribute->value.value_case = value_case;
}

static Otlp__AnyValue *add(struct span *span, const char *key,
                           Otlp__AnyValue__ValueCase value_case) {
  static Otlp__AnyValue left_out;
  if (span->span.n_attributes == SPAN_ATTRIBUTES_MAX) {
    return &left_out;
  }
  struct span_attribute *attribute = &span->attributes[span->span.n_attributes];
  set(attribute, key, value_case);
  span->pairs[span->span.n_attributes++] = &attribute->pair;
  return &attribute->value;
}

void span_add_text(struct span *span, const char *key, const char *value) {
  add(span, key, OTLP__ANY_VALUE__VALUE_STRING_VALUE)->string_value = (char *)(uintptr_t)value;
}

void span_add_integer(struct span *span, const char *key, int64_t value) {
  add(span, key, OTLP__ANY_VALUE__VALUE_INT_VALUE)->int_value = value;
}

void span_add_bool(struct span *span, const char *key, bool value) {
  add(span, key, OTLP__ANY_VALUE__VALUE_BOOL_VALUE)->bool_value = value;
}

void span_add_check(struct span *span, uint64_t time_ns, const char *name, bool passed) {
  if (span->span.n_events == SPAN_EVENTS_MAX) {
    return;
  }
  struct span_event *event = &span->events[span->span.n_events];
  otlp__span__event__init(&event->event);
  event->event.time_unix_nano = time_ns;
  event->event.name = (char *)(uintptr_t) "check";
  event->event.attributes = event->pairs;
  event->event.n_attributes = SPAN_EVENT_ATTRIBUTES;
  set(&event->attributes[0], "janus.check.name", OTLP__ANY_VALUE__VALUE_STRING_VALUE);
  event->attributes[0].value.string_value = (char *)(uintptr_t)name;
  set(&event->attributes[1], "janus.check.passed", OTLP__ANY_VALUE__VALUE_BOOL_VALUE);
  event->attributes[1].value.bool_value = passed;
  for (size_t i = 0; i < SPAN_EVENT_ATTRIBUTES; i++) {
    event->pairs[i] = &event->attributes[i].pair;
  }
  span->event_list[span->span.n_events++] = &event->event;
}

size_t span_encoded_bytes(const struct span *span) {
  return otlp__span__get_packed_size(&span->span);
}

void span_encode(const struct span *span, uint8_t *bytes) { otlp__span__pack(&span->span, bytes); }
