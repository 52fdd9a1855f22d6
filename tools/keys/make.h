// New keys, as text.
#ifndef JANUS_TOOLS_KEYS_MAKE_H
#define JANUS_TOOLS_KEYS_MAKE_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ACCOUNT_KEY_MAX_BYTES = 32, PEM_MAX_BYTES = 4096 };

void make_account_key(char key[ACCOUNT_KEY_MAX_BYTES + 1], size_t bytes);

// Ed25519; NULL when it can't be made. For EVP_PKEY_free.
EVP_PKEY *make_key(void);
bool private_pem(EVP_PKEY *key, char text[PEM_MAX_BYTES]);
bool public_pem(EVP_PKEY *key, char text[PEM_MAX_BYTES]);
bool certificate_pem(EVP_PKEY *key, int64_t days, char text[PEM_MAX_BYTES]);

// What gateway and clients know each other by.
struct certs_pem {
  char server[PEM_MAX_BYTES];  // private
  char server_public[PEM_MAX_BYTES];
  char client[PEM_MAX_BYTES];  // private
  char client_cert[PEM_MAX_BYTES];
};
bool make_certs(struct certs_pem *certs, int64_t days);

#endif
