#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "worker/push_queue.h"

static struct push_queue queue;

static int set_up(void **state) {
  (void)state;
  queue = (struct push_queue){0};
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  push_queue_clear(&queue, NULL, NULL);
  return 0;
}

// A push whose packet is its number.
static struct push *make(int32_t seq, int64_t obj, uint64_t version, uint32_t number) {
  struct {
    struct channel_push about;
    uint32_t packet;
  } content = {.about = {.mod = 3,
                         .seq = seq,
                         .obj = obj,
                         .data_version = version,
                         .packet_bytes = sizeof number},
               .packet = number};
  struct push *push = push_new(&content.about);
  assert_non_null(push);
  return push;
}

static size_t add(int32_t seq, int64_t obj, uint64_t version, uint32_t number) {
  struct push *push = make(seq, obj, version, number);
  size_t gave_way;
  assert_int_equal(push_queue_add(&queue, push, &gave_way), 0);
  push_unref(push);
  return gave_way;
}

static uint32_t take(void) {
  struct push *push = push_queue_take(&queue);
  uint32_t number;
  assert_non_null(push);
  assert_int_equal(push->about.packet_bytes, sizeof number);
  memcpy(&number, push->packet, sizeof number);
  push_unref(push);
  return number;
}

static void assert_empty(void) {
  assert_null(push_queue_take(&queue));
  assert_int_equal(queue.count, 0);
  assert_int_equal(queue.bytes, 0);
}

static void pushes_come_out_in_the_order_in_which_they_came(void **state) {
  (void)state;
  assert_empty();
  for (uint32_t i = 0; i < 10; i++) {
    assert_int_equal(add(1, 1, i, i), 0);  // nothing gives way before it is asked for
  }
  assert_int_equal(queue.count, 10);
  for (uint32_t i = 0; i < 10; i++) {
    assert_int_equal(take(), i);
  }
  assert_empty();
}

static void a_push_is_freed_with_its_last_reference(void **state) {
  struct push_queue other = {0};
  struct push *push = make(1, 1, 0, 7);
  size_t gave_way;
  (void)state;
  assert_int_equal(push_queue_add(&queue, push, &gave_way), 0);
  assert_int_equal(push_queue_add(&other, push, &gave_way), 0);
  assert_int_equal(push->references, 3);
  push_unref(push);
  push_queue_clear(&other, NULL, NULL);
  assert_int_equal(take(), 7);  // the address sanitizer sees the rest
}

static void the_oldest_are_dropped_down_to_the_bound(void **state) {
  struct push *one = make(1, 1, 0, 0);
  size_t cost = push_queue_cost(one);
  (void)state;
  push_unref(one);
  for (uint32_t i = 0; i < 10; i++) {
    add(1, 1, 0, i);
  }
  assert_int_equal(queue.bytes, 10 * cost);
  assert_int_equal(push_queue_drop_oldest(&queue, 10 * cost, NULL, NULL), 0);
  assert_int_equal(push_queue_drop_oldest(&queue, 4 * cost + 1, NULL, NULL), 6);
  assert_int_equal(take(), 6);
  assert_int_equal(push_queue_drop_oldest(&queue, 0, NULL, NULL), 3);
  assert_empty();
}

static void a_newer_version_of_the_same_thing_takes_the_place_of_an_older(void **state) {
  (void)state;
  add(1, 1, 5, 0);
  add(1, 2, 5, 1);  // another object
  add(2, 1, 5, 2);  // another message
  add(1, 1, 6, 3);
  add(1, 1, 7, 4);
  assert_int_equal(push_queue_conflate(&queue), 2);
  assert_int_equal(add(1, 2, 9, 5), 1);
  assert_int_equal(add(1, 9, 1, 6), 0);
  assert_int_equal(take(), 2);
  assert_int_equal(take(), 4);
  assert_int_equal(take(), 5);
  assert_int_equal(take(), 6);
  assert_empty();
}

static void what_has_no_version_or_comes_late_gives_no_way(void **state) {
  (void)state;
  add(1, 1, 0, 0);
  assert_int_equal(push_queue_conflate(&queue), 0);
  assert_int_equal(add(1, 1, 0, 1), 0);
  assert_int_equal(add(1, 1, 8, 2), 0);
  assert_int_equal(add(1, 1, 7, 3), 0);  // older than what waits: both are sent
  assert_int_equal(add(1, 1, 7, 4), 0);  // the same version is not a newer one
  assert_int_equal(add(1, 1, 9, 5), 1);  // of the one that came last
  uint32_t expected[] = {0, 1, 2, 3, 5};
  for (size_t i = 0; i < 5; i++) {
    assert_int_equal(take(), expected[i]);
  }
  assert_empty();
}

static void conflation_ends_when_the_queue_is_empty(void **state) {
  (void)state;
  add(1, 1, 1, 0);
  push_queue_conflate(&queue);
  assert_int_equal(take(), 0);
  assert_int_equal(add(1, 1, 2, 1), 0);
  assert_int_equal(add(1, 1, 3, 2), 0);
  assert_int_equal(take(), 1);
  assert_int_equal(take(), 2);
  assert_empty();
}

static void a_conflating_queue_is_cut_and_cleared_like_any_other(void **state) {
  struct push *one = make(1, 1, 0, 0);
  size_t cost = push_queue_cost(one);
  (void)state;
  push_unref(one);
  for (uint32_t i = 0; i < 1000; i++) {
    add((int32_t)(i % 10), i % 7, i + 1, i);
    if (i == 100) {
      push_queue_conflate(&queue);
    }
  }
  assert_int_equal(queue.count, 70);
  assert_int_equal(push_queue_drop_oldest(&queue, 10 * cost, NULL, NULL), 60);
  assert_int_equal(add(9, 5, 5000, 1), 1);  // the latest of its kind was among the ten
  assert_int_equal(push_queue_clear(&queue, NULL, NULL), 10);
  assert_empty();
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(pushes_come_out_in_the_order_in_which_they_came),
      FACT(a_push_is_freed_with_its_last_reference),
      FACT(the_oldest_are_dropped_down_to_the_bound),
      FACT(a_newer_version_of_the_same_thing_takes_the_place_of_an_older),
      FACT(what_has_no_version_or_comes_late_gives_no_way),
      FACT(conflation_ends_when_the_queue_is_empty),
      FACT(a_conflating_queue_is_cut_and_cleared_like_any_other),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
