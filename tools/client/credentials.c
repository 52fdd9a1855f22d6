#include "tools/client/credentials.h"

#include <errno.h>
#include <libconfig.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/seal.h"
#include "common/token.h"

enum { PEM_MAX_BYTES = 65536 };

// A whole file to pem. False with the reason in fault.
static bool read_pem(const char *path, char pem[PEM_MAX_BYTES], size_t *len, char *fault,
                     size_t fault_bytes) {
  FILE *file = fopen(path, "rb");
  if (!file) {
    snprintf(fault, fault_bytes, "%s: %s", path, strerror(errno));
    return false;
  }
  *len = fread(pem, 1, PEM_MAX_BYTES, file);
  bool failed = ferror(file) || *len == PEM_MAX_BYTES;
  fclose(file);
  if (failed) {
    snprintf(fault, fault_bytes, "%s: cannot be read, or is too large", path);
  }
  return !failed;
}

int credentials_load_client_key(struct credentials *credentials, const char *path, char *fault,
                                size_t fault_bytes) {
  char pem[PEM_MAX_BYTES];
  size_t len;
  if (!read_pem(path, pem, &len, fault, fault_bytes)) {
    return ERROR_INVALID;
  }
  int error = signing_key_from_pem(&credentials->client_key, pem, len);
  sodium_memzero(pem, sizeof pem);
  if (error != 0) {
    snprintf(fault, fault_bytes, "%s: not an Ed25519 private key in PKCS#8 PEM", path);
    return ERROR_INVALID;
  }
  credentials->has_client_key = true;
  return 0;
}

static int verify_key_from_public_pem(struct verify_key *key, const char *pem, size_t len) {
  BIO *bio = BIO_new_mem_buf(pem, (int)len);
  EVP_PKEY *public = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
  size_t key_len = sizeof key->public;
  bool good = public && EVP_PKEY_id(public) == EVP_PKEY_ED25519 &&
              EVP_PKEY_get_raw_public_key(public, key->public, &key_len) == 1;
  EVP_PKEY_free(public);
  BIO_free(bio);
  return good ? 0 : ERROR_MALFORMED;
}

// libsodium's secret key ends with the public one.
static void take_public_half(struct credentials *credentials, const struct signing_key *key) {
  memcpy(credentials->server_key.public, key->secret + crypto_sign_SEEDBYTES,
         sizeof credentials->server_key.public);
  credentials->has_server_key = true;
}

int credentials_load_server_key(struct credentials *credentials, const char *path, char *fault,
                                size_t fault_bytes) {
  char pem[PEM_MAX_BYTES];
  size_t len;
  if (!read_pem(path, pem, &len, fault, fault_bytes)) {
    return ERROR_INVALID;
  }
  struct signing_key private;
  if (verify_key_from_public_pem(&credentials->server_key, pem, len) == 0 ||
      verify_key_from_certificate(&credentials->server_key, pem, len, time(NULL)) == 0) {
    credentials->has_server_key = true;
  } else if (signing_key_from_pem(&private, pem, len) == 0) {
    take_public_half(credentials, &private);
    sodium_memzero(&private, sizeof private);
  } else {
    snprintf(fault, fault_bytes, "%s: neither an Ed25519 key nor a valid certificate in PEM", path);
    return ERROR_INVALID;
  }
  return 0;
}

// The `secret` section, of which a client needs the account key and the public
// half of the server's key.
static int load_secrets(struct credentials *credentials, const char *path, char *fault,
                        size_t fault_bytes) {
  config_t config;
  config_init(&config);
  const char *text;
  struct signing_key private;
  int error = ERROR_INVALID;
  if (config_read_file(&config, path) != CONFIG_TRUE) {
    snprintf(fault, fault_bytes, "%s:%d: %s", path, config_error_line(&config),
             config_error_text(&config));
  } else if (!config_lookup_string(&config, "secret.account_aes_key", &text) ||
             strlen(text) > sizeof credentials->account_key) {
    snprintf(fault, fault_bytes, "%s: secret.account_aes_key is missing or too long", path);
  } else {
    credentials->account_key_len = strlen(text);
    memcpy(credentials->account_key, text, credentials->account_key_len);
    error = 0;
    if (config_lookup_string(&config, "secret.server_cert_private_key", &text) &&
        signing_key_from_pem(&private, text, strlen(text)) == 0) {
      take_public_half(credentials, &private);
      sodium_memzero(&private, sizeof private);
    }
  }
  config_destroy(&config);
  return error;
}

int credentials_load_folder(struct credentials *credentials, const char *folder, char *fault,
                            size_t fault_bytes) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/secret.conf", folder);
  int error = load_secrets(credentials, path, fault, fault_bytes);
  if (error == 0) {
    snprintf(path, sizeof path, "%s/client.key", folder);
    error = credentials_load_client_key(credentials, path, fault, fault_bytes);
  }
  return error;
}

char *credentials_make_token(const struct credentials *credentials, const struct token_wish *wish) {
  struct token token = {
      .account_id = wish->uid,
      .server_id = wish->sid,
      .status = wish->status,
      .timeout = time(NULL) + wish->lifetime_s,
  };
  if (strlen(wish->color) > TOKEN_COLOR_MAX_BYTES) {
    return NULL;
  }
  strcpy(token.color, wish->color);
  struct seal *seal = seal_new(credentials->account_key, credentials->account_key_len);
  char *text = seal ? token_write(seal, &token) : NULL;
  seal_free(seal);
  return text;
}
