#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/grpc_bridge.h"
#include "common/log.h"

// A call to a port where nobody listens: its status is what finishes.
struct call {
  struct grpc_operation operation;
  grpc_call *call;
  grpc_metadata_array trailing;
  grpc_status_code status;
  grpc_slice detail;
  struct fixture *fixture;
  bool done;
};

struct fixture {
  struct event_base *base;
  struct grpc_bridge *bridge;
  grpc_channel *channel;
  pthread_t loop_thread;
  int finished;
  int wanted;
};

static int set_up(void **state) {
  static struct fixture fixture;
  int error;
  fixture = (struct fixture){.base = event_base_new(), .loop_thread = pthread_self()};
  fixture.bridge = grpc_bridge_new(fixture.base, &error);
  assert_non_null(fixture.bridge);
  grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
  fixture.channel = grpc_channel_create("127.0.0.1:1", credentials, NULL);
  grpc_channel_credentials_release(credentials);
  *state = &fixture;
  return 0;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  if (fixture->bridge) {
    grpc_channel_destroy(fixture->channel);
    grpc_bridge_free(fixture->bridge);
  }
  event_base_free(fixture->base);
  return 0;
}

static void on_done(struct grpc_operation *operation, bool ok) {
  struct call *call = (struct call *)operation;
  assert_true(ok);
  assert_false(call->done);
  assert_true(pthread_equal(pthread_self(), call->fixture->loop_thread));
  call->done = true;
  if (++call->fixture->finished == call->fixture->wanted) {
    event_base_loopbreak(call->fixture->base);
  }
}

static void start(struct fixture *fixture, struct call *call) {
  grpc_slice method = grpc_slice_from_static_string("/test.Service/Call");
  *call = (struct call){.operation = {.on_done = on_done}, .fixture = fixture};
  call->detail = grpc_empty_slice();
  grpc_metadata_array_init(&call->trailing);
  call->call =
      grpc_channel_create_call(fixture->channel, NULL, 0, grpc_bridge_queue(fixture->bridge),
                               method, NULL, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
  const grpc_op ops[] = {
      {.op = GRPC_OP_SEND_INITIAL_METADATA},
      {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
       .data.recv_status_on_client = {.trailing_metadata = &call->trailing,
                                      .status = &call->status,
                                      .status_details = &call->detail}},
  };
  assert_int_equal(grpc_bridge_start(call->call, ops, 2, &call->operation), GRPC_CALL_OK);
}

static void finish(struct call *call) {
  grpc_call_unref(call->call);
  grpc_metadata_array_destroy(&call->trailing);
  grpc_slice_unref(call->detail);
}

static void an_operation_finishes_on_the_loops_thread(void **state) {
  struct fixture *fixture = *state;
  struct call call;
  fixture->wanted = 1;
  start(fixture, &call);
  event_base_dispatch(fixture->base);
  assert_true(call.done);
  assert_int_equal(call.status, GRPC_STATUS_UNAVAILABLE);
  finish(&call);
}

static void each_of_thousands_finishes_once(void **state) {
  enum { CALLS = 5000 };
  struct fixture *fixture = *state;
  struct call *calls = calloc(CALLS, sizeof *calls);
  fixture->wanted = CALLS;
  for (int i = 0; i < CALLS; i++) {
    start(fixture, &calls[i]);
  }
  event_base_dispatch(fixture->base);
  assert_int_equal(fixture->finished, CALLS);
  for (int i = 0; i < CALLS; i++) {
    assert_true(calls[i].done);
    finish(&calls[i]);
  }
  free(calls);
}

static void freeing_the_bridge_finishes_what_is_under_way(void **state) {
  enum { CALLS = 100 };
  struct fixture *fixture = *state;
  static struct call calls[CALLS];
  for (int i = 0; i < CALLS; i++) {
    start(fixture, &calls[i]);
    grpc_call_cancel(calls[i].call, NULL);
  }
  grpc_init();
  grpc_bridge_free(fixture->bridge);
  fixture->bridge = NULL;
  assert_int_equal(fixture->finished, CALLS);
  for (int i = 0; i < CALLS; i++) {
    finish(&calls[i]);
  }
  grpc_channel_destroy(fixture->channel);
  grpc_shutdown();
}

static void a_bridge_that_keeps_step_finishes_all_too(void **state) {
  struct fixture *fixture = *state;
  grpc_bridge_keep_step(fixture->bridge);
  each_of_thousands_finishes_once(state);
}

static void a_bridge_that_keeps_step_may_be_freed_amid_all(void **state) {
  struct fixture *fixture = *state;
  grpc_bridge_keep_step(fixture->bridge);
  freeing_the_bridge_finishes_what_is_under_way(state);
}

static void what_grpc_says_is_of_its_module(void **state) {
  char line[1024] = "";
  int ends[2];
  int stderr_fd = dup(STDERR_FILENO);
  (void)state;
  assert_int_equal(pipe(ends), 0);
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_INFO, "worker=1");
  dup2(ends[1], STDERR_FILENO);
  gpr_log(GPR_ERROR, "a handshake failed");
  dup2(stderr_fd, STDERR_FILENO);
  assert_true(read(ends[0], line, sizeof line - 1) > 0);
  assert_non_null(strstr(line, " module=grpc event=grpc "));
  assert_non_null(strstr(line, "a handshake failed"));
  close(ends[0]);
  close(ends[1]);
  close(stderr_fd);
}

static void a_bridge_without_operations_is_freed(void **state) {
  (void)state;
  grpc_bridge_free(NULL);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(an_operation_finishes_on_the_loops_thread),
      FACT(each_of_thousands_finishes_once),
      FACT(freeing_the_bridge_finishes_what_is_under_way),
      FACT(a_bridge_that_keeps_step_finishes_all_too),
      FACT(a_bridge_that_keeps_step_may_be_freed_amid_all),
      FACT(what_grpc_says_is_of_its_module),
      FACT(a_bridge_without_operations_is_freed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
