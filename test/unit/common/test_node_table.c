#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/node_table.h"
#include "test/unit/child.h"

enum { CAPACITY = 100, KILLS = 200 };

static int set_up(void **state) {
  int error;
  *state = node_table_create(CAPACITY, &error);
  return *state ? 0 : -1;
}

static int tear_down(void **state) {
  node_table_free(*state);
  return 0;
}

// Nodes that all carry the same number, so that a mixture of two publications shows.
static void fill(struct node *nodes, size_t count, uint32_t number) {
  memset(nodes, 0, count * sizeof *nodes);
  for (size_t i = 0; i < count; i++) {
    nodes[i].weight = number;
    nodes[i].since_ms = number;
    nodes[i].secure = number % 2 == 1;
    snprintf(nodes[i].service, sizeof nodes[i].service, "service-%u", number);
    snprintf(nodes[i].address, sizeof nodes[i].address, "host-%u:%zu", number, i);
  }
}

// 0 when the copy is of one publication, whose size is its number modulo CAPACITY.
static int check(const struct node *nodes, size_t count) {
  for (size_t i = 0; i < count; i++) {
    char address[NODE_ADDRESS_MAX_BYTES + 1];
    snprintf(address, sizeof address, "host-%u:%zu", nodes[0].weight, i);
    if (nodes[i].weight != nodes[0].weight || nodes[i].since_ms != nodes[0].weight ||
        nodes[i].secure != (nodes[0].weight % 2 == 1) || strcmp(nodes[i].address, address) != 0) {
      return 1;
    }
  }
  return count > 0 && count != nodes[0].weight % CAPACITY;
}

static void publish(struct node_table *table, uint32_t number) {
  static struct node nodes[CAPACITY];
  fill(nodes, number % CAPACITY, number);
  (void)!node_table_publish(table, nodes, number % CAPACITY);
}

static void a_reader_has_what_was_published_last(void **state) {
  int error;
  struct node_table *reader = node_table_open(dup(node_table_fd(*state)), &error);
  struct node *nodes;
  size_t count;
  uint64_t version;
  assert_non_null(reader);
  assert_int_equal(node_table_read(reader, &nodes, &count, &version), 0);
  assert_int_equal(count, 0);
  assert_null(nodes);
  publish(*state, 7);
  assert_int_not_equal(node_table_version(reader), version);
  assert_int_equal(node_table_read(reader, &nodes, &count, &version), 0);
  assert_int_equal(count, 7);
  assert_int_equal(version, node_table_version(reader));
  assert_int_equal(check(nodes, count), 0);
  free(nodes);
  node_table_free(reader);
}

static void over_the_capacity_the_first_ones_are_published(void **state) {
  static struct node many[CAPACITY + 1];
  struct node *nodes;
  size_t count;
  uint64_t version;
  fill(many, CAPACITY + 1, 1);
  assert_int_equal(node_table_publish(*state, many, CAPACITY + 1), ERROR_EXHAUSTED);
  assert_int_equal(node_table_read(*state, &nodes, &count, &version), 0);
  assert_int_equal(count, CAPACITY);
  free(nodes);
}

static void a_segment_of_another_kind_is_not_opened(void **state) {
  int error;
  (void)state;
  assert_null(node_table_open(dup(STDERR_FILENO), &error));
}

struct race {
  struct node_table *table;
  atomic_bool done;
  atomic_int torn;
  atomic_int read;
};

static void *read_on(void *context) {
  struct race *race = context;
  while (!atomic_load(&race->done)) {
    struct node *nodes;
    size_t count;
    uint64_t version;
    if (node_table_read(race->table, &nodes, &count, &version) == 0) {
      atomic_fetch_add(&race->torn, check(nodes, count));
      atomic_fetch_add(&race->read, 1);
      free(nodes);
    }
  }
  return NULL;
}

static void readers_never_see_a_mixture(void **state) {
  struct race race = {.table = *state};
  pthread_t readers[2];
  for (int i = 0; i < 2; i++) {
    assert_int_equal(pthread_create(&readers[i], NULL, read_on, &race), 0);
  }
  // Until readers have had their share too, however the machine divides its time.
  for (uint32_t number = 1; number < 3000 || atomic_load(&race.read) < 100; number++) {
    publish(*state, number);
  }
  atomic_store(&race.done, true);
  for (int i = 0; i < 2; i++) {
    pthread_join(readers[i], NULL);
  }
  assert_int_equal(atomic_load(&race.torn), 0);
}

// The writer is killed in the middle again and again; its successor's publication
// is whole, and what is read in between is whole or nothing.
static void a_writer_killed_while_publishing_leaves_nothing_torn(void **state) {
  _Atomic uint32_t *number =
      mmap(NULL, sizeof *number, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int died_in_the_middle = 0;
  for (int i = 0; i < KILLS || died_in_the_middle == 0; i++) {
    struct node *nodes;
    size_t count;
    uint64_t version;
    uint32_t before = atomic_load(number);
    pid_t writer = child_fork();
    if (writer == 0) {
      for (;;) {
        publish(*state, atomic_fetch_add(number, 1) + 1);
      }
    }
    while (atomic_load(number) < before + 3) {
    }
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    int result = node_table_read(*state, &nodes, &count, &version);
    if (result == 0) {
      assert_int_equal(check(nodes, count), 0);
      free(nodes);
    } else {
      assert_int_equal(result, ERROR_BUSY);
      died_in_the_middle++;
    }
    publish(*state, 42);
    assert_int_equal(node_table_read(*state, &nodes, &count, &version), 0);
    assert_int_equal(count, 42);
    free(nodes);
  }
  munmap((void *)number, sizeof *number);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_reader_has_what_was_published_last),
      FACT(over_the_capacity_the_first_ones_are_published),
      FACT(a_segment_of_another_kind_is_not_opened),
      FACT(readers_never_see_a_mixture),
      FACT(a_writer_killed_while_publishing_leaves_nothing_torn),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
