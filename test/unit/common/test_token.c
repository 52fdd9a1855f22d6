#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/token.h"
#include "test/unit/vectors.h"

struct fixture {
  struct seal *issuer;  // the account service's
  struct seal *gateway;
};

static const char key[] = "0123456789abcdef0123456789abcdef";

static int set_up(void **state) {
  static struct fixture fixture;
  if (seal_global_init(true) != 0) {
    return -1;
  }
  fixture.issuer = seal_new((const uint8_t *)key, 32);
  fixture.gateway = seal_new((const uint8_t *)key, 32);
  *state = &fixture;
  return fixture.issuer && fixture.gateway ? 0 : -1;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  seal_free(fixture->issuer);
  seal_free(fixture->gateway);
  return 0;
}

static enum token_result read_text(struct fixture *fixture, const char *text) {
  struct token token;
  return token_read(fixture->gateway, text, strlen(text), &token);
}

static void the_worked_token_is_read(void **state) {
  struct fixture *fixture = *state;
  struct vector vector = vector_read("token");
  struct token token;
  assert_int_equal(token_read(fixture->gateway, vector.text, strlen(vector.text), &token),
                   TOKEN_OK);
  assert_string_equal(token.color, "blue");
  assert_int_equal(token.account_id, 10001);
  assert_int_equal(token.server_id, 7);
  assert_int_equal(token.timeout, 4102444800);
  assert_int_equal(token.status, 1);
  assert_false(token.unencrypted);
}

static void a_written_token_is_read_back(void **state) {
  struct fixture *fixture = *state;
  struct token written = {.account_id = -5,
                          .server_id = INT64_MAX,
                          .timeout = 99,
                          .location = 3,
                          .status = 4,
                          .unencrypted = true};
  struct token token;
  memset(written.color, 'c', TOKEN_COLOR_MAX_BYTES);
  char *text = token_write(fixture->issuer, &written);
  assert_int_equal(token_read(fixture->gateway, text, strlen(text), &token), TOKEN_OK);
  assert_string_equal(token.color, written.color);
  assert_int_equal(token.account_id, -5);
  assert_int_equal(token.server_id, INT64_MAX);
  assert_int_equal(token.location, 3);
  assert_int_equal(token.status, 4);
  assert_true(token.unencrypted);
  free(text);
}

static void what_is_not_padded_url_safe_base64_is_refused(void **state) {
  struct fixture *fixture = *state;
  struct vector vector = vector_read("token");
  char text[2 * VECTOR_MAX_BYTES + 8];
  assert_int_equal(read_text(fixture, "no base64!"), TOKEN_BAD_ENCODING);
  snprintf(text, sizeof text, "%.*s", (int)strcspn(vector.text, "="), vector.text);
  assert_int_equal(read_text(fixture, text), TOKEN_BAD_ENCODING);  // without its padding
  snprintf(text, sizeof text, "%s ", vector.text);
  assert_int_equal(read_text(fixture, text), TOKEN_BAD_ENCODING);
  strcpy(text, vector.text);
  *strchr(text, '_') = '/';  // the other alphabet
  assert_int_equal(read_text(fixture, text), TOKEN_BAD_ENCODING);
}

static void a_text_that_is_too_long_is_refused(void **state) {
  char text[TOKEN_TEXT_MAX_BYTES + 5];
  memset(text, 'A', sizeof text);
  text[sizeof text - 1] = '\0';
  assert_int_equal(read_text(*state, text), TOKEN_BAD_ENCODING);
}

static void a_truncated_token_is_refused(void **state) {
  assert_int_equal(read_text(*state, ""), TOKEN_BAD_SEAL);
  assert_int_equal(read_text(*state, "QUJDRA=="), TOKEN_BAD_SEAL);
}

static void a_token_under_another_key_is_refused(void **state) {
  struct seal *other = seal_new((const uint8_t *)"another key of 16", 16);
  const struct token token = {.account_id = 1};
  char *text = token_write(other, &token);
  assert_int_equal(read_text(*state, text), TOKEN_BAD_SEAL);
  free(text);
  seal_free(other);
}

// Seals any bytes as if they were a token.
static char *sealed(struct fixture *fixture, const uint8_t *bytes, size_t len) {
  uint8_t buffer[512];
  char *text = malloc(1024);
  memcpy(buffer + SEAL_NONCE_BYTES, bytes, len);
  assert_int_equal(seal_in_place(fixture->issuer, buffer, len), 0);
  return sodium_bin2base64(text, 1024, buffer, len + SEAL_OVERHEAD_BYTES,
                           sodium_base64_VARIANT_URLSAFE);
}

static void content_of_another_shape_is_refused(void **state) {
  struct fixture *fixture = *state;
  uint8_t long_color[2 + TOKEN_COLOR_MAX_BYTES + 1] = {0x12, TOKEN_COLOR_MAX_BYTES + 1};
  const uint8_t not_protobuf[] = {0xff, 0xff};
  char *text = sealed(fixture, not_protobuf, sizeof not_protobuf);
  assert_int_equal(read_text(fixture, text), TOKEN_BAD_CONTENT);
  free(text);
  memset(long_color + 2, 'c', TOKEN_COLOR_MAX_BYTES + 1);
  text = sealed(fixture, long_color, sizeof long_color);
  assert_int_equal(read_text(fixture, text), TOKEN_BAD_CONTENT);
  free(text);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(the_worked_token_is_read),
      FACT(a_written_token_is_read_back),
      FACT(what_is_not_padded_url_safe_base64_is_refused),
      FACT(a_text_that_is_too_long_is_refused),
      FACT(a_truncated_token_is_refused),
      FACT(a_token_under_another_key_is_refused),
      FACT(content_of_another_shape_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
