#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/shm.h"

static void what_the_maker_writes_a_reader_sees(void **state) {
  struct shm made;
  struct shm mapped;
  (void)state;
  assert_int_equal(shm_create(&made, "test", 5000, true), 0);
  assert_int_equal(shm_map(&mapped, dup(made.fd), false), 0);
  assert_int_equal(mapped.size, 5000);
  strcpy(made.base, "hello");
  assert_string_equal(mapped.base, "hello");
  shm_unmap(&mapped);
  shm_unmap(&made);
}

static void nobody_else_maps_a_published_segment_writable(void **state) {
  struct shm made;
  struct shm mapped;
  (void)state;
  assert_int_equal(shm_create(&made, "test", 4096, true), 0);
  assert_int_equal(shm_map(&mapped, dup(made.fd), true), ERROR_SYSTEM);
  assert_int_equal(write(made.fd, "x", 1), -1);
  shm_unmap(&made);
}

static void an_heir_may_write_a_segment_made_for_it(void **state) {
  struct shm made;
  struct shm mapped;
  (void)state;
  assert_int_equal(shm_create(&made, "test", 4096, false), 0);
  assert_int_equal(shm_map(&mapped, dup(made.fd), true), 0);
  strcpy(mapped.base, "counts");
  assert_string_equal(made.base, "counts");
  shm_unmap(&mapped);
  shm_unmap(&made);
}

static void the_size_is_sealed(void **state) {
  struct shm made;
  (void)state;
  assert_int_equal(shm_create(&made, "test", 4096, false), 0);
  assert_int_equal(ftruncate(made.fd, 100), -1);
  assert_int_equal(ftruncate(made.fd, 10000), -1);
  shm_unmap(&made);
}

static void a_segment_that_could_shrink_under_its_reader_is_refused(void **state) {
  struct shm mapped;
  (void)state;
  int unsealed = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  assert_int_equal(ftruncate(unsealed, 4096), 0);
  assert_int_equal(shm_map(&mapped, unsealed, false), ERROR_INVALID);
  int no_segment = open("/dev/null", O_RDONLY);
  assert_int_not_equal(shm_map(&mapped, no_segment, false), 0);
  assert_int_not_equal(shm_map(&mapped, -1, false), 0);
}

static void unmapping_twice_does_no_harm(void **state) {
  struct shm shm = {0};
  (void)state;
  shm_unmap(&shm);
  assert_int_equal(shm_create(&shm, "test", 1, true), 0);
  shm_unmap(&shm);
  shm_unmap(&shm);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_the_maker_writes_a_reader_sees),
      cmocka_unit_test(nobody_else_maps_a_published_segment_writable),
      cmocka_unit_test(an_heir_may_write_a_segment_made_for_it),
      cmocka_unit_test(the_size_is_sealed),
      cmocka_unit_test(a_segment_that_could_shrink_under_its_reader_is_refused),
      cmocka_unit_test(unmapping_twice_does_no_harm),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
