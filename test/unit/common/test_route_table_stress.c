#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/route_table.h"
#include "test/unit/child.h"

// A small table, so that writer and readers meet in the same buckets all the time;
// addresses come and go, so that their places are used anew.
enum { KEYS = 64, KILLS = 300, READERS = 2 };
static const int64_t now_ms = 1750000000000;
static const int64_t later_ms = 1750000600000;

// At least so many updates beside readers. ThreadSanitizer finds what nothing orders in far fewer,
// and takes a minute and a half for all.
#ifdef __SANITIZE_THREAD__
enum { UPDATES = 20000 };
#else
enum { UPDATES = 100000 };
#endif

// What all processes of the test share.
struct board {
  _Atomic uint64_t generation;  // of the writers, all together
  _Atomic uint64_t read;        // answers that were checked
  _Atomic uint64_t wrong;       // answers that nobody put for their key
  atomic_bool done;
};

static struct route_table *new_table(void) {
  const struct route_table_options options = {.capacity = {KEYS, KEYS, KEYS}};
  int error;
  struct route_table *table = route_table_create(&options, &error);
  assert_non_null(table);
  return table;
}

static struct board *new_board(void) {
  struct board *board =
      mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_ptr_not_equal(board, MAP_FAILED);
  return board;
}

static struct route_key key_of(int64_t oid) {
  return (struct route_key){
      .tier = ROUTE_OBJECT, .service = "roma.room.service", .color = "blue", .oid = oid};
}

// The address tells the key it was put for, in a length that varies.
static void write_on(struct route_table *table, struct board *board) {
  uint64_t generation = atomic_fetch_add(&board->generation, 1);
  int64_t oid = (int64_t)(generation * 7 % KEYS);
  struct route_key key = key_of(oid);
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];
  int filler = (int)(generation % 80);
  snprintf(address, sizeof address, "room-%lld-%llu-%.*s-%lld", (long long)oid,
           (unsigned long long)generation, filler,
           "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
           (long long)oid);
  if (generation % 5 == 4) {
    (void)!route_table_remove(table, &key);
  } else {
    (void)!route_table_put(table, &key, address, later_ms, now_ms);
  }
}

static void read_one(struct route_table *table, struct board *board, int64_t oid) {
  struct route_key key = key_of(oid);
  struct route route;
  int result = route_table_lookup(table, &key, now_ms, &route);
  if (result == 0) {
    long long front;
    long long back;
    unsigned long long generation;
    char filler[100];
    int filler_len = 0;
    // With a filler of no length the two dashes stand side by side.
    bool sound = (sscanf(route.address, "room-%lld-%llu-%99[x]-%lld", &front, &generation, filler,
                         &back) == 4 &&
                  (filler_len = (int)strlen(filler)) == (int)(generation % 80)) ||
                 (sscanf(route.address, "room-%lld-%llu--%lld", &front, &generation, &back) == 3 &&
                  generation % 80 == 0);
    if (!sound || front != oid || back != oid || (int64_t)(generation * 7 % KEYS) != oid) {
      fprintf(stderr, "key %lld: %s (%d)\n", (long long)oid, route.address, filler_len);
      atomic_fetch_add(&board->wrong, 1);
    }
    atomic_fetch_add(&board->read, 1);
  }
}

static void read_until_done(struct route_table *table, struct board *board) {
  for (int64_t oid = 0; !atomic_load(&board->done); oid = (oid + 1) % KEYS) {
    read_one(table, board, oid);
  }
}

static pid_t start_reader(struct route_table *table, struct board *board) {
  pid_t pid = child_fork();
  if (pid == 0) {
    int error;
    struct route_table *own = route_table_open(dup(route_table_fd(table)), &error);
    if (own) {
      read_until_done(own, board);
    }
    _exit(own ? 0 : 1);
  }
  return pid;
}

static pid_t start_writer(struct route_table *table, struct board *board) {
  pid_t pid = child_fork();
  if (pid == 0) {
    route_table_repair(table);
    for (;;) {
      write_on(table, board);
    }
  }
  return pid;
}

static void a_writer_killed_in_the_middle_again_and_again_misleads_no_reader(void **state) {
  struct route_table *table = new_table();
  struct board *board = new_board();
  pid_t readers[READERS];
  (void)state;
  for (int i = 0; i < READERS; i++) {
    readers[i] = start_reader(table, board);
  }
  int kills = 0;
  // Until readers have had their share. Whether one of them meets an update that is never
  // finished is up to chance, so what becomes of such a bucket is shown in test_route_table.c.
  while (kills < KILLS || atomic_load(&board->read) < 10000) {
    uint64_t before = atomic_load(&board->generation);
    pid_t writer = start_writer(table, board);
    while (atomic_load(&board->generation) < before + 20) {
      sched_yield();
    }
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    kills++;
  }
  atomic_store(&board->done, true);
  for (int i = 0; i < READERS; i++) {
    int status;
    waitpid(readers[i], &status, 0);
    assert_int_equal(status, 0);
  }
  assert_int_equal(atomic_load(&board->wrong), 0);
  // After a last repair the table is whole: every key can be put and found.
  route_table_repair(table);
  for (int64_t oid = 0; oid < KEYS; oid++) {
    struct route_key key = key_of(oid);
    struct route route;
    assert_int_equal(route_table_put(table, &key, "a:1", later_ms, now_ms), 0);
    assert_int_equal(route_table_lookup(table, &key, now_ms, &route), 0);
    assert_string_equal(route.address, "a:1");
  }
  route_table_free(table);
  munmap(board, sizeof *board);
}

struct thread {
  struct route_table *table;
  struct board *board;
};

static void *reader_thread(void *context) {
  struct thread *thread = context;
  read_until_done(thread->table, thread->board);
  return NULL;
}

static void readers_beside_a_writer_get_only_what_was_put(void **state) {
  static struct board board;
  struct thread thread = {.table = new_table(), .board = &board};
  pthread_t readers[READERS];
  (void)state;
  for (int i = 0; i < READERS; i++) {
    assert_int_equal(pthread_create(&readers[i], NULL, reader_thread, &thread), 0);
  }
  while (atomic_load(&board.generation) < UPDATES || atomic_load(&board.read) < 10000) {
    write_on(thread.table, &board);
  }
  atomic_store(&board.done, true);
  for (int i = 0; i < READERS; i++) {
    pthread_join(readers[i], NULL);
  }
  assert_int_equal(atomic_load(&board.wrong), 0);
  route_table_free(thread.table);
}

// Each route has a color of its own, so that the numbers of scopes change hands all the time.
enum { LIVE_COLORS = 8 };

static struct route_key key_of_color(uint64_t generation, char color[24]) {
  snprintf(color, 24, "c%llu", (unsigned long long)generation);
  struct route_key key = key_of((int64_t)(generation % 4));
  key.color = color;
  return key;
}

static void *color_reader(void *context) {
  struct thread *thread = context;
  struct board *board = thread->board;
  while (!atomic_load(&board->done)) {
    uint64_t newest = atomic_load(&board->generation);
    for (uint64_t back = 0; back < 2 * LIVE_COLORS && back <= newest; back++) {
      char color[24];
      struct route route;
      struct route_key key = key_of_color(newest - back, color);
      if (route_table_lookup(thread->table, &key, now_ms, &route) == 0) {
        atomic_fetch_add(&board->wrong, strcmp(route.address, color) != 0);
        atomic_fetch_add(&board->read, 1);
      }
    }
  }
  return NULL;
}

static void numbers_of_scopes_that_change_hands_mislead_no_reader(void **state) {
  static struct board board;
  struct thread thread = {.table = new_table(), .board = &board};
  pthread_t readers[READERS];
  (void)state;
  for (int i = 0; i < READERS; i++) {
    assert_int_equal(pthread_create(&readers[i], NULL, color_reader, &thread), 0);
  }
  for (uint64_t generation = 1; generation < UPDATES || atomic_load(&board.read) < 10000;
       generation++) {
    char color[24];
    struct route_key key = key_of_color(generation, color);
    assert_int_equal(route_table_put(thread.table, &key, color, later_ms, now_ms), 0);
    atomic_store(&board.generation, generation);
    if (generation > LIVE_COLORS) {
      key = key_of_color(generation - LIVE_COLORS, color);
      assert_int_equal(route_table_remove(thread.table, &key), 0);
    }
  }
  atomic_store(&board.done, true);
  for (int i = 0; i < READERS; i++) {
    pthread_join(readers[i], NULL);
  }
  assert_int_equal(atomic_load(&board.wrong), 0);
  route_table_free(thread.table);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_writer_killed_in_the_middle_again_and_again_misleads_no_reader),
      cmocka_unit_test(readers_beside_a_writer_get_only_what_was_put),
      cmocka_unit_test(numbers_of_scopes_that_change_hands_mislead_no_reader),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
