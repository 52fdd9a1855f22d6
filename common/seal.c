#include "common/seal.h"

#include <openssl/evp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/prefetch.h"

struct seal {
  // Precomputed for the key; its alignment is why a seal comes from aligned_alloc.
  crypto_aead_aes256gcm_state sodium;
  EVP_CIPHER_CTX *openssl;  // NULL: libsodium is used
  uint8_t salt[SEAL_SALT_BYTES];
  uint64_t used_nonces;
};

static bool aes_ni_allowed;

int seal_global_init(bool with_aes_ni) {
  if (sodium_init() < 0) {
    return ERROR_SYSTEM;
  }
  aes_ni_allowed = with_aes_ni && crypto_aead_aes256gcm_is_available() == 1;
  return 0;
}

static EVP_CIPHER_CTX *openssl_context(const uint8_t *key, size_t key_len) {
  const EVP_CIPHER *cipher = key_len == 16   ? EVP_aes_128_gcm()
                             : key_len == 24 ? EVP_aes_192_gcm()
                                             : EVP_aes_256_gcm();
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  if (context && EVP_CipherInit_ex(context, cipher, NULL, key, NULL, 1) != 1) {
    EVP_CIPHER_CTX_free(context);
    context = NULL;
  }
  return context;
}

struct seal *seal_new(const uint8_t *key, size_t key_len) {
  if (key_len != 16 && key_len != 24 && key_len != 32) {
    return NULL;
  }
  enum { ALIGNMENT = _Alignof(struct seal) };
  struct seal *seal = aligned_alloc(ALIGNMENT, sizeof *seal);
  if (!seal) {
    return NULL;
  }
  memset(seal, 0, sizeof *seal);
  if (aes_ni_allowed && key_len == crypto_aead_aes256gcm_KEYBYTES) {
    crypto_aead_aes256gcm_beforenm(&seal->sodium, key);
  } else if (!(seal->openssl = openssl_context(key, key_len))) {
    free(seal);
    return NULL;
  }
  randombytes_buf(seal->salt, sizeof seal->salt);
  return seal;
}

void seal_free(struct seal *seal) {
  if (seal) {
    EVP_CIPHER_CTX_free(seal->openssl);  // which wipes its own
    sodium_memzero(seal, sizeof *seal);
    free(seal);
  }
}

void seal_prefetch(const struct seal *seal) { prefetch(seal, sizeof *seal); }

static int openssl_seal(EVP_CIPHER_CTX *context, const uint8_t *nonce, uint8_t *text, size_t len) {
  int done;
  if (len > INT32_MAX || EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, 1) != 1 ||
      EVP_CipherUpdate(context, text, &done, text, (int)len) != 1 ||
      EVP_CipherFinal_ex(context, text + len, &done) != 1 ||
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, SEAL_TAG_BYTES, text + len) != 1) {
    return ERROR_CRYPTO;
  }
  return 0;
}

static int openssl_open(EVP_CIPHER_CTX *context, const uint8_t *nonce, uint8_t *text, size_t len) {
  int done;
  if (len > INT32_MAX || EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, 0) != 1 ||
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, SEAL_TAG_BYTES, text + len) != 1 ||
      EVP_CipherUpdate(context, text, &done, text, (int)len) != 1 ||
      EVP_CipherFinal_ex(context, text + len, &done) != 1) {
    return ERROR_CRYPTO;
  }
  return 0;
}

int seal_in_place(struct seal *seal, uint8_t *buffer, size_t plain_len) {
  if (seal->used_nonces > UINT32_MAX) {
    return ERROR_EXHAUSTED;
  }
  uint32_t counter = (uint32_t)seal->used_nonces++;
  memcpy(buffer, seal->salt, SEAL_SALT_BYTES);
  memcpy(buffer + SEAL_SALT_BYTES, &counter, sizeof counter);
  uint8_t *text = buffer + SEAL_NONCE_BYTES;
  if (seal->openssl) {
    return openssl_seal(seal->openssl, buffer, text, plain_len);
  }
  crypto_aead_aes256gcm_encrypt_afternm(text, NULL, text, plain_len, NULL, 0, NULL, buffer,
                                        (const crypto_aead_aes256gcm_state *)&seal->sodium);
  return 0;
}

int seal_open_in_place(struct seal *seal, uint8_t *buffer, size_t sealed_len, uint8_t **plain,
                       size_t *plain_len) {
  if (sealed_len < SEAL_OVERHEAD_BYTES) {
    return ERROR_TRUNCATED;
  }
  if (memcmp(buffer, seal->salt, SEAL_SALT_BYTES) == 0) {
    return ERROR_REPLAY;
  }
  uint8_t *text = buffer + SEAL_NONCE_BYTES;
  size_t text_len = sealed_len - SEAL_OVERHEAD_BYTES;
  *plain = text;
  *plain_len = text_len;
  if (seal->openssl) {
    return openssl_open(seal->openssl, buffer, text, text_len);
  }
  if (crypto_aead_aes256gcm_decrypt_afternm(
          text, NULL, NULL, text, text_len + SEAL_TAG_BYTES, NULL, 0, buffer,
          (const crypto_aead_aes256gcm_state *)&seal->sodium) != 0) {
    return ERROR_CRYPTO;
  }
  return 0;
}
