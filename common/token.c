#include "common/token.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "proto/auth_token.pb-c.h"

static const int base64_variant = sodium_base64_VARIANT_URLSAFE;

static enum token_result read_content(const uint8_t *bytes, size_t len, struct token *token) {
  Gate__Intra__V1__AuthToken *read = gate__intra__v1__auth_token__unpack(NULL, len, bytes);
  if (!read) {
    return TOKEN_BAD_CONTENT;
  }
  enum token_result result = TOKEN_BAD_CONTENT;
  if (strlen(read->color) <= TOKEN_COLOR_MAX_BYTES) {
    *token = (struct token){.account_id = read->account_id,
                            .server_id = read->server_id,
                            .timeout = read->timeout,
                            .location = read->location,
                            .status = read->status,
                            .unencrypted = read->unencrypted};
    strcpy(token->color, read->color);
    result = TOKEN_OK;
  }
  gate__intra__v1__auth_token__free_unpacked(read, NULL);
  return result;
}

enum token_result token_read(struct seal *account_seal, const char *text, size_t text_len,
                             struct token *token) {
  uint8_t sealed[TOKEN_TEXT_MAX_BYTES];
  uint8_t *plain;
  size_t sealed_len;
  size_t plain_len;
  if (text_len > TOKEN_TEXT_MAX_BYTES ||
      sodium_base642bin(sealed, sizeof sealed, text, text_len, NULL, &sealed_len, NULL,
                        base64_variant) != 0) {
    return TOKEN_BAD_ENCODING;
  }
  if (seal_open_in_place(account_seal, sealed, sealed_len, &plain, &plain_len) != 0) {
    return TOKEN_BAD_SEAL;
  }
  return read_content(plain, plain_len, token);
}

char *token_write(struct seal *account_seal, const struct token *token) {
  Gate__Intra__V1__AuthToken content = GATE__INTRA__V1__AUTH_TOKEN__INIT;
  content.color = (char *)token->color;
  content.account_id = token->account_id;
  content.server_id = token->server_id;
  content.timeout = token->timeout;
  content.location = token->location;
  content.status = token->status;
  content.unencrypted = token->unencrypted;
  char rand[17];
  uint8_t random_bytes[8];
  randombytes_buf(random_bytes, sizeof random_bytes);
  content.rand = sodium_bin2hex(rand, sizeof rand, random_bytes, sizeof random_bytes);

  size_t len = gate__intra__v1__auth_token__get_packed_size(&content);
  size_t sealed_len = len + SEAL_OVERHEAD_BYTES;
  size_t text_len = sodium_base64_encoded_len(sealed_len, base64_variant);
  uint8_t *sealed = malloc(sealed_len);
  char *text = malloc(text_len);
  if (sealed && text) {
    gate__intra__v1__auth_token__pack(&content, sealed + SEAL_NONCE_BYTES);
  }
  if (!sealed || !text || seal_in_place(account_seal, sealed, len) != 0) {
    free(text);
    text = NULL;
  } else {
    sodium_bin2base64(text, text_len, sealed, sealed_len, base64_variant);
  }
  free(sealed);
  return text;
}
