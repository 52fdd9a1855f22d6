#include "tools/ctl/look.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/counters.h"

static const char message_in[] = "message_latency_seconds{direction=\"in\"}";

// Of one process: its messages in, and how many of them took up to the bound of a bucket.
static json_t *values(int messages, int bucket, int in_bucket) {
  json_t *buckets = json_array();
  for (int i = 0; i <= HISTOGRAM_BOUNDS; i++) {
    json_array_append_new(buckets, json_integer(i == bucket ? in_bucket : 0));
  }
  return json_pack("{s:{s:i, s:i}, s:{s:i, s:i}, s:{s:{s:o}}}", "counters", "messages_in", messages,
                   "sent_bytes", 10 * messages, "gauges", "sessions", 7, "queued_in_bytes", 12,
                   "histograms", message_in, "buckets", buckets);
}

// With as many workers as there are numbers of messages before the -1.
static json_t *stats(int total, int bucket, int in_bucket, const int *of_workers) {
  json_t *workers = json_array();
  for (int i = 0; of_workers[i] >= 0; i++) {
    json_t *one = values(of_workers[i], bucket, of_workers[i]);
    json_object_set_new(one, "worker", json_integer(i));
    json_array_append_new(workers, one);
  }
  return json_pack("{s:o, s:o}", "total", values(total, bucket, in_bucket), "workers", workers);
}

static json_t *compare(json_t *before, json_t *now, double seconds) {
  json_t *look = ctl_look_compare(before, now, seconds);
  json_decref(before);
  json_decref(now);
  assert_non_null(look);
  return look;
}

static double number(const json_t *object, const char *name) {
  assert_true(json_is_number(json_object_get(object, name)));
  return json_number_value(json_object_get(object, name));
}

static void rates_are_the_growth_by_the_seconds(void **state) {
  (void)state;
  json_t *look =
      compare(stats(100, 3, 100, (int[]){40, 60, -1}), stats(160, 3, 160, (int[]){50, 110, -1}), 2);
  const json_t *total = json_object_get(look, "total");
  const json_t *workers = json_object_get(look, "workers");
  assert_true(number(look, "seconds") == 2);
  assert_true(number(total, "messages_in") == 60);
  assert_true(number(total, "messages_in_per_s") == 30);
  assert_true(number(total, "sent_bytes_per_s") == 300);
  assert_true(number(total, "messages_out") == 0);
  assert_true(number(total, "sessions") == 7);
  assert_int_equal(json_array_size(workers), 2);
  assert_true(number(json_array_get(workers, 0), "messages_in") == 10);
  assert_true(number(json_array_get(workers, 1), "messages_in") == 50);
  assert_true(number(json_array_get(workers, 1), "worker") == 1);
  json_decref(look);
}

static void quantiles_are_those_of_the_time_between(void **state) {
  (void)state;
  const int none[] = {-1};
  // A thousand fast ones before; ten slow ones since.
  json_t *before = stats(1000, 0, 1000, none);
  json_t *now = stats(1010, 0, 1000, none);
  json_t *one =
      json_object_get(json_object_get(json_object_get(now, "total"), "histograms"), message_in);
  json_array_set_new(json_object_get(one, "buckets"), 10, json_integer(10));
  json_t *look = compare(before, now, 1);
  one = json_object_get(json_object_get(json_object_get(look, "total"), "latencies"), message_in);
  assert_true(number(one, "count") == 10);
  assert_true(number(one, "p50_us") > histogram_bounds_us[9]);
  assert_true(number(one, "p50_us") <= number(one, "p99_us"));
  assert_true(number(one, "p99_us") <= histogram_bounds_us[10]);
  json_decref(look);
}

static void a_gateway_begun_anew_counts_from_zero(void **state) {
  (void)state;
  json_t *look =
      compare(stats(1000, 2, 1000, (int[]){1000, -1}), stats(5, 2, 5, (int[]){5, -1}), 1);
  const json_t *total = json_object_get(look, "total");
  const json_t *latency = json_object_get(json_object_get(total, "latencies"), message_in);
  assert_true(number(total, "messages_in") == 5);
  assert_true(number(latency, "count") == 5);
  json_decref(look);
}

static void answers_of_another_kind_are_compared_without_harm(void **state) {
  (void)state;
  json_t *look =
      compare(json_object(), json_pack("{s:s, s:[i, n]}", "total", "x", "workers", 1), 1);
  assert_true(number(json_object_get(look, "total"), "messages_in") == 0);
  json_decref(look);
}

// --- As text ------------------------------------------------------------------------------

static char *printed(const json_t *look) {
  char *text = NULL;
  size_t len = 0;
  FILE *out = open_memstream(&text, &len);
  assert_non_null(out);
  ctl_look_print(out, look);
  fclose(out);
  return text;
}

static json_t *look_with_sessions(json_t *sessions, int complete) {
  json_t *look =
      compare(stats(0, 2, 0, (int[]){0, -1}), stats(12345678, 2, 50, (int[]){12345678, -1}), 1);
  json_object_set_new(look, "sessions", sessions);
  json_object_set_new(look, "complete", json_boolean(complete));
  return look;
}

static void large_numbers_are_shortened_and_sessions_stand_in_their_order(void **state) {
  (void)state;
  json_t *look = look_with_sessions(
      json_pack("[{s:i, s:i, s:f}, {s:i, s:i, s:f}]", "uid", 901, "worker", 0, "messages_in_per_s",
                40.0, "uid", 902, "worker", 0, "messages_in_per_s", 3.0),
      1);
  char *text = printed(look);
  assert_non_null(strstr(text, "12.3M"));
  assert_non_null(strstr(text, "message in "));
  assert_null(strstr(text, "Redis call"));  // none was made
  assert_non_null(strstr(text, "\n901 "));
  assert_true(strstr(text, "\n901 ") < strstr(text, "\n902 "));
  assert_null(strstr(text, "Not all"));
  free(text);
  json_decref(look);
}

static void sessions_that_are_missing_are_told_of(void **state) {
  (void)state;
  json_t *look = look_with_sessions(json_array(), 0);
  char *text = printed(look);
  assert_non_null(strstr(text, "Not all of them"));
  free(text);
  json_decref(look);
}

static void a_text_from_outside_does_not_steer_the_terminal(void **state) {
  (void)state;
  json_t *look =
      look_with_sessions(json_pack("[{s:i, s:s}]", "uid", 901, "address", "\033[2J\nroot"), 1);
  char *text = printed(look);
  assert_null(strchr(text, '\033'));
  assert_non_null(strstr(text, "?[2J?root"));
  free(text);
  json_decref(look);
}

// --- On a screen ----------------------------------------------------------------------------

static void assert_painted(const char *text, size_t columns, size_t lines, const char *expected) {
  char *painted = NULL;
  size_t len = 0;
  FILE *out = open_memstream(&painted, &len);
  assert_non_null(out);
  ctl_look_paint(out, text, "q ends it", columns, lines);
  fclose(out);
  assert_string_equal(painted, expected);
  free(painted);
}

static void what_fits_is_painted_whole(void **state) {
  (void)state;
  assert_painted("one\n\ntwo\n", 80, 24,
                 "\033[H\033[Kone\r\n\033[K\r\n\033[Ktwo\r\n\033[Jq ends it");
}

static void lines_are_cut_to_the_width_and_to_the_height(void **state) {
  (void)state;
  assert_painted("abcdefgh\nabc\nabcd\n", 3, 3, "\033[H\033[Kabc\r\n\033[Kabc\r\n\033[Jq e");
  assert_painted("abc\nabc\n", 80, 1, "\033[H\033[Jq ends it");
}

static void a_full_line_is_cleared_before_it_is_written(void **state) {
  (void)state;
  // Behind it the clearing would take its last character along.
  assert_painted("abcdefghi\n", 9, 24, "\033[H\033[Kabcdefghi\r\n\033[Jq ends it");
}

static void a_character_of_several_bytes_is_not_broken(void **state) {
  (void)state;
  assert_painted("ab\xc3\xa9z\n", 3, 24, "\033[H\033[Kab\r\n\033[Jq e");
  assert_painted("ab\xc3\xa9z\n", 4, 24, "\033[H\033[Kab\xc3\xa9\r\n\033[Jq en");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rates_are_the_growth_by_the_seconds),
      cmocka_unit_test(quantiles_are_those_of_the_time_between),
      cmocka_unit_test(a_gateway_begun_anew_counts_from_zero),
      cmocka_unit_test(answers_of_another_kind_are_compared_without_harm),
      cmocka_unit_test(large_numbers_are_shortened_and_sessions_stand_in_their_order),
      cmocka_unit_test(sessions_that_are_missing_are_told_of),
      cmocka_unit_test(a_text_from_outside_does_not_steer_the_terminal),
      cmocka_unit_test(what_fits_is_painted_whole),
      cmocka_unit_test(lines_are_cut_to_the_width_and_to_the_height),
      cmocka_unit_test(a_full_line_is_cleared_before_it_is_written),
      cmocka_unit_test(a_character_of_several_bytes_is_not_broken),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
