#include "worker/wire_gather.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

enum { CLIENTS = 3 };

struct client {
  struct gathered gathered;
  char got[GATHERED_MAX_BYTES + 1];
  int calls;
};

static struct client clients[CLIENTS];
static struct event_base *base;
static struct wire_gather *gather;

static void send_to_client(struct gathered *gathered) {
  struct client *client = (struct client *)gathered;
  size_t len;
  const uint8_t *bytes = wire_gather_take(gather, gathered, &len);
  assert_non_null(bytes);
  memcpy(client->got, bytes, len);
  client->got[len] = '\0';
  client->calls++;
}

static int set_up(void **state) {
  (void)state;
  memset(clients, 0, sizeof clients);
  base = event_base_new();
  gather = wire_gather_new(base, send_to_client);
  return gather ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  wire_gather_free(gather);
  event_base_free(base);
  return 0;
}

static void add(int client, const char *text) {
  assert_true(wire_gather_has_room(gather, strlen(text)));
  wire_gather_add(gather, &clients[client].gathered, (const uint8_t *)text, strlen(text));
}

static void all_of_a_turn_comes_at_its_end_in_one_piece(void **state) {
  (void)state;
  add(0, "a");
  add(0, "bc");
  assert_int_equal(gathered_bytes(&clients[0].gathered), 3);
  assert_int_equal(clients[0].calls, 0);
  event_base_loop(base, EVLOOP_NONBLOCK);
  assert_int_equal(clients[0].calls, 1);
  assert_string_equal(clients[0].got, "abc");
  assert_int_equal(gathered_bytes(&clients[0].gathered), 0);
  event_base_loop(base, EVLOOP_NONBLOCK);
  assert_int_equal(clients[0].calls, 1);
}

static void those_that_take_turns_get_theirs_in_order_and_whole(void **state) {
  (void)state;
  for (const char *text = "123"; *text; text++) {
    for (int i = 0; i < CLIENTS; i++) {
      add(i, (char[]){(char)('a' + i), *text, '\0'});
    }
  }
  wire_gather_flush(gather);
  for (int i = 0; i < CLIENTS; i++) {
    const char whole[] = {(char)('a' + i), '1', (char)('a' + i), '2', (char)('a' + i), '3', '\0'};
    assert_int_equal(clients[i].calls, 1);
    assert_string_equal(clients[i].got, whole);
  }
}

static void one_that_is_taken_out_is_not_called(void **state) {
  (void)state;
  size_t len;
  add(0, "one");
  add(1, "two");
  assert_memory_equal(wire_gather_take(gather, &clients[0].gathered, &len), "one", 3);
  assert_int_equal(len, 3);
  assert_null(wire_gather_take(gather, &clients[0].gathered, &len));
  assert_int_equal(len, 0);
  event_base_loop(base, EVLOOP_NONBLOCK);
  assert_int_equal(clients[0].calls, 0);
  assert_string_equal(clients[1].got, "two");
}

static void its_room_ends_and_is_there_again_after_a_flush(void **state) {
  (void)state;
  static uint8_t bytes[GATHERED_MAX_BYTES];
  int added = 0;
  while (wire_gather_has_room(gather, sizeof bytes) && added < CLIENTS) {
    wire_gather_add(gather, &clients[added++].gathered, bytes, sizeof bytes);
  }
  assert_int_equal(added, CLIENTS);
  assert_false(wire_gather_has_room(gather, sizeof bytes));
  wire_gather_flush(gather);
  assert_true(wire_gather_has_room(gather, sizeof bytes));
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(all_of_a_turn_comes_at_its_end_in_one_piece),
      FACT(those_that_take_turns_get_theirs_in_order_and_whole),
      FACT(one_that_is_taken_out_is_not_called),
      FACT(its_room_ends_and_is_there_again_after_a_flush),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
