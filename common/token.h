// Login tokens: URL-safe base64 with padding, over AES-GCM sealed bytes (seal.h)
// under the account key, over protobuf `gate.intra.v1.AuthToken`.
#ifndef JANUS_COMMON_TOKEN_H
#define JANUS_COMMON_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/seal.h"

enum {
  TOKEN_COLOR_MAX_BYTES = 63,   // a longer color is ERROR_TOO_LARGE
  TOKEN_TEXT_MAX_BYTES = 4096,  // a longer token text likewise
};

struct token {
  char color[TOKEN_COLOR_MAX_BYTES + 1];
  int64_t account_id;  // the uid
  int64_t server_id;
  int64_t timeout;  // unix seconds
  int32_t location;
  int32_t status;
  bool unencrypted;
};

// Which step of reading a token failed; each has a close reason of its own.
enum token_result {
  TOKEN_OK = 0,
  TOKEN_BAD_ENCODING,  // not base64 of that alphabet, or unpadded, or too long
  TOKEN_BAD_SEAL,      // too short for a seal, or sealed with another key
  TOKEN_BAD_CONTENT,   // not an AuthToken, a color too long or with a NUL byte
};

// account_seal holds the account key. It must not be the one that wrote the token:
// a seal refuses what it sealed itself.
enum token_result token_read(struct seal *account_seal, const char *text, size_t text_len,
                             struct token *token) MUST_CHECK;

// Makes the text of a token (for tools and tests): a malloc'd string for the
// caller to free, NULL when out of memory.
char *token_write(struct seal *account_seal, const struct token *token);

#endif
