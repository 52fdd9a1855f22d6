#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/node_picker.h"

static const char service[] = "roma.player.service";

struct fixture {
  struct node_table *table;
  struct node_picker *picker;
};

static int set_up(void **state) {
  static struct fixture fixture;
  int error;
  fixture.table = node_table_create(1024, &error);
  fixture.picker = node_picker_new(0);
  *state = &fixture;
  return fixture.table && fixture.picker ? 0 : -1;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  node_table_free(fixture->table);
  node_picker_free(fixture->picker);
  return 0;
}

static struct node node(const char *color, const char *address, uint32_t weight) {
  struct node made = {.weight = weight};
  strcpy(made.service, service);
  strcpy(made.color, color);
  strcpy(made.address, address);
  return made;
}

static void publish(struct fixture *fixture, const struct node *nodes, size_t count) {
  assert_int_equal(node_table_publish(fixture->table, nodes, count), 0);
  node_picker_refresh(fixture->picker, fixture->table);
}

static const char *pick(struct fixture *fixture, const char *color) {
  const struct node *picked = node_picker_pick(fixture->picker, service, color, 0);
  return picked ? picked->address : "none";
}

static void only_nodes_of_the_color_are_picked(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("blue", "a:1", 100), node("green", "b:1", 100)};
  publish(fixture, nodes, 2);
  for (int i = 0; i < 10; i++) {
    assert_string_equal(pick(fixture, "blue"), "a:1");
    assert_string_equal(pick(fixture, "green"), "b:1");
  }
  assert_string_equal(pick(fixture, ""), "none");
  assert_null(node_picker_pick(fixture->picker, "roma.room.service", "blue", 0));
}

static void turns_are_smooth_and_by_weight(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 5), node("", "b:1", 1), node("", "c:1", 1)};
  const char *expected[] = {"a:1", "a:1", "b:1", "a:1", "c:1", "a:1", "a:1"};
  publish(fixture, nodes, 3);
  for (int i = 0; i < 21; i++) {
    assert_string_equal(pick(fixture, ""), expected[i % 7]);
  }
}

// As of a thousand workers that were started together, with few players each.
static void pickers_of_a_fleet_share_their_first_picks_out_by_weight(void **state) {
  enum { PICKERS = 1000, NODES = 20, EACH = 3 };
  struct fixture *fixture = *state;
  struct node nodes[NODES];
  int picked[NODES] = {0};
  for (int i = 0; i < NODES; i++) {
    char address[16];
    snprintf(address, sizeof address, "n%02d:1", i);
    nodes[i] = node("", address, i < NODES / 2 ? 50 : 150);
  }
  assert_int_equal(node_table_publish(fixture->table, nodes, NODES), 0);
  for (uint64_t seed = 1; seed <= PICKERS; seed++) {
    struct node_picker *picker = node_picker_new(seed);
    assert_non_null(picker);
    node_picker_refresh(picker, fixture->table);
    for (int i = 0; i < EACH; i++) {
      const struct node *one = node_picker_pick(picker, service, "", 0);
      assert_non_null(one);
      picked[atoi(one->address + 1)]++;
    }
    node_picker_free(picker);
  }
  // 75 and 225 were fair, and 12 and 22 of them a deviation that is nothing but chance.
  for (int i = 0; i < NODES; i++) {
    int fair = PICKERS * EACH * (i < NODES / 2 ? 1 : 3) / (NODES * 2);
    assert_in_range(picked[i], fair / 2, fair * 3 / 2);
  }
}

static void a_node_that_comes_to_a_fleet_gets_its_share_and_no_more(void **state) {
  enum { PICKERS = 2000, NODES = 40 };
  struct fixture *fixture = *state;
  struct node nodes[NODES + 1];
  int to_the_new = 0;
  for (int i = 0; i <= NODES; i++) {
    char address[16];
    snprintf(address, sizeof address, "n%02d:1", i);
    nodes[i] = node("", address, 100);
  }
  for (uint64_t seed = 1; seed <= PICKERS; seed++) {
    struct node_picker *picker = node_picker_new(seed);
    assert_non_null(picker);
    assert_int_equal(node_table_publish(fixture->table, nodes, NODES), 0);
    node_picker_refresh(picker, fixture->table);
    for (int i = 0; i < 3; i++) {
      assert_non_null(node_picker_pick(picker, service, "", 0));
    }
    assert_int_equal(node_table_publish(fixture->table, nodes, NODES + 1), 0);
    node_picker_refresh(picker, fixture->table);
    to_the_new += strcmp(node_picker_pick(picker, service, "", 0)->address, "n40:1") == 0;
    node_picker_free(picker);
  }
  assert_in_range(to_the_new, 20, 80);  // 49 were fair
}

static void a_round_that_begins_anywhere_is_by_weight_all_the_same(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 5), node("", "b:1", 1), node("", "c:1", 1)};
  assert_int_equal(node_table_publish(fixture->table, nodes, 3), 0);
  for (uint64_t seed = 1; seed <= 100; seed++) {
    struct node_picker *picker = node_picker_new(seed);
    int picked[3] = {0};
    assert_non_null(picker);
    node_picker_refresh(picker, fixture->table);
    for (int i = 0; i < 70; i++) {
      const struct node *one = node_picker_pick(picker, service, "", 0);
      assert_non_null(one);
      picked[one->address[0] - 'a']++;
    }
    assert_in_range(picked[0], 48, 52);
    assert_in_range(picked[1], 9, 11);
    assert_in_range(picked[2], 9, 11);
    node_picker_free(picker);
  }
}

static void a_node_of_weight_zero_takes_nothing_new_but_keeps_what_it_has(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 0)};
  publish(fixture, nodes, 1);
  assert_string_equal(pick(fixture, ""), "none");
  assert_null(node_picker_fallback(fixture->picker, service, "", 1, 0));
  assert_non_null(node_picker_find(fixture->picker, service, "", "a:1", 0));
}

static void a_suspect_is_passed_over_until_its_time_is_over(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 100), node("", "b:1", 100)};
  publish(fixture, nodes, 2);
  node_picker_suspect(fixture->picker, service, "blue", "a:1", 50);
  for (int i = 0; i < 4; i++) {
    assert_string_equal(pick(fixture, ""), "b:1");
  }
  assert_null(node_picker_find(fixture->picker, service, "", "a:1", 49));
  assert_non_null(node_picker_find(fixture->picker, service, "", "a:1", 50));
}

static void suspects_are_tried_when_nothing_else_is_left(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 100), node("", "b:1", 0)};
  publish(fixture, nodes, 2);
  node_picker_suspect(fixture->picker, service, "blue", "a:1", 50);
  assert_string_equal(pick(fixture, ""), "a:1");
  assert_non_null(node_picker_find(fixture->picker, service, "", "a:1", 0));
  assert_non_null(node_picker_fallback(fixture->picker, service, "", 1, 0));
}

static void suspicion_and_turn_outlive_a_change_of_the_table(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 100), node("", "b:1", 100), node("", "c:1", 100)};
  publish(fixture, nodes, 2);
  node_picker_suspect(fixture->picker, service, "blue", "a:1", 50);
  publish(fixture, nodes, 3);
  for (int i = 0; i < 6; i++) {
    assert_string_not_equal(pick(fixture, ""), "a:1");
  }
}

static void an_address_listed_twice_counts_once(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 100), node("", "a:1", 100), node("", "b:1", 100)};
  int a = 0;
  publish(fixture, nodes, 3);
  for (int i = 0; i < 10; i++) {
    a += strcmp(pick(fixture, ""), "a:1") == 0;
  }
  assert_int_equal(a, 5);
}

static void a_node_that_left_is_not_found(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 100), node("", "b:1", 100)};
  publish(fixture, nodes, 2);
  publish(fixture, nodes + 1, 1);
  assert_null(node_picker_find(fixture->picker, service, "", "a:1", 0));
  publish(fixture, NULL, 0);
  assert_string_equal(pick(fixture, ""), "none");
}

static void the_fallback_depends_on_nothing_but_object_and_nodes(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 100), node("", "b:1", 100), node("", "c:1", 100)};
  struct node reversed[] = {nodes[2], nodes[1], nodes[0]};
  char first[100][NODE_ADDRESS_MAX_BYTES + 1];
  publish(fixture, nodes, 3);
  for (int oid = 0; oid < 100; oid++) {
    strcpy(first[oid], node_picker_fallback(fixture->picker, service, "", oid, 0)->address);
    pick(fixture, "");  // somebody's turn has no say in it
  }
  publish(fixture, reversed, 3);
  for (int oid = 0; oid < 100; oid++) {
    assert_string_equal(node_picker_fallback(fixture->picker, service, "", oid, 0)->address,
                        first[oid]);
  }
}

static void the_fallback_moves_only_the_objects_of_a_node_that_left(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 100), node("", "b:1", 100), node("", "c:1", 100)};
  char first[1000][NODE_ADDRESS_MAX_BYTES + 1];
  publish(fixture, nodes, 3);
  for (int oid = 0; oid < 1000; oid++) {
    strcpy(first[oid], node_picker_fallback(fixture->picker, service, "", oid, 0)->address);
  }
  publish(fixture, nodes, 2);
  for (int oid = 0; oid < 1000; oid++) {
    if (strcmp(first[oid], "c:1") != 0) {
      assert_string_equal(node_picker_fallback(fixture->picker, service, "", oid, 0)->address,
                          first[oid]);
    }
  }
}

static void the_fallback_spreads_objects_by_weight(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 300), node("", "b:1", 100)};
  int a = 0;
  publish(fixture, nodes, 2);
  for (int oid = 0; oid < 10000; oid++) {
    a += strcmp(node_picker_fallback(fixture->picker, service, "", oid, 0)->address, "a:1") == 0;
  }
  assert_in_range(a, 7200, 7800);
}

static bool may_come(struct fixture *fixture, const char *address, int64_t now_ms) {
  return node_picker_may_come(fixture->picker, service, "blue", address, 1000, now_ms);
}

static void an_unknown_node_is_waited_for_for_a_while(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("blue", "a:1", 100)};
  publish(fixture, nodes, 1);
  assert_true(may_come(fixture, "b:1", 5000));
  assert_true(may_come(fixture, "b:1", 5999));
  assert_false(may_come(fixture, "b:1", 6000));
  assert_true(may_come(fixture, "c:1", 6000));
}

static void a_node_that_has_left_is_not_waited_for(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("blue", "a:1", 100), node("blue", "b:1", 100)};
  publish(fixture, nodes, 2);
  publish(fixture, nodes, 1);
  assert_false(may_come(fixture, "b:1", 5000));
  // It comes back, and leaves again.
  publish(fixture, nodes, 2);
  publish(fixture, nodes, 0);
  assert_false(may_come(fixture, "a:1", 5000));
  assert_false(may_come(fixture, "b:1", 5000));
}

static void a_node_that_is_here_under_suspicion_is_not_waited_for(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("blue", "a:1", 100), node("blue", "b:1", 100)};
  publish(fixture, nodes, 2);
  node_picker_suspect(fixture->picker, service, "blue", "a:1", 9000);
  assert_null(node_picker_find(fixture->picker, service, "blue", "a:1", 5000));
  assert_false(may_come(fixture, "a:1", 5000));
}

enum { LOST_AT_ONCE = 1000 };

static const char *address_of(int i) {
  static char address[24];
  snprintf(address, sizeof address, "10.0.%d.%d:1", i / 256, i % 256);
  return address;
}

static void of_a_thousand_that_left_at_once_none_is_waited_for(void **state) {
  struct fixture *fixture = *state;
  static struct node nodes[LOST_AT_ONCE];
  for (int i = 0; i < LOST_AT_ONCE; i++) {
    nodes[i] = node("blue", address_of(i), 100);
  }
  publish(fixture, nodes, LOST_AT_ONCE);
  publish(fixture, nodes, 1);
  for (int i = 1; i < LOST_AT_ONCE; i++) {
    assert_false(may_come(fixture, address_of(i), 5000));
  }
}

// Else who has lost his node would wait for it until he is thrown out.
static void a_thousand_unknown_nodes_are_waited_for_no_longer_than_one(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("blue", "a:1", 100)};
  publish(fixture, nodes, 1);
  for (int64_t now_ms = 5000; now_ms <= 6000; now_ms += 250) {
    for (int i = 0; i < LOST_AT_ONCE; i++) {
      assert_int_equal(may_come(fixture, address_of(i), now_ms), now_ms < 6000);
    }
  }
}

static bool is_gone(struct fixture *fixture, const char *address, int64_t now_ms) {
  return node_picker_is_gone(fixture->picker, service, "blue", address, 1000, now_ms);
}

static void a_node_is_gone_that_has_left_or_has_not_come_in_time(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("blue", "a:1", 100), node("blue", "b:1", 100)};
  publish(fixture, nodes, 2);
  publish(fixture, nodes, 1);
  assert_true(is_gone(fixture, "b:1", 5000));
  assert_false(is_gone(fixture, "new:1", 5000));
  assert_true(is_gone(fixture, "new:1", 6000));
  // Under suspicion it is here all the same.
  node_picker_suspect(fixture->picker, service, "blue", "a:1", 9000);
  assert_false(is_gone(fixture, "a:1", 5000));
}

static const char *unseen(struct fixture *fixture, const char *address) {
  const struct node *found = node_picker_unseen(fixture->picker, service, "blue", address, 0);
  return found ? found->address : "none";
}

static void a_node_that_the_registry_can_not_tell_of_is_tried_unless_it_has_just_failed(
    void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("blue", "a:1", 100), node("blue", "b:1", 100)};
  nodes[0].secure = true;
  nodes[1].secure = true;
  publish(fixture, nodes, 2);
  assert_string_equal(unseen(fixture, "a:1"), "none");  // it is known
  assert_string_equal(unseen(fixture, "new:1"), "new:1");
  assert_true(node_picker_unseen(fixture->picker, service, "blue", "new:1", 0)->secure);
  node_picker_suspect(fixture->picker, service, "blue", "new:1", 50);
  assert_string_equal(unseen(fixture, "new:1"), "none");
  assert_false(node_picker_may_come(fixture->picker, service, "blue", "new:1", 1000, 49));
  assert_non_null(node_picker_unseen(fixture->picker, service, "blue", "new:1", 50));
  publish(fixture, nodes, 1);
  assert_string_equal(unseen(fixture, "b:1"), "none");  // it has left
}

static void one_that_is_not_known_is_spoken_to_by_tls_where_its_service_uses_it(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("green", "a:1", 100), node("green", "b:1", 100)};
  publish(fixture, nodes, 2);
  assert_false(node_picker_unseen(fixture->picker, service, "blue", "new:1", 0)->secure);
  nodes[1].secure = true;
  publish(fixture, nodes, 2);
  assert_true(node_picker_unseen(fixture->picker, service, "blue", "new:1", 0)->secure);
  assert_false(node_picker_unseen(fixture->picker, "roma.room.service", "blue", "x:1", 0)->secure);
}

static void a_node_that_changes_to_tls_is_the_same_node(void **state) {
  struct fixture *fixture = *state;
  struct node nodes[] = {node("", "a:1", 100), node("", "b:1", 100)};
  publish(fixture, nodes, 2);
  assert_false(node_picker_find(fixture->picker, service, "", "a:1", 0)->secure);
  node_picker_suspect(fixture->picker, service, "", "a:1", 50);
  nodes[0].secure = true;
  publish(fixture, nodes, 2);
  assert_null(node_picker_find(fixture->picker, service, "", "a:1", 49));
  assert_true(node_picker_find(fixture->picker, service, "", "a:1", 50)->secure);
}

static void whether_the_registry_can_be_seen_is_in_the_table(void **state) {
  struct fixture *fixture = *state;
  assert_false(node_table_is_current(fixture->table));
  node_table_set_current(fixture->table, true);
  assert_true(node_table_is_current(fixture->table));
  node_table_set_current(fixture->table, false);
  assert_false(node_table_is_current(fixture->table));
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(an_unknown_node_is_waited_for_for_a_while),
      FACT(a_node_that_has_left_is_not_waited_for),
      FACT(of_a_thousand_that_left_at_once_none_is_waited_for),
      FACT(a_thousand_unknown_nodes_are_waited_for_no_longer_than_one),
      FACT(a_node_that_is_here_under_suspicion_is_not_waited_for),
      FACT(a_node_is_gone_that_has_left_or_has_not_come_in_time),
      FACT(only_nodes_of_the_color_are_picked),
      FACT(turns_are_smooth_and_by_weight),
      FACT(pickers_of_a_fleet_share_their_first_picks_out_by_weight),
      FACT(a_node_that_comes_to_a_fleet_gets_its_share_and_no_more),
      FACT(a_round_that_begins_anywhere_is_by_weight_all_the_same),
      FACT(a_node_of_weight_zero_takes_nothing_new_but_keeps_what_it_has),
      FACT(a_suspect_is_passed_over_until_its_time_is_over),
      FACT(suspects_are_tried_when_nothing_else_is_left),
      FACT(suspicion_and_turn_outlive_a_change_of_the_table),
      FACT(an_address_listed_twice_counts_once),
      FACT(a_node_that_left_is_not_found),
      FACT(the_fallback_depends_on_nothing_but_object_and_nodes),
      FACT(the_fallback_moves_only_the_objects_of_a_node_that_left),
      FACT(the_fallback_spreads_objects_by_weight),
      FACT(a_node_that_the_registry_can_not_tell_of_is_tried_unless_it_has_just_failed),
      FACT(one_that_is_not_known_is_spoken_to_by_tls_where_its_service_uses_it),
      FACT(a_node_that_changes_to_tls_is_the_same_node),
      FACT(whether_the_registry_can_be_seen_is_in_the_table),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
