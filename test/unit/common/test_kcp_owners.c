#include "common/kcp_owners.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/shm.h"
#include "test/unit/child.h"

enum { PORT = 17003 };

static struct kcp_owners *new_owners(void) {
  int error = 0;
  struct kcp_owners *owners = kcp_owners_create(&error);
  assert_non_null(owners);
  return owners;
}

static uint64_t key_of(const struct kcp_owners *owners, const char *address, int port,
                       uint16_t server_port) {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } client;
  memset(&client, 0, sizeof client);
  if (strchr(address, ':')) {
    client.v6.sin6_family = AF_INET6;
    client.v6.sin6_port = htons((uint16_t)port);
    assert_int_equal(inet_pton(AF_INET6, address, &client.v6.sin6_addr), 1);
  } else {
    client.v4.sin_family = AF_INET;
    client.v4.sin_port = htons((uint16_t)port);
    assert_int_equal(inet_pton(AF_INET, address, &client.v4.sin_addr), 1);
  }
  return kcp_owners_key(owners, &client.any, server_port);
}

static void a_connection_is_found_where_it_is(void **state) {
  (void)state;
  struct kcp_owners *owners = new_owners();
  const uint64_t key = key_of(owners, "192.0.2.7", 5000, PORT);
  assert_int_equal(kcp_owners_find(owners, key), KCP_OWNERS_NOBODY);
  assert_int_equal(kcp_owners_insert(owners, key, 0), 0);
  assert_int_equal(kcp_owners_find(owners, key), 0);
  assert_int_equal(kcp_owners_insert(owners, key, 127), 0);  // it went to another
  assert_int_equal(kcp_owners_find(owners, key), 127);
  kcp_owners_remove(owners, key, 0);
  assert_int_equal(kcp_owners_find(owners, key), 127);
  kcp_owners_remove(owners, key, 127);
  assert_int_equal(kcp_owners_find(owners, key), KCP_OWNERS_NOBODY);
  kcp_owners_free(owners);
}

static void a_key_is_all_that_names_the_connection(void **state) {
  (void)state;
  struct kcp_owners *owners = new_owners(), *others = new_owners();
  const uint64_t keys[] = {
      key_of(owners, "192.0.2.7", 5000, PORT),   key_of(owners, "192.0.2.8", 5000, PORT),
      key_of(owners, "192.0.2.7", 5001, PORT),   key_of(owners, "192.0.2.7", 5000, PORT + 1),
      key_of(owners, "2001:db8::1", 5000, PORT), key_of(owners, "2001:db8::2", 5000, PORT),
      key_of(owners, "2001:db8::1", 5001, PORT), kcp_owners_conv_key(owners, 0, PORT),
      kcp_owners_conv_key(owners, 5000, PORT),   kcp_owners_conv_key(owners, 0, PORT + 1),
      key_of(others, "192.0.2.7", 5000, PORT),   kcp_owners_conv_key(others, 0, PORT),
  };
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    for (size_t j = 0; j < i; j++) {
      assert_true(keys[i] != keys[j]);
    }
  }
  assert_true(key_of(owners, "::ffff:192.0.2.7", 5000, PORT) == keys[0]);
  kcp_owners_free(owners);
  kcp_owners_free(others);
}

static void a_worker_that_is_gone_has_nothing(void **state) {
  (void)state;
  struct kcp_owners *owners = new_owners();
  for (uint32_t conv = 0; conv < 50000; conv++) {
    assert_int_equal(kcp_owners_insert(owners, kcp_owners_conv_key(owners, conv, PORT), conv % 3),
                     0);
  }
  kcp_owners_clear(owners, 1);
  for (uint32_t conv = 0; conv < 50000; conv++) {
    int found = kcp_owners_find(owners, kcp_owners_conv_key(owners, conv, PORT));
    assert_int_equal(found, conv % 3 == 1 ? KCP_OWNERS_NOBODY : (int)conv % 3);
  }
  kcp_owners_clear(owners, 0);
  assert_true(kcp_owners_has_others(owners, 0));
  assert_true(kcp_owners_has_others(owners, 1));
  assert_false(kcp_owners_has_others(owners, 2));
  kcp_owners_clear(owners, 2);
  assert_false(kcp_owners_has_others(owners, 0));
  kcp_owners_free(owners);
}

// Keys of one bucket: the table is as full as it can be there, and is as before afterwards.
static void a_full_bucket_takes_no_more_until_one_leaves(void **state) {
  (void)state;
  struct kcp_owners *owners = new_owners();
  enum { FULL = KCP_OWNERS_BUCKET_ENTRIES };
  uint64_t keys[FULL + 1];
  for (uint64_t i = 0; i <= FULL; i++) {
    keys[i] = (i + 1) << 40 | 77;
  }
  for (size_t i = 0; i < FULL; i++) {
    assert_int_equal(kcp_owners_insert(owners, keys[i], (unsigned)i), 0);
  }
  assert_int_equal(kcp_owners_insert(owners, keys[FULL], 100), ERROR_EXHAUSTED);
  assert_int_equal(kcp_owners_find(owners, keys[FULL]), KCP_OWNERS_NOBODY);
  assert_int_equal(kcp_owners_insert(owners, keys[3], 100), 0);  // it is there already
  assert_int_equal(kcp_owners_find(owners, keys[3]), 100);
  kcp_owners_remove(owners, keys[5], 5);
  assert_int_equal(kcp_owners_insert(owners, keys[FULL], 100), 0);
  for (size_t i = 0; i <= FULL; i++) {
    int wanted = i == 5 ? KCP_OWNERS_NOBODY : i == 3 || i == FULL ? 100 : (int)i;
    assert_int_equal(kcp_owners_find(owners, keys[i]), wanted);
  }
  kcp_owners_free(owners);
}

// A hundred thousand connections lose next to nothing.
static void it_holds_a_hundred_thousand(void **state) {
  (void)state;
  struct kcp_owners *owners = new_owners();
  size_t refused = 0;
  for (uint32_t conv = 0; conv < 100000; conv++) {
    refused += kcp_owners_insert(owners, kcp_owners_conv_key(owners, conv, PORT), 1) != 0;
  }
  assert_true(refused < 100);
  kcp_owners_free(owners);
}

static void what_is_no_such_segment_is_refused(void **state) {
  (void)state;
  int error = 0;
  struct shm shm;
  assert_null(kcp_owners_open(-1, &error));
  assert_int_equal(shm_create(&shm, "other", 4096, false), 0);
  assert_null(kcp_owners_open(dup(shm.fd), &error));
  assert_int_equal(error, ERROR_INVALID);
  shm_unmap(&shm);
  struct kcp_owners *owners = new_owners();
  assert_int_equal(shm_map(&shm, dup(kcp_owners_fd(owners)), true), 0);
  ((uint8_t *)shm.base)[0] ^= 1;
  assert_null(kcp_owners_open(dup(shm.fd), &error));
  assert_int_equal(error, ERROR_INVALID);
  shm_unmap(&shm);
  kcp_owners_free(owners);
  kcp_owners_free(NULL);
}

// --- Several at a time
// ----------------------------------------------------------------------------

// Few keys, so that all meet in the same entries all the time.
enum { WORKERS = 4, KEYS = 32, ROUNDS = 20000 };

struct member {
  struct kcp_owners *owners;
  unsigned worker;
  _Atomic unsigned *wrong;
};

static uint64_t stress_key(unsigned i) { return (uint64_t)(i / 2 + 1) << 32 | (i % 2); }

// Takes keys and lets them go, looks at all of them, and leaves with nothing.
static void work(const struct member *member) {
  uint32_t random = member->worker * 7919 + 1;
  for (int round = 0; round < ROUNDS; round++) {
    random = random * 1664525 + 1013904223;
    const uint64_t key = stress_key(random >> 16 & (KEYS - 1));
    switch (random >> 28 & 3) {
      case 0:
      case 1: (void)!kcp_owners_insert(member->owners, key, member->worker); break;
      case 2: kcp_owners_remove(member->owners, key, member->worker); break;
      default: break;
    }
    int found = kcp_owners_find(member->owners, key);
    if (found < KCP_OWNERS_NOBODY || found >= WORKERS) {
      atomic_fetch_add(member->wrong, 1);
    }
  }
  for (unsigned i = 0; i < KEYS; i++) {
    kcp_owners_remove(member->owners, stress_key(i), member->worker);
  }
}

static void *work_in_thread(void *context) {
  work(context);
  return NULL;
}

static void assert_empty_and_whole(struct kcp_owners *owners) {
  for (unsigned i = 0; i < KEYS; i++) {
    assert_int_equal(kcp_owners_find(owners, stress_key(i)), KCP_OWNERS_NOBODY);
  }
  for (unsigned i = 0; i < KEYS; i++) {  // no entry was lost
    assert_int_equal(kcp_owners_insert(owners, stress_key(i), i % WORKERS), 0);
  }
  for (unsigned i = 0; i < KEYS; i++) {
    assert_int_equal(kcp_owners_find(owners, stress_key(i)), i % WORKERS);
  }
}

static void threads_at_the_same_time_leave_nothing_behind(void **state) {
  (void)state;
  _Static_assert(KEYS == 2 * KCP_OWNERS_BUCKET_ENTRIES, "two buckets, which can be full");
  _Atomic unsigned wrong = 0;
  struct kcp_owners *owners = new_owners();
  struct member members[WORKERS];
  pthread_t threads[WORKERS];
  for (unsigned i = 0; i < WORKERS; i++) {
    members[i] = (struct member){owners, i, &wrong};
    assert_int_equal(pthread_create(&threads[i], NULL, work_in_thread, &members[i]), 0);
  }
  for (unsigned i = 0; i < WORKERS; i++) {
    pthread_join(threads[i], NULL);
  }
  assert_int_equal(wrong, 0);
  assert_empty_and_whole(owners);
  kcp_owners_free(owners);
}

static void a_process_that_dies_in_the_middle_is_cleared_away(void **state) {
  (void)state;
  struct kcp_owners *owners = new_owners();
  _Atomic unsigned *wrong =
      mmap(NULL, sizeof *wrong, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int ends[2];
  char byte;
  assert_ptr_not_equal(wrong, MAP_FAILED);
  assert_int_equal(pipe(ends), 0);
  pid_t workers[WORKERS];
  for (unsigned i = 0; i < WORKERS; i++) {
    workers[i] = child_fork();
    if (workers[i] == 0) {
      int error;
      struct kcp_owners *own = kcp_owners_open(dup(kcp_owners_fd(owners)), &error);
      struct member member = {own, i, wrong};
      work(&member);
      (void)!write(ends[1], "x", 1);
      for (;;) {
        work(&member);
      }
    }
  }
  for (unsigned i = 0; i < WORKERS; i++) {  // each has been at it
    assert_int_equal(read(ends[0], &byte, 1), 1);
  }
  for (unsigned i = 0; i < WORKERS; i++) {
    kill(workers[i], SIGKILL);
    waitpid(workers[i], NULL, 0);
    kcp_owners_clear(owners, i);
  }
  assert_int_equal(*wrong, 0);
  assert_empty_and_whole(owners);
  close(ends[0]);
  close(ends[1]);
  munmap(wrong, sizeof *wrong);
  kcp_owners_free(owners);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_connection_is_found_where_it_is),
      cmocka_unit_test(a_key_is_all_that_names_the_connection),
      cmocka_unit_test(a_worker_that_is_gone_has_nothing),
      cmocka_unit_test(a_full_bucket_takes_no_more_until_one_leaves),
      cmocka_unit_test(it_holds_a_hundred_thousand),
      cmocka_unit_test(what_is_no_such_segment_is_refused),
      cmocka_unit_test(threads_at_the_same_time_leave_nothing_behind),
      cmocka_unit_test(a_process_that_dies_in_the_middle_is_cleared_away),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
