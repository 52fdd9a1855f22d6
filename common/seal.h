// AES-GCM in the layout that tokens and messages share: 12-byte nonce, then
// ciphertext, then 16-byte tag, no associated data. Works in place.
//
// A nonce that we draw is a random 8-byte salt for the life of the object and a
// 4-byte counter, so none repeats under the key; and a message that comes in
// under our own salt is our own, played back.
//
// 32-byte keys on a processor with AES-NI go through libsodium, everything else
// through OpenSSL. One object belongs to one thread at a time.
#ifndef JANUS_COMMON_SEAL_H
#define JANUS_COMMON_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum {
  SEAL_NONCE_BYTES = 12,
  SEAL_TAG_BYTES = 16,
  SEAL_OVERHEAD_BYTES = SEAL_NONCE_BYTES + SEAL_TAG_BYTES,
  SEAL_SALT_BYTES = 8,
};

struct seal;

// Once per process before any other call: sets up libsodium. with_aes_ni false
// forces the OpenSSL path everywhere (the setting `seal.aes_ni = false`, for
// tests and for machines where AES-NI must not be used).
int seal_global_init(bool with_aes_ni) MUST_CHECK;

// A new object for a key of 16, 24 or 32 bytes, which is copied. NULL when out
// of memory or the length is another.
struct seal *seal_new(const uint8_t *key, size_t key_len);
void seal_free(struct seal *seal);  // wipes the key; accepts NULL

void seal_prefetch(const struct seal *seal);  // for the next call; accepts NULL

// Seals the plain_len bytes that stand at buffer + SEAL_NONCE_BYTES in place;
// buffer must hold plain_len + SEAL_OVERHEAD_BYTES. ERROR_EXHAUSTED once the
// 2^32 nonces are used up: then the session must end.
int seal_in_place(struct seal *seal, uint8_t *buffer, size_t plain_len) MUST_CHECK;

// Opens sealed_len bytes at buffer in place; *plain then points into buffer.
// ERROR_TRUNCATED: shorter than nonce and tag; ERROR_REPLAY: our own salt;
// ERROR_CRYPTO: the tag does not verify (buffer is then unspecified).
int seal_open_in_place(struct seal *seal, uint8_t *buffer, size_t sealed_len, uint8_t **plain,
                       size_t *plain_len) MUST_CHECK;

#endif
