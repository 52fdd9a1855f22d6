#include "common/trace_context.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define PARENT "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

static int parse(const char *text, struct trace_context *context) {
  return trace_context_parse(text, strlen(text), context);
}

static void a_traceparent_is_read_and_written_the_same(void **state) {
  static const uint8_t span_id[] = {0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31};
  struct trace_context context;
  char text[TRACE_PARENT_TEXT_BYTES];
  char id[TRACE_ID_TEXT_BYTES];
  (void)state;
  assert_int_equal(parse(PARENT, &context), 0);
  assert_memory_equal(context.span_id, span_id, sizeof span_id);
  assert_true(context.sampled);
  assert_string_equal(trace_context_format(&context, text), PARENT);
  assert_string_equal(trace_id_format(context.trace_id, id), "0af7651916cd43dd8448eb211c80319c");
  assert_int_equal(parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fe", &context), 0);
  assert_false(context.sampled);  // of the flags, only the last is known
}

static void a_later_version_may_have_more_behind_a_dash(void **state) {
  struct trace_context context;
  (void)state;
  assert_int_equal(
      parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-ever", &context), 0);
  assert_int_equal(parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &context), 0);
  assert_int_equal(parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.x", &context),
                   ERROR_MALFORMED);
}

static void anything_else_is_no_traceparent(void **state) {
  static const char *const wrong[] = {
      "",
      "00",
      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-010",
      "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
      "00-00000000000000000000000000000000-b7ad6b7169203331-01",
      "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
      "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333 -01",
      " 0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  };
  (void)state;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    struct trace_context context = {.sampled = 1, .span_id = {1}};
    assert_int_equal(parse(wrong[i], &context), ERROR_MALFORMED);
    assert_false(trace_context_is_set(&context));
    context = trace_context_of_header(wrong[i]);
    assert_false(trace_context_is_set(&context));
  }
  struct trace_context none = trace_context_of_header(NULL);
  assert_false(trace_context_is_set(&none));
}

static void a_tracestate_has_members_within_bounds(void **state) {
  char long_one[TRACE_STATE_MAX_BYTES + 2];
  char many[4 * (TRACE_STATE_MEMBERS_MAX + 1) + 1] = "";
  (void)state;
  assert_true(trace_state_is_sound("a=1", 3));
  assert_true(trace_state_is_sound("rojo=00f, congo@b=t61 x ,,", 26));
  static const char *const wrong[] = {"",       ",",     "a",         "a=",        "=1",
                                      "A=1",    "a=1=2", "a=1,\tb=2", "a=1\t",     "a=\x7f",
                                      "a=\xc3", "a b=1", "-a=1",      "a=1\r\nb=2"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    assert_false(trace_state_is_sound(wrong[i], strlen(wrong[i])));
  }
  memset(long_one, 'x', sizeof long_one);
  memcpy(long_one, "a=", 2);
  assert_false(trace_state_is_sound(long_one, sizeof long_one - 1));
  for (int i = 0; i < TRACE_STATE_MEMBERS_MAX; i++) {
    snprintf(many + strlen(many), sizeof many - strlen(many), "%c=1,", 'a' + i % 26);
  }
  assert_true(trace_state_is_sound(many, strlen(many)));
  strncat(many, "z=1", sizeof many - strlen(many) - 1);
  assert_false(trace_state_is_sound(many, strlen(many)));
}

static void ids_are_made_new_each_time(void **state) {
  uint8_t ids[3000][TRACE_SPAN_ID_BYTES];
  static const uint8_t zero[TRACE_SPAN_ID_BYTES];
  (void)state;
  for (size_t i = 0; i < 3000; i++) {
    trace_span_id_make(ids[i]);
    assert_memory_not_equal(ids[i], zero, sizeof zero);
    for (size_t j = i > 300 ? i - 300 : 0; j < i; j++) {
      assert_memory_not_equal(ids[i], ids[j], sizeof ids[i]);
    }
  }
}

static bool takes(enum trace_sampler_kind kind, double ratio, const uint8_t *id,
                  const char *flags) {
  struct trace_sampler sampler;
  struct trace_context parent = {.sampled = 0};
  if (flags) {
    parent.span_id[0] = 1;
    parent.sampled = flags[0] == '1';
  }
  trace_sampler_init(&sampler, kind, ratio);
  return trace_sampler_takes(&sampler, id, &parent);
}

static void samplers_decide_as_the_specification_has_it(void **state) {
  static const uint8_t low[TRACE_ID_BYTES] = {[8] = 0x10}, high[TRACE_ID_BYTES] = {[8] = 0xf0};
  (void)state;
  assert_true(takes(TRACE_ALWAYS_ON, 0, high, "0"));
  assert_false(takes(TRACE_ALWAYS_OFF, 1, low, "1"));
  assert_true(takes(TRACE_RATIO, 0.5, low, "0"));  // the parent has no say
  assert_false(takes(TRACE_RATIO, 0.5, high, "1"));
  assert_true(takes(TRACE_RATIO, 1, high, NULL));
  assert_false(takes(TRACE_RATIO, 0, low, NULL));
  assert_true(takes(TRACE_PARENT_ALWAYS_ON, 0, low, NULL));
  assert_false(takes(TRACE_PARENT_ALWAYS_ON, 0, low, "0"));
  assert_false(takes(TRACE_PARENT_ALWAYS_OFF, 1, low, NULL));
  assert_true(takes(TRACE_PARENT_ALWAYS_OFF, 1, low, "1"));
  assert_true(takes(TRACE_PARENT_RATIO, 0.5, low, NULL));
  assert_false(takes(TRACE_PARENT_RATIO, 0.5, high, NULL));
  assert_true(takes(TRACE_PARENT_RATIO, 0.5, high, "1"));
  assert_false(takes(TRACE_PARENT_RATIO, 0.5, low, "0"));
}

static void a_ratio_takes_its_share_of_random_ids(void **state) {
  struct trace_sampler sampler;
  const struct trace_context none = {.sampled = 0};
  int taken = 0;
  (void)state;
  trace_sampler_init(&sampler, TRACE_RATIO, 0.25);
  for (int i = 0; i < 20000; i++) {
    uint8_t id[TRACE_ID_BYTES];
    trace_id_make(id);
    taken += trace_sampler_takes(&sampler, id, &none);
  }
  assert_in_range(taken, 4500, 5500);  // 5000, give or take eight standard deviations
}

static void a_ratio_is_a_decimal_number_from_0_to_1(void **state) {
  static const char *const wrong[] = {"",    "-0.1", "1.1", "2",    "nan", "0x1", "1e-2",
                                      "0,1", " 1",   "1 ",  "1.0.", ".5",  "inf"};
  double ratio;
  (void)state;
  assert_true(trace_ratio_parse("0", &ratio) && ratio == 0);
  assert_true(trace_ratio_parse("1.0", &ratio) && ratio == 1);
  assert_true(trace_ratio_parse("0.25", &ratio) && ratio == 0.25);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    assert_false(trace_ratio_parse(wrong[i], &ratio));
  }
}

#define FACT(name) cmocka_unit_test(name)

int main(void) {
  const struct CMUnitTest facts[] = {
      FACT(a_traceparent_is_read_and_written_the_same),
      FACT(a_later_version_may_have_more_behind_a_dash),
      FACT(anything_else_is_no_traceparent),
      FACT(a_tracestate_has_members_within_bounds),
      FACT(ids_are_made_new_each_time),
      FACT(samplers_decide_as_the_specification_has_it),
      FACT(a_ratio_takes_its_share_of_random_ids),
      FACT(a_ratio_is_a_decimal_number_from_0_to_1),
  };
  return cmocka_run_group_tests(facts, NULL, NULL);
}
