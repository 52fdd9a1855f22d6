#include "common/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEM_FILE_MAX_BYTES = 4 << 20 };  // all the authorities of a system are 250 KB

void tls_outlive_main(void) { OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL); }

static int use_key(SSL_CTX *context, const char *pem) {
  BIO *bio = BIO_new_mem_buf(pem, -1);
  EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
  int used = key ? SSL_CTX_use_PrivateKey(context, key) : 0;
  EVP_PKEY_free(key);
  BIO_free(bio);
  return used;
}

SSL_CTX *tls_client_context(const struct config_tls *tls, const char *key_pem, char *why,
                            size_t why_size) {
  const char *part = "TLS";
  ERR_clear_error();
  SSL_CTX *context = SSL_CTX_new(TLS_client_method());
  if (!context || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
    goto failed;
  }
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
  part = tls->ca[0] != '\0' ? tls->ca : "the system's certificate authorities";
  if ((tls->ca[0] != '\0' ? SSL_CTX_load_verify_locations(context, tls->ca, NULL)
                          : SSL_CTX_set_default_verify_paths(context)) != 1) {
    goto failed;
  }
  if (tls->cert[0] != '\0') {
    part = tls->cert;
    if (SSL_CTX_use_certificate_chain_file(context, tls->cert) != 1) {
      goto failed;
    }
    part = tls->key;
    if (use_key(context, key_pem) != 1 || SSL_CTX_check_private_key(context) != 1) {
      goto failed;
    }
  }
  return context;
failed:
  snprintf(why, why_size, "%s: %s", part, ERR_reason_error_string(ERR_peek_last_error()));
  SSL_CTX_free(context);
  return NULL;
}

int tls_client_check(const struct config_tls *tls, const char *key_pem, char *why,
                     size_t why_size) {
  if (tls->ca[0] == '\0' && tls->cert[0] == '\0') {
    return 0;
  }
  SSL_CTX *context = tls_client_context(tls, key_pem, why, why_size);
  SSL_CTX_free(context);
  return context ? 0 : ERROR_INVALID;
}

char *tls_read_pem(const char *path, char *why, size_t why_size) {
  FILE *file = fopen(path, "re");
  char *text = file ? calloc(1, PEM_FILE_MAX_BYTES) : NULL;
  size_t len = text ? fread(text, 1, PEM_FILE_MAX_BYTES, file) : 0;
  if (!text || ferror(file)) {
    snprintf(why, why_size, "%s can't be read: %s", path, strerror(errno));
  } else if (len == 0 || len == PEM_FILE_MAX_BYTES) {
    snprintf(why, why_size, "%s is %s", path, len == 0 ? "empty" : "too large");
  } else {
    fclose(file);
    return text;
  }
  free(text);
  if (file) {
    fclose(file);
  }
  return NULL;
}

SSL *tls_client(SSL_CTX *context, const char *host) {
  unsigned char binary[sizeof(struct in6_addr)];
  SSL *ssl = SSL_new(context);
  if (!ssl) {
    return NULL;
  }
  bool is_number = inet_pton(AF_INET, host, binary) == 1 || inet_pton(AF_INET6, host, binary) == 1;
  int named = is_number ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host)
                        : SSL_set1_host(ssl, host) && SSL_set_tlsext_host_name(ssl, host);
  if (named != 1) {
    SSL_free(ssl);
    return NULL;
  }
  return ssl;
}
