#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <sodium.h>
#include <string.h>

#include "common/keys.h"
#include "test/unit/vectors.h"

static int set_up(void **state) {
  (void)state;
  return sodium_init() < 0 ? -1 : 0;
}

static struct signing_key signing_key_of(const char *name) {
  struct vector seed = vector_read(name);
  struct signing_key key;
  uint8_t public[KEY_ED25519_PUBLIC_BYTES];
  crypto_sign_seed_keypair(public, key.secret, seed.bytes);
  return key;
}

static struct verify_key verify_key_of(const char *name) {
  struct verify_key key;
  memcpy(key.public, vector_read(name).bytes, sizeof key.public);
  return key;
}

static void the_worked_signatures_are_made_and_verified(void **state) {
  struct signing_key server = signing_key_of("server_ed25519_seed");
  struct verify_key client = verify_key_of("client_ed25519_public");
  struct vector server_public = vector_read("server_x25519_public");
  struct vector client_public = vector_read("client_x25519_public");
  struct vector client_signature = vector_read("client_sign_over_client_x25519_public");
  uint8_t signature[KEY_ED25519_SIGNATURE_BYTES];
  (void)state;
  key_sign(&server, server_public.bytes, server_public.len, signature);
  assert_memory_equal(signature, vector_read("server_sign_over_server_x25519_public").bytes,
                      sizeof signature);
  assert_int_equal(
      key_verify(&client, client_public.bytes, client_public.len, client_signature.bytes), 0);
  client_signature.bytes[10] ^= 1;
  assert_int_equal(
      key_verify(&client, client_public.bytes, client_public.len, client_signature.bytes),
      ERROR_CRYPTO);
}

static void the_worked_key_exchange_gives_the_shared_key(void **state) {
  struct vector server = vector_read("server_x25519_private");
  struct vector client = vector_read("client_x25519_public");
  uint8_t shared[KEY_X25519_BYTES];
  (void)state;
  assert_int_equal(key_exchange_shared(shared, server.bytes, client.bytes), 0);
  assert_memory_equal(shared, vector_read("shared_key").bytes, sizeof shared);
}

static void fresh_pairs_agree_and_differ(void **state) {
  uint8_t secret[2][KEY_X25519_BYTES];
  uint8_t public[2][KEY_X25519_BYTES];
  uint8_t shared[2][KEY_X25519_BYTES];
  (void)state;
  for (int i = 0; i < 2; i++) {
    key_exchange_pair(secret[i], public[i]);
  }
  assert_memory_not_equal(secret[0], secret[1], KEY_X25519_BYTES);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(key_exchange_shared(shared[i], secret[i], public[1 - i]), 0);
  }
  assert_memory_equal(shared[0], shared[1], KEY_X25519_BYTES);
}

static void low_order_public_keys_are_refused(void **state) {
  uint8_t secret[KEY_X25519_BYTES];
  uint8_t public[KEY_X25519_BYTES];
  uint8_t shared[KEY_X25519_BYTES];
  uint8_t low[KEY_X25519_BYTES] = {0};
  (void)state;
  key_exchange_pair(secret, public);
  assert_int_equal(key_exchange_shared(shared, secret, low), ERROR_CRYPTO);
  low[0] = 1;
  assert_int_equal(key_exchange_shared(shared, secret, low), ERROR_CRYPTO);
}

// Reading PEM and certificates is shown with the configuration (test_config.c),
// where they come from.
static void text_that_is_no_pem_is_malformed(void **state) {
  struct signing_key signing;
  struct verify_key verify;
  const char text[] = "-----BEGIN NOTHING-----\n";
  (void)state;
  assert_int_equal(signing_key_from_pem(&signing, text, sizeof text - 1), ERROR_MALFORMED);
  assert_int_equal(signing_key_from_pem(&signing, "", 0), ERROR_MALFORMED);
  assert_int_equal(verify_key_from_certificate(&verify, text, sizeof text - 1, 0), ERROR_MALFORMED);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_worked_signatures_are_made_and_verified),
      cmocka_unit_test(the_worked_key_exchange_gives_the_shared_key),
      cmocka_unit_test(fresh_pairs_agree_and_differ),
      cmocka_unit_test(low_order_public_keys_are_refused),
      cmocka_unit_test(text_that_is_no_pem_is_malformed),
  };
  return cmocka_run_group_tests(tests, set_up, NULL);
}
