#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/packet.h"
#include "proto/message.pb-c.h"
#include "worker/handshake.h"

static const int64_t now_s = 1750000000;

struct fixture {
  struct handshake_keys keys;
  struct seal *issuer;  // the account service's, under the same key
  struct signing_key client_signing;
  struct signing_key server_signing;
  struct verify_key client_verify;
  struct verify_key server_verify;
  uint8_t client_secret[KEY_X25519_BYTES];

  // The request to be sent; a test changes what it is about.
  struct token token;
  uint8_t pub[KEY_X25519_BYTES + 1];
  uint8_t sign[KEY_ED25519_SIGNATURE_BYTES];
  const char *token_text;  // NULL: made from token
  Message__CSHandshake request;
  int32_t mod;
  int32_t seq;
};

static int set_up(void **state) {
  static struct fixture fixture;
  static const uint8_t account_key[32] = "0123456789abcdef0123456789abcde";
  memset(&fixture, 0, sizeof fixture);
  assert_int_equal(seal_global_init(true), 0);
  fixture.issuer = seal_new(account_key, sizeof account_key);
  crypto_sign_keypair(fixture.client_verify.public, fixture.client_signing.secret);
  crypto_sign_keypair(fixture.server_verify.public, fixture.server_signing.secret);
  fixture.keys = (struct handshake_keys){.account_seal = seal_new(account_key, sizeof account_key),
                                         .client_key = &fixture.client_verify,
                                         .server_key = &fixture.server_signing,
                                         .encrypted = true,
                                         .clock_tolerance_s = 5};
  fixture.token = (struct token){
      .color = "blue", .account_id = 10001, .server_id = 7, .timeout = now_s + 60, .status = 1};
  key_exchange_pair(fixture.client_secret, fixture.pub);
  key_sign(&fixture.client_signing, fixture.pub, KEY_X25519_BYTES, fixture.sign);
  fixture.request = (Message__CSHandshake)MESSAGE__CSHANDSHAKE__INIT;
  fixture.request.pub = (ProtobufCBinaryData){KEY_X25519_BYTES, fixture.pub};
  fixture.request.sign = (ProtobufCBinaryData){sizeof fixture.sign, fixture.sign};
  fixture.request.timestamp = now_s;
  fixture.mod = MODULE_SYSTEM;
  fixture.seq = SYSTEM_HANDSHAKE;
  *state = &fixture;
  return 0;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  seal_free(fixture->keys.account_seal);
  seal_free(fixture->issuer);
  return 0;
}

static int check(struct fixture *fixture, struct handshake *handshake) {
  uint8_t data[8192];
  uint8_t bytes[8300];
  char *text = fixture->token_text ? strdup(fixture->token_text)
                                   : token_write(fixture->issuer, &fixture->token);
  assert_non_null(text);
  fixture->request.token = text;
  struct packet packet = {.data = data,
                          .data_len = message__cshandshake__pack(&fixture->request, data),
                          .mod = fixture->mod,
                          .seq = fixture->seq};
  size_t len = (size_t)(packet_encode(&packet, bytes) - bytes);
  int verdict = handshake_check(&fixture->keys, bytes, len, now_s, handshake);
  free(text);
  return verdict;
}

#define ASSERT_VERDICT(expected)                         \
  do {                                                   \
    struct handshake unused;                             \
    assert_int_equal(check(fixture, &unused), expected); \
  } while (0)

static void a_good_handshake_tells_who_the_player_is(void **state) {
  struct handshake handshake;
  assert_int_equal(check(*state, &handshake), HANDSHAKE_OK);
  assert_int_equal(handshake.token.account_id, 10001);
  assert_string_equal(handshake.token.color, "blue");
  assert_int_equal(handshake.token.status, 1);
  assert_int_equal(handshake.sid, 7);
}

static void the_clients_server_id_goes_before_the_tokens(void **state) {
  struct fixture *fixture = *state;
  struct handshake handshake;
  fixture->request.server_id = 9;
  assert_int_equal(check(fixture, &handshake), HANDSHAKE_OK);
  assert_int_equal(handshake.sid, 9);
}

static void both_sides_arrive_at_the_same_key(void **state) {
  struct fixture *fixture = *state;
  struct handshake handshake;
  uint8_t bytes[HANDSHAKE_ANSWER_MAX_BYTES];
  uint8_t ours[KEY_X25519_BYTES];
  uint8_t theirs[KEY_X25519_BYTES];
  struct packet packet;
  size_t len;
  assert_int_equal(check(fixture, &handshake), HANDSHAKE_OK);
  assert_int_equal(handshake_answer(&fixture->keys, &handshake, now_s + 1, bytes, &len, ours),
                   HANDSHAKE_OK);
  assert_int_equal(packet_decode(&packet, bytes, len), 0);
  assert_int_equal(packet.mod, MODULE_SYSTEM);
  assert_int_equal(packet.seq, SYSTEM_HANDSHAKE);
  Message__SCHandshake *answer = message__schandshake__unpack(NULL, packet.data_len, packet.data);
  assert_non_null(answer);
  assert_int_equal(answer->timestamp, now_s + 1);
  assert_int_equal(answer->start_index, 1);
  assert_int_equal(answer->pub.len, KEY_X25519_BYTES);
  assert_int_equal(answer->sign.len, KEY_ED25519_SIGNATURE_BYTES);
  assert_int_equal(
      key_verify(&fixture->server_verify, answer->pub.data, answer->pub.len, answer->sign.data), 0);
  assert_int_equal(key_exchange_shared(theirs, fixture->client_secret, answer->pub.data), 0);
  assert_memory_equal(ours, theirs, sizeof ours);
  message__schandshake__free_unpacked(answer, NULL);
}

static void without_encryption_the_key_is_zero_and_signed_all_the_same(void **state) {
  struct fixture *fixture = *state;
  struct handshake handshake;
  uint8_t bytes[HANDSHAKE_ANSWER_MAX_BYTES];
  uint8_t shared[KEY_X25519_BYTES];
  static const uint8_t zero[KEY_X25519_BYTES];
  struct packet packet;
  size_t len;
  fixture->keys.encrypted = false;
  fixture->request.pub.len = 0;
  fixture->request.sign.len = 0;
  assert_int_equal(check(fixture, &handshake), HANDSHAKE_OK);
  assert_int_equal(handshake_answer(&fixture->keys, &handshake, now_s, bytes, &len, shared),
                   HANDSHAKE_OK);
  assert_int_equal(packet_decode(&packet, bytes, len), 0);
  Message__SCHandshake *answer = message__schandshake__unpack(NULL, packet.data_len, packet.data);
  assert_non_null(answer);
  assert_int_equal(answer->pub.len, sizeof zero);
  assert_memory_equal(answer->pub.data, zero, sizeof zero);
  assert_int_equal(key_verify(&fixture->server_verify, zero, sizeof zero, answer->sign.data), 0);
  message__schandshake__free_unpacked(answer, NULL);
}

static void another_first_message_is_refused(void **state) {
  struct fixture *fixture = *state;
  fixture->seq = SYSTEM_HEARTBEAT;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_UNEXPECTED);
  fixture->seq = SYSTEM_HANDSHAKE;
  fixture->mod = MODULE_USER;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_UNEXPECTED);
}

static void bytes_that_are_no_packet_are_refused(void **state) {
  struct fixture *fixture = *state;
  struct handshake handshake;
  const uint8_t not_a_packet[] = {0xff, 0xff, 0xff};
  const uint8_t not_a_handshake[] = {0x0a, 0x02, 0x0a, 0x7f, 0x20, 0x01, 0x28, 0x01};
  assert_int_equal(
      handshake_check(&fixture->keys, not_a_packet, sizeof not_a_packet, now_s, &handshake),
      CLOSE_HANDSHAKE_MALFORMED);
  assert_int_equal(
      handshake_check(&fixture->keys, not_a_handshake, sizeof not_a_handshake, now_s, &handshake),
      CLOSE_HANDSHAKE_MALFORMED);
}

static void an_empty_token_is_refused(void **state) {
  struct fixture *fixture = *state;
  fixture->token_text = "";
  ASSERT_VERDICT(CLOSE_TOKEN_EMPTY);
}

static void a_clock_five_seconds_off_passes_and_six_does_not(void **state) {
  struct fixture *fixture = *state;
  for (int sign = -1; sign <= 1; sign += 2) {
    fixture->request.timestamp = now_s + 5 * sign;
    ASSERT_VERDICT(HANDSHAKE_OK);
    fixture->request.timestamp = now_s + 6 * sign;
    ASSERT_VERDICT(CLOSE_HANDSHAKE_CLOCK);
  }
  fixture->request.timestamp = INT64_MIN;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_CLOCK);
  fixture->request.timestamp = INT64_MAX;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_CLOCK);
}

static void a_token_that_is_not_base64_is_refused(void **state) {
  struct fixture *fixture = *state;
  fixture->token_text = "no base64!";
  ASSERT_VERDICT(CLOSE_TOKEN_ENCODING);
}

static void a_token_sealed_with_another_key_is_refused(void **state) {
  struct fixture *fixture = *state;
  static const uint8_t other_key[16] = "another account";
  struct seal *other = seal_new(other_key, sizeof other_key);
  char *text = token_write(other, &fixture->token);
  fixture->token_text = text;
  ASSERT_VERDICT(CLOSE_TOKEN_SEAL);
  free(text);
  seal_free(other);
}

static void a_token_is_good_until_its_timeout(void **state) {
  struct fixture *fixture = *state;
  fixture->token.timeout = now_s + 1;
  ASSERT_VERDICT(HANDSHAKE_OK);
  fixture->token.timeout = now_s - 1;
  ASSERT_VERDICT(CLOSE_TOKEN_EXPIRED);
}

static void a_wrong_signature_is_refused(void **state) {
  struct fixture *fixture = *state;
  fixture->sign[0] ^= 1;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_SIGNATURE);
  fixture->sign[0] ^= 1;
  fixture->request.sign.len = 63;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_SIGNATURE);
}

static void a_public_key_of_another_length_is_refused_though_it_is_signed(void **state) {
  struct fixture *fixture = *state;
  for (size_t len = 31; len <= 33; len += 2) {
    fixture->request.pub.len = len;
    key_sign(&fixture->client_signing, fixture->pub, len, fixture->sign);
    ASSERT_VERDICT(CLOSE_HANDSHAKE_KEY);
  }
}

static void an_all_zero_public_key_leads_to_no_session_key(void **state) {
  struct fixture *fixture = *state;
  struct handshake handshake;
  uint8_t bytes[HANDSHAKE_ANSWER_MAX_BYTES];
  uint8_t shared[KEY_X25519_BYTES];
  size_t len;
  memset(fixture->pub, 0, sizeof fixture->pub);
  key_sign(&fixture->client_signing, fixture->pub, KEY_X25519_BYTES, fixture->sign);
  assert_int_equal(check(fixture, &handshake), HANDSHAKE_OK);
  assert_int_equal(handshake_answer(&fixture->keys, &handshake, now_s, bytes, &len, shared),
                   CLOSE_HANDSHAKE_KEY);
}

static void the_first_check_that_fails_gives_the_reason(void **state) {
  struct fixture *fixture = *state;
  fixture->sign[0] ^= 1;
  fixture->token.timeout = 0;
  ASSERT_VERDICT(CLOSE_TOKEN_EXPIRED);
  fixture->request.timestamp = 0;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_CLOCK);
  fixture->token_text = "";
  ASSERT_VERDICT(CLOSE_TOKEN_EMPTY);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_good_handshake_tells_who_the_player_is),
      FACT(the_clients_server_id_goes_before_the_tokens),
      FACT(both_sides_arrive_at_the_same_key),
      FACT(without_encryption_the_key_is_zero_and_signed_all_the_same),
      FACT(another_first_message_is_refused),
      FACT(bytes_that_are_no_packet_are_refused),
      FACT(an_empty_token_is_refused),
      FACT(a_clock_five_seconds_off_passes_and_six_does_not),
      FACT(a_token_that_is_not_base64_is_refused),
      FACT(a_token_sealed_with_another_key_is_refused),
      FACT(a_token_is_good_until_its_timeout),
      FACT(a_wrong_signature_is_refused),
      FACT(a_public_key_of_another_length_is_refused_though_it_is_signed),
      FACT(an_all_zero_public_key_leads_to_no_session_key),
      FACT(the_first_check_that_fails_gives_the_reason),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
