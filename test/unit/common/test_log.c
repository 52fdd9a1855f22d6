#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LOG_MODULE LOG_MODULE_SESSION

// Standard error goes into a file while a test logs; captured is what came.
static char captured[1 << 20];
static int capture_fd, stderr_fd;

static void capture_start(void) {
  char path[] = "/tmp/janus-test-log-XXXXXX";
  capture_fd = mkstemp(path);
  assert_true(capture_fd >= 0);
  unlink(path);
  assert_int_equal(fcntl(capture_fd, F_SETFL, O_APPEND), 0);
  stderr_fd = dup(STDERR_FILENO);
  dup2(capture_fd, STDERR_FILENO);
}

static void capture_stop(void) {
  dup2(stderr_fd, STDERR_FILENO);
  close(stderr_fd);
  ssize_t len = pread(capture_fd, captured, sizeof captured - 1, 0);
  assert_true(len >= 0);
  captured[len] = '\0';
  close(capture_fd);
}

static json_t *captured_json(void) {
  json_error_t error;
  json_t *object = json_loads(captured, JSON_REJECT_DUPLICATES, &error);
  if (object == NULL) {
    fail_msg("%s in: %s", error.text, captured);
  }
  return object;
}

static void a_text_line_has_time_level_process_event_and_fields(void **state) {
  (void)state;
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_INFO, "worker=1");
  capture_start();
  log_info("session_open", "uid=%d color=%s", 10001, "blue");
  capture_stop();
  assert_memory_equal(captured, "time=", 5);
  assert_int_equal(captured[9], '-');
  assert_int_equal(captured[15], 'T');
  assert_int_equal(captured[24], '.');
  assert_int_equal(captured[28], 'Z');
  assert_string_equal(captured + 29,
                      " level=info process=worker worker=1 module=session event=session_open "
                      "uid=10001 color=blue\n");
}

static void a_line_below_the_level_is_not_written(void **state) {
  (void)state;
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_WARN, "master");
  capture_start();
  log_info("quiet", "a=1");
  log_warn("loud", "a=1");
  capture_stop();
  assert_null(strstr(captured, "quiet"));
  assert_non_null(strstr(captured, " level=warn process=master module=session event=loud a=1\n"));
  assert_false(log_enabled(LOG_LEVEL_INFO));
  assert_true(log_enabled(LOG_LEVEL_ERROR));
}

static void a_newline_in_a_value_does_not_make_a_second_line(void **state) {
  (void)state;
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_INFO, "master");
  capture_start();
  log_info("odd", "text=%s", "one\ntwo\x1b[0m");
  capture_stop();
  assert_ptr_equal(strchr(captured, '\n'), captured + strlen(captured) - 1);
  assert_null(strchr(captured, 0x1b));
}

static void errno_survives_and_can_be_printed(void **state) {
  (void)state;
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_INFO, "master");
  capture_start();
  errno = ENOENT;
  log_error("failed", "reason=\"%m\"");
  assert_int_equal(errno, ENOENT);
  capture_stop();
  assert_non_null(strstr(captured, "reason=\"No such file or directory\""));
}

static void a_json_line_has_the_same_fields(void **state) {
  (void)state;
  char quoted[64];
  log_setup(LOG_TYPE_JSON, LOG_LEVEL_DEBUG, "worker=1");
  capture_start();
  log_debug("session_close", "uid=%d empty= minus=-5 text=%s zero=007 color=blue", 10001,
            log_quote(quoted, sizeof quoted, "a \"b\" \\ \n\xe9", 10));
  capture_stop();
  json_t *object = captured_json();
  assert_int_equal(json_integer_value(json_object_get(object, "worker")), 1);
  assert_string_equal(json_string_value(json_object_get(object, "process")), "worker");
  assert_string_equal(json_string_value(json_object_get(object, "module")), "session");
  assert_string_equal(json_string_value(json_object_get(object, "level")), "debug");
  assert_string_equal(json_string_value(json_object_get(object, "event")), "session_close");
  assert_int_equal(json_integer_value(json_object_get(object, "uid")), 10001);
  assert_int_equal(json_integer_value(json_object_get(object, "minus")), -5);
  assert_string_equal(json_string_value(json_object_get(object, "empty")), "");
  assert_string_equal(json_string_value(json_object_get(object, "text")), "a \"b\" \\ \n\xc3\xa9");
  assert_string_equal(json_string_value(json_object_get(object, "zero")), "007");
  assert_string_equal(json_string_value(json_object_get(object, "color")), "blue");
  assert_int_equal(strlen(json_string_value(json_object_get(object, "time"))), 24);
  json_decref(object);
}

static void a_json_line_that_is_too_long_is_cut_at_a_field(void **state) {
  (void)state;
  char big[1500];
  memset(big, 0x01, sizeof big);
  memset(big, 0xff, sizeof big - 1);  // six characters each in JSON
  big[sizeof big - 1] = '\0';
  log_setup(LOG_TYPE_JSON, LOG_LEVEL_INFO, "master");
  capture_start();
  log_info("long", "first=1 big=%s last=2", big);
  capture_stop();
  json_t *object = captured_json();
  assert_string_equal(json_string_value(json_object_get(object, "process")), "master");
  assert_int_equal(json_integer_value(json_object_get(object, "first")), 1);
  assert_null(json_object_get(object, "big"));
  assert_true(json_is_true(json_object_get(object, "cut")));
  json_decref(object);
}

static void a_quoted_value_cut_by_the_bound_is_still_json(void **state) {
  (void)state;
  char big[3000];
  memset(big, 'x', sizeof big - 1);
  big[sizeof big - 1] = '\0';
  log_setup(LOG_TYPE_JSON, LOG_LEVEL_INFO, "master");
  capture_start();
  log_info("long", "big=\"%s\"", big);
  capture_stop();
  json_t *object = captured_json();
  assert_true(strlen(json_string_value(json_object_get(object, "big"))) > 1000);
  json_decref(object);
}

static void *write_lines(void *argument) {
  for (int i = 0; i < 500; i++) {
    log_info("line", "thread=%d i=%d end=1", *(int *)argument, i);
  }
  return NULL;
}

static void lines_of_many_threads_do_not_mix(void **state) {
  (void)state;
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_INFO, "master");
  capture_start();
  pthread_t threads[4];
  int numbers[4] = {0, 1, 2, 3};
  for (int i = 0; i < 4; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, write_lines, &numbers[i]), 0);
  }
  for (int i = 0; i < 4; i++) {
    pthread_join(threads[i], NULL);
  }
  capture_stop();
  int lines = 0;
  for (char *line = strtok(captured, "\n"); line != NULL; line = strtok(NULL, "\n")) {
    int thread, i, used = 0;
    assert_int_equal(
        sscanf(line + 29,
               " level=info process=master module=session event=line thread=%d i=%d end=1%n",
               &thread, &i, &used),
        2);
    assert_int_equal((int)strlen(line), 29 + used);
    lines++;
  }
  assert_int_equal(lines, 2000);
}

static void quoting_escapes_all_but_printable_ascii(void **state) {
  (void)state;
  char buffer[64];
  assert_string_equal(log_quote(buffer, sizeof buffer, "a\"\\\n\0\xff", 6),
                      "\"a\\\"\\\\\\x0a\\x00\\xff\"");
  assert_string_equal(log_quote(buffer, sizeof buffer, "", 0), "\"\"");
}

static void quoting_cuts_to_fit_without_splitting_an_escape(void **state) {
  (void)state;
  char buffer[8];
  assert_string_equal(log_quote(buffer, sizeof buffer, "abcdefgh", 8), "\"abcde\"");
  assert_string_equal(log_quote(buffer, sizeof buffer, "abc\nxyz", 7), "\"abc\"");
  assert_string_equal(log_quote(buffer, 3, "abc", 3), "\"\"");
  assert_string_equal(log_quote(buffer, 2, "abc", 3), "");
}

static void the_rate_limit_counts_what_it_leaves_out(void **state) {
  (void)state;
  struct log_limit limit = {0};
  uint64_t suppressed = 99;
  int allowed = 0;
  for (int i = 0; i < 100; i++) {
    if (log_limit_allow(&limit, 1000, &suppressed)) {
      assert_int_equal(suppressed, 0);
      allowed++;
    }
  }
  assert_int_equal(allowed, 20);
  assert_false(log_limit_allow(&limit, 1050, &suppressed));
  assert_true(log_limit_allow(&limit, 1100, &suppressed));
  assert_int_equal(suppressed, 81);
  assert_true(log_limit_allow(&limit, 100000, &suppressed));
  assert_int_equal(suppressed, 0);
}

static void a_module_has_a_level_of_its_own(void **state) {
  (void)state;
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_WARN, "master");
  log_set_level(LOG_MODULE_SESSION, LOG_LEVEL_DEBUG);
  capture_start();
  log_debug("here", "a=1");
  log_line(LOG_MODULE_TUNNEL, LOG_LEVEL_ERROR, "there", "a=1");
  capture_stop();
  assert_non_null(strstr(captured, "module=session event=here"));
  assert_non_null(strstr(captured, "module=tunnel event=there"));
  assert_int_equal(log_level_of(LOG_MODULE_TUNNEL), LOG_LEVEL_WARN);
}

static void what_is_held_back_is_told_when_no_further_line_comes(void **state) {
  (void)state;
  static struct log_limit limit = {.kind = "flood"};
  uint64_t suppressed;
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_INFO, "master");
  for (int i = 0; i < 25; i++) {
    (void)!log_limit_allow(&limit, 1000, &suppressed);
  }
  capture_start();
  log_limits_tick(1999);
  capture_stop();
  assert_string_equal(captured, "");
  capture_start();
  log_limits_tick(2000);
  log_limits_tick(9000);
  capture_stop();
  const char *line = strstr(captured, "event=log_suppressed kind=flood count=5\n");
  assert_non_null(line);
  assert_null(strstr(line + 20, "log_suppressed"));
  assert_true(log_limit_allow(&limit, 9000, &suppressed));
  assert_int_equal(suppressed, 0);
}

static void level_names_go_both_ways(void **state) {
  (void)state;
  enum log_level level;
  for (int i = LOG_LEVEL_DEBUG; i <= LOG_LEVEL_ERROR; i++) {
    assert_true(log_level_from_name(log_level_name((enum log_level)i), &level));
    assert_int_equal((int)level, i);
  }
  assert_false(log_level_from_name("loud", &level));
  enum log_module module;
  for (int i = 0; i < LOG_MODULE_COUNT; i++) {
    assert_true(log_module_from_name(log_module_name((enum log_module)i), &module));
    assert_int_equal((int)module, i);
  }
  assert_false(log_module_from_name("kitchen", &module));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_text_line_has_time_level_process_event_and_fields),
      cmocka_unit_test(a_line_below_the_level_is_not_written),
      cmocka_unit_test(a_newline_in_a_value_does_not_make_a_second_line),
      cmocka_unit_test(errno_survives_and_can_be_printed),
      cmocka_unit_test(a_json_line_has_the_same_fields),
      cmocka_unit_test(a_json_line_that_is_too_long_is_cut_at_a_field),
      cmocka_unit_test(a_quoted_value_cut_by_the_bound_is_still_json),
      cmocka_unit_test(lines_of_many_threads_do_not_mix),
      cmocka_unit_test(quoting_escapes_all_but_printable_ascii),
      cmocka_unit_test(quoting_cuts_to_fit_without_splitting_an_escape),
      cmocka_unit_test(the_rate_limit_counts_what_it_leaves_out),
      cmocka_unit_test(a_module_has_a_level_of_its_own),
      cmocka_unit_test(what_is_held_back_is_told_when_no_further_line_comes),
      cmocka_unit_test(level_names_go_both_ways),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
