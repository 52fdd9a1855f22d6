#include "worker/tls_bytes.h"

#include <errno.h>
#include <openssl/err.h>

#include "common/tls_server.h"

// In one call: each costs as much as a message does, however small it is.
enum { RECORDS_AT_ONCE = 64 };

// What a call that failed (as 0, which the _ex functions return) says, as recv and send say it.
static ssize_t outcome(SSL *ssl, int awaited) {
  int error = SSL_get_error(ssl, 0);
  if (error == awaited) {
    errno = EAGAIN;
    return -1;
  }
  if (error == SSL_ERROR_ZERO_RETURN && !tls_server_is_flooded(ssl)) {
    return 0;
  }
  if (error != SSL_ERROR_SYSCALL || errno == 0) {
    errno = EPROTO;
  }
  return -1;
}

ssize_t tls_receive(SSL *ssl, uint8_t *buffer, size_t room, bool *more) {
  size_t got = 0;
  *more = false;
  int records = 0;
  do {
    size_t n = 0;
    ERR_clear_error();
    errno = 0;
    if (SSL_read_ex(ssl, buffer + got, room - got, &n) != 1) {
      // Reading waits for writing when a client wants new keys and takes none of what is sent: a
      // fault, since nothing of it would be read any more.
      ssize_t end = outcome(ssl, SSL_ERROR_WANT_READ);
      if (got == 0) {
        return end;
      }
      *more = end == 0 || errno != EAGAIN;  // to be told in the next turn
      return (ssize_t)got;
    }
    got += n;
  } while (got < room && ++records < RECORDS_AT_ONCE && SSL_has_pending(ssl));
  *more = SSL_has_pending(ssl);
  return (ssize_t)got;
}

ssize_t tls_send(SSL *ssl, const uint8_t *bytes, size_t len) {
  size_t sent = 0;
  while (sent < len) {
    size_t n = 0;
    ERR_clear_error();
    errno = 0;
    if (SSL_write_ex(ssl, bytes + sent, len - sent, &n) != 1) {
      if (sent > 0) {
        return (ssize_t)sent;
      }
      if (outcome(ssl, SSL_ERROR_WANT_WRITE) == 0) {
        errno = EPIPE;
      }
      return -1;
    }
    sent += n;
  }
  return (ssize_t)sent;
}

ssize_t tls_send_buffer(SSL *ssl, struct evbuffer *buffer) {
  // A record that was begun has to be offered again as a whole.
  size_t waiting = evbuffer_get_length(buffer);
  size_t len = waiting < SSL3_RT_MAX_PLAIN_LENGTH ? waiting : SSL3_RT_MAX_PLAIN_LENGTH;
  const uint8_t *bytes = evbuffer_pullup(buffer, (ev_ssize_t)len);
  if (!bytes) {
    errno = ENOMEM;
    return -1;
  }
  ssize_t sent = tls_send(ssl, bytes, len);
  if (sent > 0) {
    evbuffer_drain(buffer, (size_t)sent);
  }
  return sent;
}

uint64_t tls_accepted_bytes(SSL *ssl) { return BIO_number_written(SSL_get_wbio(ssl)); }
