// TLS as the options of the tools say: what all clients of a group share.
#ifndef JANUS_TOOLS_CLIENT_CLIENT_TLS_H
#define JANUS_TOOLS_CLIENT_CLIENT_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

struct client_tls {
  const char *ca;    // PEM, to check the server against; NULL: the system's authorities
  const char *cert;  // PEM chain to show to a server that asks; NULL: none
  const char *key;   // of cert, PEM
  bool insecure;     // the server is not checked
  bool resume;       // sessions are resumed
};

// For SSL_CTX_free. NULL with a sentence in fault.
SSL_CTX *client_tls_context(const struct client_tls *tls, char *fault, size_t fault_bytes);

#endif
