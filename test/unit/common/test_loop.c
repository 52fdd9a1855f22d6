#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <event2/bufferevent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/loop.h"

static void on_read(struct bufferevent *buffer, void *context) {
  (void)buffer;
  ++*(int *)context;
}

static void on_readable(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  event_base_loopbreak(context);
}

static void a_bufferevent_with_a_callback_due_is_freed_with_its_loop(void **state) {
  struct event_base *base = event_base_new();
  int pair[2];
  int calls = 0;
  (void)state;
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  evutil_make_socket_nonblocking(pair[0]);
  struct bufferevent *buffer =
      bufferevent_socket_new(base, pair[0], BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
  bufferevent_setcb(buffer, on_read, NULL, NULL, &calls);
  // This one sees the byte first, and stops the loop before the other has come to it.
  struct event *stopper = event_new(base, pair[0], EV_READ, on_readable, base);
  event_add(stopper, NULL);
  bufferevent_enable(buffer, EV_READ);
  assert_int_equal(write(pair[1], "x", 1), 1);
  event_base_dispatch(base);
  event_free(stopper);
  bufferevent_free(buffer);
  buffer = NULL;
  loop_free(base);
  assert_int_equal(calls, 0);
  assert_int_equal(fcntl(pair[0], F_GETFD), -1);  // it went with the bufferevent
  close(pair[1]);
}

static void no_loop_is_no_fault(void **state) {
  (void)state;
  loop_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_bufferevent_with_a_callback_due_is_freed_with_its_loop),
      cmocka_unit_test(no_loop_is_no_fault),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
