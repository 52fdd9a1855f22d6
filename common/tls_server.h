// TLS as a server: what OpenSSL needs for one listener.
#ifndef JANUS_COMMON_TLS_SERVER_H
#define JANUS_COMMON_TLS_SERVER_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/tls_material.h"

// The context for the listener at place index, by its settings, with its certificates from
// material. The one whose names have the client's server name serves it, else the first. Session
// tickets are good for every context of the same listener and material with the same ticket
// keys. *expires is when the first of the certificates does, wall clock in ms. NULL with the
// reason in why. For SSL_CTX_free, which may come before that of its connections.
SSL_CTX *tls_server_context(const struct config_listener *listener, uint32_t index,
                            const struct tls_material *material, int64_t *expires, char *why,
                            size_t why_size);

// A connection on fd, which stays the caller's, for SSL_accept. NULL when out of memory.
SSL *tls_server(SSL_CTX *context, int fd);

// Whether the client was cut for a flood of handshake messages, which OpenSSL tells as an end.
bool tls_server_is_flooded(const SSL *ssl);

#endif
