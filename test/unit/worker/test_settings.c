#include "worker/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

static void a_fault_with_quotes_in_it_is_one_field_of_its_line(void **state) {
  (void)state;
  char line[512] = "";
  int ends[2];
  int stderr_fd = dup(STDERR_FILENO);
  assert_int_equal(pipe(ends), 0);
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_INFO, "worker=1");
  dup2(ends[1], STDERR_FILENO);
  settings_report_fault("janus.conf:8: label.zoen: unknown key; did you mean \"label.zone\"?",
                        NULL);
  dup2(stderr_fd, STDERR_FILENO);
  assert_true(read(ends[0], line, sizeof line - 1) > 0);
  assert_non_null(strstr(line,
                         " event=settings_fault text=\"janus.conf:8: label.zoen: unknown key; "
                         "did you mean \\\"label.zone\\\"?\"\n"));
  close(ends[0]);
  close(ends[1]);
  close(stderr_fd);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_fault_with_quotes_in_it_is_one_field_of_its_line),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
