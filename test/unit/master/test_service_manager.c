#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/service_manager.h"

// Stands in for systemd: a real datagram socket in a folder of its own.
struct fixture {
  struct event_base *base;
  char folder[64];
  char path[96];
  int socket;
  struct service_manager *manager;
};

static void bind_socket(struct fixture *fixture, const char *name, size_t len) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, name, len);
  fixture->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(fixture->socket, (struct sockaddr *)&address,
                        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                   0);
}

static int set_up(void **state) {
  struct fixture *fixture = calloc(1, sizeof *fixture);
  fixture->base = event_base_new();
  strcpy(fixture->folder, "/tmp/janus-test-XXXXXX");
  assert_non_null(mkdtemp(fixture->folder));
  snprintf(fixture->path, sizeof fixture->path, "%s/notify", fixture->folder);
  bind_socket(fixture, fixture->path, strlen(fixture->path));
  setenv("NOTIFY_SOCKET", fixture->path, 1);
  *state = fixture;
  return 0;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  service_manager_free(fixture->manager);
  if (fixture->socket >= 0) {
    close(fixture->socket);
  }
  unlink(fixture->path);
  rmdir(fixture->folder);
  event_base_free(fixture->base);
  free(fixture);
  unsetenv("NOTIFY_SOCKET");
  unsetenv("WATCHDOG_USEC");
  unsetenv("WATCHDOG_PID");
  return 0;
}

// What has come, or "" when there is nothing.
static const char *told(const struct fixture *fixture) {
  static char message[1024];
  ssize_t len = recv(fixture->socket, message, sizeof message - 1, 0);
  assert_true(len >= 0 || errno == EAGAIN);
  message[len > 0 ? len : 0] = '\0';
  return message;
}

static void ready_reload_and_stop_are_told(void **state) {
  struct fixture *fixture = *state;
  fixture->manager = service_manager_new(fixture->base);
  assert_non_null(fixture->manager);
  service_manager_ready(fixture->manager);
  assert_string_equal(told(fixture), "READY=1");

  int64_t before = clock_monotonic_us();
  service_manager_reloading(fixture->manager);
  long long at = 0;
  assert_int_equal(sscanf(told(fixture), "RELOADING=1\nMONOTONIC_USEC=%lld", &at), 1);
  assert_in_range(at, before, clock_monotonic_us());
  service_manager_reloaded(fixture->manager);
  assert_string_equal(told(fixture), "READY=1");

  service_manager_stopping(fixture->manager);
  assert_string_equal(told(fixture), "STOPPING=1");
  service_manager_stopping(fixture->manager);
  service_manager_ready(fixture->manager);
  service_manager_reloading(fixture->manager);
  service_manager_reloaded(fixture->manager);
  assert_string_equal(told(fixture), "");
}

static void a_reload_during_the_start_does_not_pass_for_ready(void **state) {
  struct fixture *fixture = *state;
  fixture->manager = service_manager_new(fixture->base);
  service_manager_reloading(fixture->manager);
  service_manager_reloaded(fixture->manager);
  assert_string_equal(told(fixture), "");
}

static void the_status_is_told_when_it_changes(void **state) {
  struct fixture *fixture = *state;
  fixture->manager = service_manager_new(fixture->base);
  service_manager_status(fixture->manager, "%d sessions", 1);
  assert_string_equal(told(fixture), "STATUS=1 sessions");
  service_manager_status(fixture->manager, "%d sessions", 1);
  assert_string_equal(told(fixture), "");
  service_manager_status(fixture->manager, "%d sessions", 2);
  assert_string_equal(told(fixture), "STATUS=2 sessions");
}

static void an_abstract_socket_is_reached(void **state) {
  struct fixture *fixture = *state;
  char name[64];
  int len = snprintf(name, sizeof name, "@janus-test-%d", (int)getpid());
  setenv("NOTIFY_SOCKET", name, 1);
  name[0] = '\0';
  close(fixture->socket);
  bind_socket(fixture, name, (size_t)len);
  fixture->manager = service_manager_new(fixture->base);
  service_manager_ready(fixture->manager);
  assert_string_equal(told(fixture), "READY=1");
}

static void the_watchdog_is_fed_twice_in_its_time(void **state) {
  struct fixture *fixture = *state;
  char pid[16];
  snprintf(pid, sizeof pid, "%d", (int)getpid());
  setenv("WATCHDOG_PID", pid, 1);
  setenv("WATCHDOG_USEC", "200000", 1);
  fixture->manager = service_manager_new(fixture->base);
  int64_t before = clock_monotonic_us();
  for (int i = 1; i <= 3; i++) {
    assert_int_equal(event_base_loop(fixture->base, EVLOOP_ONCE), 0);
    assert_string_equal(told(fixture), "WATCHDOG=1");
    // The loop goes by a clock of some milliseconds.
    assert_true(clock_monotonic_us() - before >= i * 100000 - 20000);
  }
}

static void the_watchdog_of_another_process_is_left_alone(void **state) {
  struct fixture *fixture = *state;
  char pid[16];
  snprintf(pid, sizeof pid, "%d", (int)getppid());
  setenv("WATCHDOG_PID", pid, 1);
  setenv("WATCHDOG_USEC", "2000", 1);
  fixture->manager = service_manager_new(fixture->base);
  assert_non_null(fixture->manager);
  // 1: there is no event to wait for.
  assert_int_equal(event_base_loop(fixture->base, EVLOOP_ONCE), 1);
  assert_string_equal(told(fixture), "");
}

static void children_do_not_inherit_it_and_a_successor_does(void **state) {
  struct fixture *fixture = *state;
  setenv("WATCHDOG_USEC", "30000000", 1);
  fixture->manager = service_manager_new(fixture->base);
  assert_null(getenv("NOTIFY_SOCKET"));
  assert_null(getenv("WATCHDOG_USEC"));
  service_manager_restore_environment(fixture->manager);
  assert_string_equal(getenv("NOTIFY_SOCKET"), fixture->path);
  assert_string_equal(getenv("WATCHDOG_USEC"), "30000000");
  assert_null(getenv("WATCHDOG_PID"));
}

static void a_service_manager_that_is_gone_or_full_does_no_harm(void **state) {
  struct fixture *fixture = *state;
  fixture->manager = service_manager_new(fixture->base);
  for (int i = 0; i < 2000; i++) {  // more than the socket holds: nobody reads
    service_manager_status(fixture->manager, "%d", i);
  }
  close(fixture->socket);
  fixture->socket = -1;
  service_manager_status(fixture->manager, "lost");
  unlink(fixture->path);
  bind_socket(fixture, fixture->path, strlen(fixture->path));
  service_manager_status(fixture->manager, "lost");  // not told yet, so it is now
  assert_string_equal(told(fixture), "STATUS=lost");
}

static void without_one_and_with_a_senseless_address_there_is_none(void **state) {
  struct fixture *fixture = *state;
  unsetenv("NOTIFY_SOCKET");
  assert_null(service_manager_new(fixture->base));
  setenv("NOTIFY_SOCKET", "relative/path", 1);
  assert_null(service_manager_new(fixture->base));
  char too_long[200];
  memset(too_long, 'a', sizeof too_long - 1);
  too_long[0] = '/';
  too_long[sizeof too_long - 1] = '\0';
  setenv("NOTIFY_SOCKET", too_long, 1);
  assert_null(service_manager_new(fixture->base));
  service_manager_ready(NULL);
  service_manager_reloading(NULL);
  service_manager_reloaded(NULL);
  service_manager_stopping(NULL);
  service_manager_status(NULL, "nobody");
  service_manager_restore_environment(NULL);
  assert_string_equal(told(fixture), "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_ERROR, "test");
  const struct CMUnitTest tests[] = {
      TEST(ready_reload_and_stop_are_told),
      TEST(a_reload_during_the_start_does_not_pass_for_ready),
      TEST(the_status_is_told_when_it_changes),
      TEST(an_abstract_socket_is_reached),
      TEST(the_watchdog_is_fed_twice_in_its_time),
      TEST(the_watchdog_of_another_process_is_left_alone),
      TEST(children_do_not_inherit_it_and_a_successor_does),
      TEST(a_service_manager_that_is_gone_or_full_does_no_harm),
      TEST(without_one_and_with_a_senseless_address_there_is_none),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
