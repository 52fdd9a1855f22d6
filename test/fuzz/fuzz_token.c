// Login tokens: as text, and (every other input) as the content of a token that is
// sealed properly, so that what lies behind the seal is reached too.
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const char key[] = "0123456789abcdef0123456789abcdef";

static void read_sealed(struct seal *gateway, const uint8_t *bytes, size_t len) {
  struct seal *issuer = seal_new((const uint8_t *)key, 32);
  size_t sealed_len = len + SEAL_OVERHEAD_BYTES;
  uint8_t *sealed = malloc(sealed_len);
  size_t text_len = sodium_base64_encoded_len(sealed_len, sodium_base64_VARIANT_URLSAFE);
  char *text = malloc(text_len);
  struct token token;
  memcpy(sealed + SEAL_NONCE_BYTES, bytes, len);
  if (seal_in_place(issuer, sealed, len) != 0) {
    abort();
  }
  sodium_bin2base64(text, text_len, sealed, sealed_len, sodium_base64_VARIANT_URLSAFE);
  enum token_result result = token_read(gateway, text, strlen(text), &token);
  if (result == TOKEN_BAD_SEAL ||
      (result == TOKEN_OK && strlen(token.color) > TOKEN_COLOR_MAX_BYTES)) {
    abort();
  }
  free(text);
  free(sealed);
  seal_free(issuer);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  static struct seal *gateway;
  if (!gateway) {
    if (seal_global_init(true) != 0 || !(gateway = seal_new((const uint8_t *)key, 32))) {
      abort();
    }
  }
  if (len > 0 && bytes[0] & 1) {
    read_sealed(gateway, bytes + 1, len - 1);
  } else if (len > 0) {
    struct token token;
    (void)!token_read(gateway, (const char *)bytes + 1, len - 1, &token);
  }
  return 0;
}
