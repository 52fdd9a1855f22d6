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

static const uint8_t account_key[32] = "0123456789abcdef0123456789abcde";
static const uint8_t old_account_key[16] = "an old account";

struct fixture {
  struct secrets secrets;
  struct handshake_keys keys;
  struct token_bucket budget;
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
  memset(&fixture, 0, sizeof fixture);
  assert_int_equal(seal_global_init(true), 0);
  fixture.issuer = seal_new(account_key, sizeof account_key);
  crypto_sign_keypair(fixture.client_verify.public, fixture.client_signing.secret);
  crypto_sign_keypair(fixture.server_verify.public, fixture.server_signing.secret);
  fixture.secrets.current = (struct login_keys){
      .account_aes_key_len = sizeof account_key,
      .has_certs = true,
      .server_key = fixture.server_signing,
      .server_cert_version = 12,
      .client_key = fixture.client_verify,
      .client_cert_version = 2,
  };
  memcpy(fixture.secrets.current.account_aes_key, account_key, sizeof account_key);
  fixture.keys.encrypted = true;
  fixture.keys.clock_tolerance_s = 5;
  assert_int_equal(handshake_keys_set(&fixture.keys, &fixture.secrets), 0);
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
  handshake_keys_fini(&fixture->keys);
  seal_free(fixture->issuer);
  return 0;
}

static int check_bytes(struct fixture *fixture, const uint8_t *bytes, size_t len,
                       struct handshake *handshake) {
  const struct handshake_terms terms = {.now_s = now_s, .budget = &fixture->budget};
  return handshake_check(&fixture->keys, &terms, bytes, len, handshake);
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
  int verdict = check_bytes(fixture, bytes, len, handshake);
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
  assert_int_equal(check_bytes(fixture, not_a_packet, sizeof not_a_packet, &handshake),
                   CLOSE_HANDSHAKE_MALFORMED);
  assert_int_equal(check_bytes(fixture, not_a_handshake, sizeof not_a_handshake, &handshake),
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

// Else whoever sends junk, over KCP without even an address of his own, keeps the others out.
static void only_who_has_a_good_token_takes_from_the_budget(void **state) {
  struct fixture *fixture = *state;
  static const uint8_t junk[] = {0};
  struct handshake handshake;
  token_bucket_init(&fixture->budget, 1, 2, 0);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(check_bytes(fixture, junk, sizeof junk, &handshake),
                     CLOSE_HANDSHAKE_MALFORMED);
  }
  fixture->seq = SYSTEM_HEARTBEAT;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_UNEXPECTED);
  fixture->seq = SYSTEM_HANDSHAKE;
  fixture->token_text = "";
  ASSERT_VERDICT(CLOSE_TOKEN_EMPTY);
  fixture->token_text = "no base64!";
  ASSERT_VERDICT(CLOSE_TOKEN_ENCODING);
  fixture->token_text = NULL;
  fixture->request.timestamp = now_s + 6;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_CLOCK);
  fixture->request.timestamp = now_s;
  fixture->token.timeout = now_s - 1;
  ASSERT_VERDICT(CLOSE_TOKEN_EXPIRED);
  fixture->token.timeout = now_s + 60;
  ASSERT_VERDICT(HANDSHAKE_OK);
  fixture->sign[0] ^= 1;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_SIGNATURE);
  ASSERT_VERDICT(CLOSE_HANDSHAKE_RATE);
  fixture->sign[0] ^= 1;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_RATE);
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

// --- Keys that are being replaced --------------------------------------------------------

// Another set of certificates, whose private half a client may have and whose public one.
struct certs {
  struct signing_key client_signing;
  struct verify_key server_verify;
};

// Gives the gateway one more previous set, of version client_version and ten more.
static struct certs add_certs(struct fixture *fixture, int32_t client_version, int64_t until_s) {
  struct certs certs;
  struct secrets *secrets = &fixture->secrets;
  struct login_keys *keys = &secrets->previous[secrets->previous_count++];
  *keys = (struct login_keys){.has_certs = true,
                              .server_cert_version = client_version + 10,
                              .client_cert_version = client_version,
                              .until_ms = until_s * 1000};
  crypto_sign_keypair(keys->client_key.public, certs.client_signing.secret);
  crypto_sign_keypair(certs.server_verify.public, keys->server_key.secret);
  assert_int_equal(handshake_keys_set(&fixture->keys, secrets), 0);
  return certs;
}

static void add_account_key(struct fixture *fixture, int64_t until_s) {
  struct secrets *secrets = &fixture->secrets;
  struct login_keys *keys = &secrets->previous[secrets->previous_count++];
  *keys = (struct login_keys){.account_aes_key_len = sizeof old_account_key,
                              .until_ms = until_s * 1000};
  memcpy(keys->account_aes_key, old_account_key, sizeof old_account_key);
  assert_int_equal(handshake_keys_set(&fixture->keys, secrets), 0);
}

static void issue_by(struct fixture *fixture, const uint8_t *key, size_t len) {
  seal_free(fixture->issuer);
  fixture->issuer = seal_new(key, len);
  assert_non_null(fixture->issuer);
}

// The client signs by these certificates, and says that it has that version.
static void sign_by(struct fixture *fixture, const struct signing_key *client, int32_t version) {
  key_sign(client, fixture->pub, KEY_X25519_BYTES, fixture->sign);
  fixture->request.cert_version = version;
}

// The login works, and the answer is signed by that key and says that version.
static void expect_answer(struct fixture *fixture, const struct handshake *handshake,
                          const struct verify_key *server, int32_t version) {
  uint8_t bytes[HANDSHAKE_ANSWER_MAX_BYTES];
  uint8_t shared[KEY_X25519_BYTES];
  struct packet packet;
  size_t len;
  assert_int_equal(handshake_answer(&fixture->keys, handshake, now_s, bytes, &len, shared),
                   HANDSHAKE_OK);
  assert_int_equal(packet_decode(&packet, bytes, len), 0);
  Message__SCHandshake *answer = message__schandshake__unpack(NULL, packet.data_len, packet.data);
  assert_non_null(answer);
  assert_int_equal(key_verify(server, answer->pub.data, answer->pub.len, answer->sign.data), 0);
  assert_int_equal(answer->cert_version, version);
  message__schandshake__free_unpacked(answer, NULL);
}

static void expect_login(struct fixture *fixture, const struct verify_key *server, int32_t version,
                         bool by_previous) {
  struct handshake handshake;
  assert_int_equal(check(fixture, &handshake), HANDSHAKE_OK);
  assert_int_equal(handshake.by_previous_certs, by_previous);
  assert_false(handshake.by_previous_account_key);
  expect_answer(fixture, &handshake, server, version);
}

static void a_token_under_a_previous_account_key_is_good_until_its_time(void **state) {
  struct fixture *fixture = *state;
  struct handshake handshake;
  add_certs(fixture, 1, now_s + 1);  // has no account key at all
  add_account_key(fixture, now_s + 1);
  assert_int_equal(check(fixture, &handshake), HANDSHAKE_OK);
  assert_false(handshake.by_previous_account_key);
  issue_by(fixture, old_account_key, sizeof old_account_key);
  assert_int_equal(check(fixture, &handshake), HANDSHAKE_OK);
  assert_true(handshake.by_previous_account_key);
  assert_false(handshake.by_previous_certs);
  assert_int_equal(handshake.token.account_id, 10001);

  fixture->secrets.previous[1].until_ms = now_s * 1000;
  assert_int_equal(handshake_keys_set(&fixture->keys, &fixture->secrets), 0);
  ASSERT_VERDICT(CLOSE_TOKEN_SEAL);
  fixture->secrets.previous[1].until_ms = 0;
  assert_int_equal(handshake_keys_set(&fixture->keys, &fixture->secrets), 0);
  ASSERT_VERDICT(HANDSHAKE_OK);
}

static void a_token_under_none_of_the_keys_is_refused(void **state) {
  struct fixture *fixture = *state;
  static const uint8_t other_key[24] = "a key of somebody else";
  add_account_key(fixture, 0);
  issue_by(fixture, other_key, sizeof other_key);
  ASSERT_VERDICT(CLOSE_TOKEN_SEAL);
  fixture->token_text = "no base64!";
  ASSERT_VERDICT(CLOSE_TOKEN_ENCODING);
}

static void the_clients_version_picks_the_certificates(void **state) {
  struct fixture *fixture = *state;
  struct certs old = add_certs(fixture, 1, 0);
  sign_by(fixture, &fixture->client_signing, 2);
  expect_login(fixture, &fixture->server_verify, 12, false);
  sign_by(fixture, &old.client_signing, 1);
  expect_login(fixture, &old.server_verify, 11, true);
  // And each only its own.
  sign_by(fixture, &old.client_signing, 2);
  ASSERT_VERDICT(CLOSE_HANDSHAKE_SIGNATURE);
  sign_by(fixture, &fixture->client_signing, 1);
  ASSERT_VERDICT(CLOSE_HANDSHAKE_SIGNATURE);
}

static void a_version_that_is_over_is_none(void **state) {
  struct fixture *fixture = *state;
  struct certs old = add_certs(fixture, 1, now_s + 1);
  sign_by(fixture, &old.client_signing, 1);
  ASSERT_VERDICT(HANDSHAKE_OK);
  fixture->secrets.previous[0].until_ms = now_s * 1000;
  assert_int_equal(handshake_keys_set(&fixture->keys, &fixture->secrets), 0);
  ASSERT_VERDICT(CLOSE_HANDSHAKE_SIGNATURE);
}

static void an_unknown_version_is_taken_for_the_current_one(void **state) {
  struct fixture *fixture = *state;
  struct certs old = add_certs(fixture, 1, 0);
  sign_by(fixture, &fixture->client_signing, 9);
  expect_login(fixture, &fixture->server_verify, 12, false);
  sign_by(fixture, &old.client_signing, 9);
  ASSERT_VERDICT(CLOSE_HANDSHAKE_SIGNATURE);
}

static void a_client_that_names_no_version_may_have_any_and_is_told_none(void **state) {
  struct fixture *fixture = *state;
  struct certs old = add_certs(fixture, 1, 0);
  sign_by(fixture, &fixture->client_signing, 0);
  expect_login(fixture, &fixture->server_verify, 0, false);
  sign_by(fixture, &old.client_signing, 0);
  expect_login(fixture, &old.server_verify, 0, true);
  fixture->sign[0] ^= 1;
  ASSERT_VERDICT(CLOSE_HANDSHAKE_SIGNATURE);
}

static void of_several_with_one_version_the_one_that_verifies_answers(void **state) {
  struct fixture *fixture = *state;
  struct certs newer = add_certs(fixture, 2, 0);
  struct certs older = add_certs(fixture, 2, 0);
  fixture->secrets.previous[1].server_cert_version = 77;
  assert_int_equal(handshake_keys_set(&fixture->keys, &fixture->secrets), 0);
  sign_by(fixture, &fixture->client_signing, 2);
  expect_login(fixture, &fixture->server_verify, 12, false);
  sign_by(fixture, &newer.client_signing, 2);
  expect_login(fixture, &newer.server_verify, 12, true);
  sign_by(fixture, &older.client_signing, 2);
  expect_login(fixture, &older.server_verify, 77, true);
}

static void without_encryption_the_version_alone_picks(void **state) {
  struct fixture *fixture = *state;
  fixture->keys.encrypted = false;
  struct certs old = add_certs(fixture, 1, 0);
  fixture->request.sign.len = 0;
  fixture->request.cert_version = 1;
  expect_login(fixture, &old.server_verify, 11, true);
  fixture->request.cert_version = 9;
  expect_login(fixture, &fixture->server_verify, 12, false);
  fixture->request.cert_version = 0;
  expect_login(fixture, &fixture->server_verify, 0, false);
}

static void keys_may_be_replaced_between_a_login_and_its_answer(void **state) {
  struct fixture *fixture = *state;
  struct handshake handshake;
  struct certs old = add_certs(fixture, 1, 0);
  sign_by(fixture, &old.client_signing, 1);
  assert_int_equal(check(fixture, &handshake), HANDSHAKE_OK);
  // The old one moves to another place.
  fixture->secrets.previous_count = 0;
  struct login_keys keys = fixture->secrets.previous[0];
  add_certs(fixture, 3, 0);
  fixture->secrets.previous[1] = keys;
  fixture->secrets.previous_count = 2;
  assert_int_equal(handshake_keys_set(&fixture->keys, &fixture->secrets), 0);
  expect_answer(fixture, &handshake, &old.server_verify, 11);
  // It is gone.
  fixture->secrets.previous_count = 0;
  assert_int_equal(handshake_keys_set(&fixture->keys, &fixture->secrets), 0);
  expect_answer(fixture, &handshake, &fixture->server_verify, 12);
}

static void the_keys_are_a_copy(void **state) {
  struct fixture *fixture = *state;
  add_account_key(fixture, 0);
  memset(&fixture->secrets, 0xee, sizeof fixture->secrets);
  ASSERT_VERDICT(HANDSHAKE_OK);
  issue_by(fixture, old_account_key, sizeof old_account_key);
  ASSERT_VERDICT(HANDSHAKE_OK);
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
      FACT(only_who_has_a_good_token_takes_from_the_budget),
      FACT(a_wrong_signature_is_refused),
      FACT(a_public_key_of_another_length_is_refused_though_it_is_signed),
      FACT(an_all_zero_public_key_leads_to_no_session_key),
      FACT(the_first_check_that_fails_gives_the_reason),
      FACT(a_token_under_a_previous_account_key_is_good_until_its_time),
      FACT(a_token_under_none_of_the_keys_is_refused),
      FACT(the_clients_version_picks_the_certificates),
      FACT(a_version_that_is_over_is_none),
      FACT(an_unknown_version_is_taken_for_the_current_one),
      FACT(a_client_that_names_no_version_may_have_any_and_is_told_none),
      FACT(of_several_with_one_version_the_one_that_verifies_answers),
      FACT(without_encryption_the_version_alone_picks),
      FACT(keys_may_be_replaced_between_a_login_and_its_answer),
      FACT(the_keys_are_a_copy),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
