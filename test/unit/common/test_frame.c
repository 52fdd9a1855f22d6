#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>

#include "common/frame.h"

static void a_frame_is_whole_when_its_last_byte_is_there(void **state) {
  const uint8_t bytes[] = {0, 0, 0, 3, 'a', 'b', 'c', 'd'};
  size_t body_len;
  (void)state;
  for (size_t len = 0; len < 7; len++) {
    assert_int_equal(frame_parse(bytes, len, FRAME_BODY_MAX_BYTES, &body_len), 0);
    assert_int_equal(body_len, len < 4 ? 0 : 3);
  }
  assert_int_equal(frame_parse(bytes, 7, FRAME_BODY_MAX_BYTES, &body_len), 1);
  assert_int_equal(body_len, 3);
  assert_int_equal(frame_parse(bytes, 8, FRAME_BODY_MAX_BYTES, &body_len), 1);
  assert_int_equal(body_len, 3);
}

static void a_length_of_zero_or_less_is_malformed(void **state) {
  const uint8_t zero[] = {0, 0, 0, 0};
  const uint8_t negative[] = {0xff, 0xff, 0xff, 0xff};
  const uint8_t most_negative[] = {0x80, 0, 0, 0};
  size_t body_len;
  (void)state;
  assert_int_equal(frame_parse(zero, 4, 100, &body_len), ERROR_MALFORMED);
  assert_int_equal(frame_parse(negative, 4, 100, &body_len), ERROR_MALFORMED);
  assert_int_equal(frame_parse(most_negative, 4, 100, &body_len), ERROR_MALFORMED);
}

static void a_length_over_the_bound_is_refused_before_the_body_comes(void **state) {
  const uint8_t at_bound[] = {0, 0, 0x40, 0};
  const uint8_t over[] = {0, 0, 0x40, 1};
  size_t body_len;
  (void)state;
  assert_int_equal(frame_parse(at_bound, 4, FRAME_BODY_MAX_BYTES, &body_len), 0);
  assert_int_equal(frame_parse(over, 4, FRAME_BODY_MAX_BYTES, &body_len), ERROR_TOO_LARGE);
}

static void a_written_header_is_read_back(void **state) {
  const size_t lengths[] = {1, 255, 256, 16384, 0x123456, INT32_MAX};
  (void)state;
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    uint8_t header[FRAME_HEADER_BYTES];
    size_t body_len;
    frame_write_header(header, lengths[i]);
    assert_int_equal(frame_parse(header, sizeof header, INT32_MAX, &body_len), 0);
    assert_int_equal(body_len, lengths[i]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_frame_is_whole_when_its_last_byte_is_there),
      cmocka_unit_test(a_length_of_zero_or_less_is_malformed),
      cmocka_unit_test(a_length_over_the_bound_is_refused_before_the_body_comes),
      cmocka_unit_test(a_written_header_is_read_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
