#include "master/kcp_mailboxes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/config.h"

static struct kcp_mailboxes *new_ones(void) {
  int error = 0;
  struct kcp_mailboxes *mailboxes = kcp_mailboxes_new(&error);
  assert_non_null(mailboxes);
  return mailboxes;
}

static void write_to(const struct kcp_mailboxes *mailboxes, int number, uint8_t what) {
  assert_int_equal(send(kcp_mailboxes_write_end(mailboxes, number), &what, 1, MSG_DONTWAIT), 1);
}

// -1: nothing is there.
static int read_from(const struct kcp_mailboxes *mailboxes, int number) {
  uint8_t what;
  ssize_t got = recv(kcp_mailboxes_read_end(mailboxes, number), &what, 1, MSG_DONTWAIT);
  return got == 1 ? what : -1;
}

static void all_lead_to_their_own_number(const struct kcp_mailboxes *mailboxes) {
  for (int i = 0; i < CONFIG_WORKER_NUMBERS; i++) {
    write_to(mailboxes, i, (uint8_t)i);
  }
  for (int i = 0; i < CONFIG_WORKER_NUMBERS; i++) {
    assert_int_equal(read_from(mailboxes, i), i);
    assert_int_equal(read_from(mailboxes, i), -1);
  }
}

static void what_is_written_for_a_number_is_read_there(void **state) {
  (void)state;
  struct kcp_mailboxes *mailboxes = new_ones(), *others = new_ones();
  all_lead_to_their_own_number(mailboxes);
  write_to(others, 0, 1);
  assert_int_equal(read_from(mailboxes, 0), -1);
  kcp_mailboxes_free(mailboxes);
  kcp_mailboxes_free(others);
}

static bool has_name(int fd) {
  struct sockaddr_un address;
  socklen_t len = sizeof address;
  assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
  return len > offsetof(struct sockaddr_un, sun_path);
}

static void nobody_can_name_them(void **state) {
  (void)state;
  struct kcp_mailboxes *mailboxes = new_ones();
  for (int i = 0; i < CONFIG_WORKER_NUMBERS; i++) {
    assert_false(has_name(kcp_mailboxes_read_end(mailboxes, i)));
    assert_false(has_name(kcp_mailboxes_write_end(mailboxes, i)));
  }
  kcp_mailboxes_free(mailboxes);
}

static void one_that_is_not_read_fills_up_without_blocking(void **state) {
  (void)state;
  struct kcp_mailboxes *mailboxes = new_ones();
  static const uint8_t batch[32768];
  int fd = kcp_mailboxes_write_end(mailboxes, 3), sent = 0;
  while (send(fd, batch, sizeof batch, 0) > 0) {
    assert_true(++sent < 10000);
  }
  assert_int_equal(errno, EAGAIN);
  assert_true(sent > 1);
  write_to(mailboxes, 4, 4);  // nobody else's
  kcp_mailboxes_free(mailboxes);
}

static void count(int fd, void *context) {
  assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  ++*(int *)context;
}

static void the_next_program_of_the_master_has_the_same(void **state) {
  (void)state;
  int kept = 0, error = 0;
  struct kcp_mailboxes *mailboxes = new_ones();
  json_t *saved = kcp_mailboxes_save(mailboxes, count, &kept);
  assert_int_equal(kept, 2 * CONFIG_WORKER_NUMBERS);
  struct kcp_mailboxes *taken = kcp_mailboxes_take(saved, &error);
  assert_non_null(taken);
  for (int i = 0; i < CONFIG_WORKER_NUMBERS; i++) {
    assert_int_equal(kcp_mailboxes_read_end(taken, i), kcp_mailboxes_read_end(mailboxes, i));
    assert_int_equal(kcp_mailboxes_write_end(taken, i), kcp_mailboxes_write_end(mailboxes, i));
  }
  all_lead_to_their_own_number(taken);
  json_array_remove(saved, 0);
  assert_null(kcp_mailboxes_take(saved, &error));
  assert_int_equal(error, ERROR_INVALID);
  json_decref(saved);
  kcp_mailboxes_free(mailboxes);
  free(taken);  // its descriptors were the same
}

static void where_there_were_none_there_are_none(void **state) {
  (void)state;
  int kept = 0, error = 0;
  json_t *saved = kcp_mailboxes_save(NULL, count, &kept);
  assert_int_equal(kept, 0);
  assert_null(kcp_mailboxes_take(saved, &error));
  assert_int_equal(error, ERROR_INVALID);
  assert_null(kcp_mailboxes_take(NULL, &error));
  assert_int_equal(error, ERROR_INVALID);
  json_decref(saved);
  kcp_mailboxes_free(NULL);
}

static void without_descriptors_there_are_none_and_nothing_stays_open(void **state) {
  (void)state;
  struct rlimit before;
  int error = 0;
  int first = dup(STDERR_FILENO);
  close(first);
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  const struct rlimit few = {.rlim_cur = (rlim_t)first + 21, .rlim_max = before.rlim_max};
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
  struct kcp_mailboxes *mailboxes = kcp_mailboxes_new(&error);
  int cause = errno;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
  assert_null(mailboxes);
  assert_int_equal(error, ERROR_SYSTEM);
  assert_int_equal(cause, EMFILE);
  int next = dup(STDERR_FILENO);
  assert_int_equal(next, first);
  close(next);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_written_for_a_number_is_read_there),
      cmocka_unit_test(nobody_can_name_them),
      cmocka_unit_test(one_that_is_not_read_fills_up_without_blocking),
      cmocka_unit_test(the_next_program_of_the_master_has_the_same),
      cmocka_unit_test(where_there_were_none_there_are_none),
      cmocka_unit_test(without_descriptors_there_are_none_and_nothing_stays_open),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
