// The long-lived keys of the gateway: reading them from PEM, and signing and
// verifying with them. Ed25519 and X25519 run on libsodium, PEM and X.509 are
// read by OpenSSL.
#ifndef JANUS_COMMON_KEYS_H
#define JANUS_COMMON_KEYS_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/error.h"

enum {
  KEY_X25519_BYTES = 32,
  KEY_ED25519_PUBLIC_BYTES = 32,
  KEY_ED25519_SECRET_BYTES = 64,  // libsodium's form: seed and public key
  KEY_ED25519_SIGNATURE_BYTES = 64,
};

struct signing_key {
  uint8_t secret[KEY_ED25519_SECRET_BYTES];
};
struct verify_key {
  uint8_t public[KEY_ED25519_PUBLIC_BYTES];
};

// An Ed25519 private key in PKCS#8 PEM. ERROR_MALFORMED: no such PEM;
// ERROR_CRYPTO: a key of another kind.
int signing_key_from_pem(struct signing_key *key, const char *pem, size_t pem_len) MUST_CHECK;

// The Ed25519 public key of an X.509 certificate in PEM. ERROR_EXPIRED when now
// (unix seconds) is outside its validity; otherwise as above.
int verify_key_from_certificate(struct verify_key *key, const char *pem, size_t pem_len,
                                time_t now) MUST_CHECK;

void key_sign(const struct signing_key *key, const uint8_t *bytes, size_t len,
              uint8_t signature[KEY_ED25519_SIGNATURE_BYTES]);
// 0, or ERROR_CRYPTO.
int key_verify(const struct verify_key *key, const uint8_t *bytes, size_t len,
               const uint8_t signature[KEY_ED25519_SIGNATURE_BYTES]) MUST_CHECK;

// A fresh X25519 key pair.
void key_exchange_pair(uint8_t secret[KEY_X25519_BYTES], uint8_t public[KEY_X25519_BYTES]);
// The raw shared secret, used as the AES-256 key as it is. ERROR_CRYPTO when it
// would be all zero (a low-order public key).
int key_exchange_shared(uint8_t shared[KEY_X25519_BYTES], const uint8_t secret[KEY_X25519_BYTES],
                        const uint8_t peer_public[KEY_X25519_BYTES]) MUST_CHECK;

#endif
