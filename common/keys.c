#include "common/keys.h"

#include <limits.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <string.h>

static BIO *bio_of(const char *pem, size_t pem_len) {
  return pem_len <= INT_MAX ? BIO_new_mem_buf(pem, (int)pem_len) : NULL;
}

// A PEM that is itself encrypted is refused rather than asked about on a terminal.
// NOLINTNEXTLINE(readability-non-const-parameter): the type is OpenSSL's
static int no_passphrase(char *buffer, int size, int writing, void *context) {
  (void)buffer;
  (void)size;
  (void)writing;
  (void)context;
  return -1;
}

int signing_key_from_pem(struct signing_key *key, const char *pem, size_t pem_len) {
  uint8_t seed[crypto_sign_SEEDBYTES];
  uint8_t public[KEY_ED25519_PUBLIC_BYTES];
  size_t seed_len = sizeof seed;
  BIO *bio = bio_of(pem, pem_len);
  EVP_PKEY *read = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
  int error = 0;
  if (!read) {
    error = ERROR_MALFORMED;
  } else if (EVP_PKEY_id(read) != EVP_PKEY_ED25519 ||
             EVP_PKEY_get_raw_private_key(read, seed, &seed_len) != 1 || seed_len != sizeof seed) {
    error = ERROR_CRYPTO;
  } else {
    crypto_sign_seed_keypair(public, key->secret, seed);
  }
  sodium_memzero(seed, sizeof seed);
  EVP_PKEY_free(read);
  BIO_free(bio);
  return error;
}

int verify_key_from_certificate(struct verify_key *key, const char *pem, size_t pem_len,
                                time_t now) {
  BIO *bio = bio_of(pem, pem_len);
  X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
  EVP_PKEY *public = certificate ? X509_get0_pubkey(certificate) : NULL;
  size_t len = sizeof key->public;
  int error = 0;
  if (!certificate) {
    error = ERROR_MALFORMED;
  } else if (!public || EVP_PKEY_id(public) != EVP_PKEY_ED25519 ||
             EVP_PKEY_get_raw_public_key(public, key->public, &len) != 1 ||
             len != sizeof key->public) {
    error = ERROR_CRYPTO;
  } else if (X509_cmp_time(X509_get0_notBefore(certificate), &now) > 0 ||
             X509_cmp_time(X509_get0_notAfter(certificate), &now) < 0) {
    error = ERROR_EXPIRED;
  }
  X509_free(certificate);
  BIO_free(bio);
  return error;
}

void key_sign(const struct signing_key *key, const uint8_t *bytes, size_t len,
              uint8_t signature[KEY_ED25519_SIGNATURE_BYTES]) {
  crypto_sign_detached(signature, NULL, bytes, len, key->secret);
}

int key_verify(const struct verify_key *key, const uint8_t *bytes, size_t len,
               const uint8_t signature[KEY_ED25519_SIGNATURE_BYTES]) {
  return crypto_sign_verify_detached(signature, bytes, len, key->public) == 0 ? 0 : ERROR_CRYPTO;
}

void key_exchange_pair(uint8_t secret[KEY_X25519_BYTES], uint8_t public[KEY_X25519_BYTES]) {
  randombytes_buf(secret, KEY_X25519_BYTES);
  crypto_scalarmult_base(public, secret);
}

int key_exchange_shared(uint8_t shared[KEY_X25519_BYTES], const uint8_t secret[KEY_X25519_BYTES],
                        const uint8_t peer_public[KEY_X25519_BYTES]) {
  // libsodium itself refuses a result of all zeros.
  return crypto_scalarmult(shared, secret, peer_public) == 0 ? 0 : ERROR_CRYPTO;
}
