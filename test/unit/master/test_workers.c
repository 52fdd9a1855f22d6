#include "master/workers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/handover.h"
#include "common/loop.h"
#include "test/unit/await.h"

// The workers are this program too: each says that it is ready once it is let, by a file named as
// its pid, and does nothing else until it is killed.

#define FOLDER_VARIABLE "JANUS_TEST_WORKERS"

struct house {
  struct event_base *base;
  char folder[64];
  struct config config;
  struct secrets secrets;
  struct workers *workers;
  int dead;                 // how many have died
  int replaced, successor;  // of whom was told last, and by whom
};

// --- A worker --------------------------------------------------------------------------

static bool may_come(void) {
  char path[128];
  snprintf(path, sizeof path, "%s/%d", getenv(FOLDER_VARIABLE), (int)getpid());
  return access(path, F_OK) == 0;
}

static void ignore_message(enum channel_type type, const void *content, void *owner) {
  (void)type;
  (void)content;
  (void)owner;
}

static void leave(const char *why, void *owner) {
  (void)why;
  (void)owner;
  _exit(0);  // the master is gone
}

static int be_worker(void) {
  static const struct channel_events events = {ignore_message, leave};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct event_base *base = event_base_new();
  struct channel *channel = channel_new(base, HANDOVER_CHANNEL, &events, NULL);
  while (!may_come()) {
    event_base_loop(base, EVLOOP_NONBLOCK);
    usleep(1000);
  }
  if (channel_send(channel, CHANNEL_READY, NULL) != 0) {
    return 1;
  }
  event_base_dispatch(base);
  return 0;
}

// --- The master ------------------------------------------------------------------------

static void on_message(int index, enum channel_type type, const void *content, void *owner) {
  (void)index;
  (void)type;
  (void)content;
  (void)owner;
}

static void on_dead(int index, void *owner) {
  struct house *house = owner;
  (void)index;
  house->dead++;
}

static void ignore(void *owner) { (void)owner; }

static void on_replaced(int index, int successor, void *owner) {
  struct house *house = owner;
  house->replaced = index;
  house->successor = successor;
}

static struct worker_info info_of(const struct house *house, int index) {
  struct worker_info info;
  workers_info(house->workers, index, &info);
  return info;
}

static void let_come(const struct house *house, int index) {
  char path[128];
  snprintf(path, sizeof path, "%s/%d", house->folder, (int)info_of(house, index).pid);
  int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  close(fd);
}

static void await_state(struct house *house, int index, enum worker_state state) {
  AWAIT(house, info_of(house, index).state == state);
}

static int set_up(void **state) {
  static const struct workers_events events = {on_message, on_dead, ignore, on_replaced, ignore};
  struct house *house = calloc(1, sizeof *house);
  struct config *config = &house->config;
  strcpy(house->folder, "/tmp/janus-workers-XXXXXX");
  assert_non_null(mkdtemp(house->folder));
  setenv(FOLDER_VARIABLE, house->folder, 1);
  house->base = event_base_new();
  config->worker.count = 1;
  config->worker.restart_backoff_ms = 1;
  config->worker.restart_backoff_max_ms = 1;
  config->worker.stop_timeout_ms = 1000;
  config->drain.generations = 4;
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const struct workers_options options = {
      .program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC),
      .config = config,
      .secrets = &house->secrets,
      .route_table_fd = nothing,
      .node_table_fd = nothing,
      .tls_fd = nothing,
      .kcp_owners_fd = nothing,
  };
  house->workers = workers_new(house->base, &options, &events, house);
  assert_non_null(house->workers);
  let_come(house, 0);
  await_state(house, 0, WORKER_RUNNING);
  *state = house;
  return 0;
}

static int tear_down(void **state) {
  struct house *house = *state;
  char command[128];
  workers_kill(house->workers);
  workers_free(house->workers);
  event_base_free(house->base);
  snprintf(command, sizeof command, "rm -r %s", house->folder);
  free(house);
  return system(command);
}

// --- The facts -------------------------------------------------------------------------

static void a_successor_takes_the_place_when_it_is_ready(void **state) {
  struct house *house = *state;
  const struct channel_drain drain = {.timeout_ms = 600000};
  assert_int_equal(workers_replace(house->workers, 0, &drain), 0);
  assert_int_equal(info_of(house, 0).state, WORKER_RUNNING);
  let_come(house, 1);
  await_state(house, 0, WORKER_DRAINING);
  assert_int_equal(info_of(house, 0).place, WORKER_NO_PLACE);
  assert_int_equal(info_of(house, 1).state, WORKER_RUNNING);
  assert_int_equal(house->replaced, 0);
  assert_int_equal(house->successor, 1);
}

// The one that was to drain is dead, and its number is nobody's: the one that is started next
// must not get it, and be taken for the one that was to drain.
static void a_generation_that_begins_while_a_dead_workers_successor_starts_replaces_it(
    void **state) {
  struct house *house = *state;
  const struct channel_drain drain = {.timeout_ms = 600000};
  assert_int_equal(workers_replace(house->workers, 0, &drain), 0);
  kill(info_of(house, 0).pid, SIGKILL);
  AWAIT(house, house->dead == 1);
  assert_int_equal(workers_renew(house->workers, &drain), 0);
  assert_int_equal(info_of(house, 0).state, WORKER_NONE);
  assert_int_equal(info_of(house, 2).state, WORKER_STARTING);
  let_come(house, 1);
  await_state(house, 1, WORKER_RUNNING);
  let_come(house, 2);
  await_state(house, 1, WORKER_DRAINING);
  assert_int_equal(info_of(house, 2).state, WORKER_RUNNING);
  assert_int_equal(info_of(house, 2).place, 0);
  assert_int_equal(info_of(house, 2).generation, 2);
  assert_int_equal(workers_running(house->workers), 1);
}

int main(int argc, char **argv) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_successor_takes_the_place_when_it_is_ready),
      FACT(a_generation_that_begins_while_a_dead_workers_successor_starts_replaces_it),
  };
  if (argc > 1 && strcmp(argv[0], "janus-worker") == 0) {
    return be_worker();
  }
  return cmocka_run_group_tests(tests, NULL, NULL);
}
