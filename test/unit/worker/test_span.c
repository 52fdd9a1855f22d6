#include "worker/span.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>

static struct span span;
static const struct trace_context self = {
    .trace_id = {1, 2, 3}, .span_id = {4, 5, 6}, .sampled = 1};
static const uint8_t parent_id[TRACE_SPAN_ID_BYTES] = {7, 8};

static Otlp__Span *encode_and_decode(void) {
  size_t len = span_encoded_bytes(&span);
  uint8_t *bytes = malloc(len);
  assert_non_null(bytes);
  span_encode(&span, bytes);
  Otlp__Span *decoded = otlp__span__unpack(NULL, len, bytes);
  assert_non_null(decoded);
  free(bytes);
  return decoded;
}

static void what_is_encoded_decodes_to_the_same(void **state) {
  (void)state;
  span_init(&span, "message", OTLP__SPAN__SPAN_KIND__CLIENT, &self, parent_id);
  span_set_times(&span, 100, 200);
  span_add_text(&span, "text", "value");
  span_add_integer(&span, "number", -5);
  span_add_bool(&span, "bool", true);
  span_add_check(&span, 150, "clock", false);
  span_set_error(&span, "handshake_clock");
  Otlp__Span *decoded = encode_and_decode();
  assert_string_equal(decoded->name, "message");
  assert_int_equal(decoded->kind, OTLP__SPAN__SPAN_KIND__CLIENT);
  assert_memory_equal(decoded->trace_id.data, self.trace_id, TRACE_ID_BYTES);
  assert_memory_equal(decoded->span_id.data, self.span_id, TRACE_SPAN_ID_BYTES);
  assert_memory_equal(decoded->parent_span_id.data, parent_id, TRACE_SPAN_ID_BYTES);
  assert_int_equal(decoded->start_time_unix_nano, 100);
  assert_int_equal(decoded->end_time_unix_nano, 200);
  assert_int_equal(decoded->n_attributes, 4);
  assert_string_equal(decoded->attributes[0]->value->string_value, "value");
  assert_int_equal(decoded->attributes[1]->value->int_value, -5);
  assert_true(decoded->attributes[2]->value->bool_value);
  assert_string_equal(decoded->attributes[3]->key, "error.type");
  assert_int_equal(decoded->n_events, 1);
  assert_string_equal(decoded->events[0]->attributes[0]->value->string_value, "clock");
  assert_false(decoded->events[0]->attributes[1]->value->bool_value);
  assert_int_equal(decoded->status->code, OTLP__STATUS__STATUS_CODE__ERROR);
  otlp__span__free_unpacked(decoded, NULL);
}

static void a_root_has_no_parent_and_no_status_unless_it_failed(void **state) {
  (void)state;
  span_init(&span, "connection", OTLP__SPAN__SPAN_KIND__SERVER, &self, NULL);
  Otlp__Span *decoded = encode_and_decode();
  assert_int_equal(decoded->parent_span_id.len, 0);
  assert_null(decoded->status);
  otlp__span__free_unpacked(decoded, NULL);
}

static void what_there_is_no_room_for_is_left_out(void **state) {
  (void)state;
  span_init(&span, "x", OTLP__SPAN__SPAN_KIND__INTERNAL, &self, NULL);
  for (int i = 0; i < 2 * SPAN_ATTRIBUTES_MAX; i++) {
    span_add_integer(&span, "number", i);
    span_add_check(&span, 1, "check", true);
  }
  Otlp__Span *decoded = encode_and_decode();
  assert_int_equal(decoded->n_attributes, SPAN_ATTRIBUTES_MAX);
  assert_int_equal(decoded->n_events, SPAN_EVENTS_MAX);
  assert_int_equal(decoded->attributes[SPAN_ATTRIBUTES_MAX - 1]->value->int_value,
                   SPAN_ATTRIBUTES_MAX - 1);
  otlp__span__free_unpacked(decoded, NULL);
}

static void a_span_never_ends_before_it_starts(void **state) {
  (void)state;
  span_init(&span, "x", OTLP__SPAN__SPAN_KIND__INTERNAL, &self, NULL);
  span_set_times(&span, 200, 100);
  assert_int_equal(span.span.end_time_unix_nano, 200);
}

#define FACT(name) cmocka_unit_test(name)

int main(void) {
  const struct CMUnitTest facts[] = {
      FACT(what_is_encoded_decodes_to_the_same),
      FACT(a_root_has_no_parent_and_no_status_unless_it_failed),
      FACT(what_there_is_no_room_for_is_left_out),
      FACT(a_span_never_ends_before_it_starts),
  };
  return cmocka_run_group_tests(facts, NULL, NULL);
}
