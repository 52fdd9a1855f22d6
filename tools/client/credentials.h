// What a client logs in with: its signing key, the server's public key, and for
// trying and testing the account key to make tokens with.
#ifndef JANUS_TOOLS_CLIENT_CREDENTIALS_H
#define JANUS_TOOLS_CLIENT_CREDENTIALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/keys.h"

struct credentials {
  struct signing_key client_key;
  bool has_client_key;
  struct verify_key server_key;
  bool has_server_key;
  uint8_t account_key[32];
  size_t account_key_len;  // 0 when there is none
};

// Each answers 0, or ERROR_INVALID with a sentence in fault.

// A folder as `janus-keys init` writes it: all of the above.
int credentials_load_folder(struct credentials *credentials, const char *folder, char *fault,
                            size_t fault_bytes) MUST_CHECK;
// A private key in PKCS#8 PEM.
int credentials_load_client_key(struct credentials *credentials, const char *path, char *fault,
                                size_t fault_bytes) MUST_CHECK;
// The server's public key: a public key, a certificate or a private key, in PEM.
int credentials_load_server_key(struct credentials *credentials, const char *path, char *fault,
                                size_t fault_bytes) MUST_CHECK;

struct token_wish {
  int64_t uid;
  const char *color;
  int64_t sid;
  int32_t status;
  int64_t lifetime_s;
};

// A token under the account key: malloc'd, or NULL when there is no account key,
// the color is too long or memory is out.
char *credentials_make_token(const struct credentials *credentials, const struct token_wish *wish);

#endif
