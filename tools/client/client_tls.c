#include "tools/client/client_tls.h"

#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#include "common/tls.h"

static SSL_CTX *failed(SSL_CTX *context, const char *path, char *fault, size_t fault_bytes) {
  const char *reason = ERR_reason_error_string(ERR_peek_last_error());
  snprintf(fault, fault_bytes, "%s: %s", path, reason ? reason : "it can't be read");
  SSL_CTX_free(context);
  return NULL;
}

SSL_CTX *client_tls_context(const struct client_tls *tls, char *fault, size_t fault_bytes) {
  struct config_tls settings = {0};
  if (!tls->cert != !tls->key) {
    snprintf(fault, fault_bytes, "--tls-cert and --tls-key go together");
    return NULL;
  }
  if (tls->ca && strlen(tls->ca) >= sizeof settings.ca) {
    snprintf(fault, fault_bytes, "--tls-ca: the path is too long");
    return NULL;
  }
  strcpy(settings.ca, tls->ca ? tls->ca : "");
  SSL_CTX *context = tls_client_context(&settings, NULL, fault, fault_bytes);
  if (!context) {
    return NULL;
  }
  ERR_clear_error();
  if (tls->cert && SSL_CTX_use_certificate_chain_file(context, tls->cert) != 1) {
    return failed(context, tls->cert, fault, fault_bytes);
  }
  if (tls->key && (SSL_CTX_use_PrivateKey_file(context, tls->key, SSL_FILETYPE_PEM) != 1 ||
                   SSL_CTX_check_private_key(context) != 1)) {
    return failed(context, tls->key, fault, fault_bytes);
  }
  if (tls->insecure) {
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
  }
  // Thousands of clients: no buffer stays with one that is quiet, and what has come is read
  // with one call. Queued bytes move.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(
      context,
      tls->resume ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE : SSL_SESS_CACHE_OFF);
  return context;
}
