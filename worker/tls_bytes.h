// Bytes over an established TLS connection on a non-blocking socket, as recv and send give and
// take them: -1 with errno EAGAIN when it has to be waited for.
#ifndef JANUS_WORKER_TLS_BYTES_H
#define JANUS_WORKER_TLS_BYTES_H

#include <event2/buffer.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// *more: something may be there that no event of the socket will tell of.
ssize_t tls_receive(SSL *ssl, uint8_t *buffer, size_t room, bool *more);
ssize_t tls_send(SSL *ssl, const uint8_t *bytes, size_t len);
// Sends from the buffer's beginning, and drains what was sent.
ssize_t tls_send_buffer(SSL *ssl, struct evbuffer *buffer);
// The bytes that the socket has taken, ever, with those of TLS itself.
uint64_t tls_accepted_bytes(SSL *ssl);

#endif
