// TLS towards a server, by the settings: what OpenSSL and gRPC need for it.
#ifndef JANUS_COMMON_TLS_H
#define JANUS_COMMON_TLS_H

#include <openssl/ssl.h>
#include <stddef.h>

#include "common/config.h"

// Before anything else of OpenSSL in a process: it is not to clean up after itself when main() has
// returned, since threads of gRPC may be using it still.
void tls_outlive_main(void);

// TLS 1.2 and later, the server's certificate verified against tls->ca (or the system's
// authorities), and our own certificate with key_pem where tls names one. NULL with the
// reason in why. For SSL_CTX_free.
SSL_CTX *tls_client_context(const struct config_tls *tls, const char *key_pem, char *why,
                            size_t why_size);

// Whether the files that tls names are good and fit together: 0, or ERROR_INVALID with the
// reason in why.
int tls_client_check(const struct config_tls *tls, const char *key_pem, char *why,
                     size_t why_size) MUST_CHECK;

// A PEM file as text, malloc'd. NULL with the reason in why.
char *tls_read_pem(const char *path, char *why, size_t why_size);

// A connection that accepts only a certificate for host (a name or an IP address). NULL
// when out of memory. For SSL_free.
SSL *tls_client(SSL_CTX *context, const char *host);

#endif
