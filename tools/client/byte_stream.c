#include "tools/client/byte_stream.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/tls.h"

int byte_stream_use_tls(struct byte_stream *stream, SSL_CTX *context, const char *host,
                        SSL_SESSION *session) {
  stream->ssl = tls_client(context, host);
  if (!stream->ssl || SSL_set_fd(stream->ssl, stream->fd) != 1) {
    return ERROR_MEMORY;
  }
  if (session) {
    // A copy: OpenSSL lets one be resumed only once.
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    int set = copy ? SSL_set_session(stream->ssl, copy) : 0;
    SSL_SESSION_free(copy);
    if (set != 1) {
      return ERROR_MEMORY;
    }
  }
  SSL_set_connect_state(stream->ssl);
  return 0;
}

// The error queue is the thread's: what another connection left there is not this one's.
static void begin_call(void) {
  ERR_clear_error();
  errno = 0;
}

int byte_stream_handshake(struct byte_stream *stream, bool *for_writing) {
  begin_call();
  int result = SSL_do_handshake(stream->ssl);
  if (result == 1) {
    return 0;
  }
  int error = SSL_get_error(stream->ssl, result);
  *for_writing = error == SSL_ERROR_WANT_WRITE;
  return *for_writing || error == SSL_ERROR_WANT_READ ? BYTE_STREAM_AGAIN : BYTE_STREAM_FAILED;
}

static ssize_t outcome(const struct byte_stream *stream, int result) {
  if (result > 0) {
    return result;
  }
  switch (SSL_get_error(stream->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return BYTE_STREAM_AGAIN;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: return BYTE_STREAM_FAILED;
  }
}

static int at_most(size_t len) { return len > INT_MAX ? INT_MAX : (int)len; }

ssize_t byte_stream_read(struct byte_stream *stream, uint8_t *out, size_t len) {
  begin_call();
  if (stream->ssl) {
    return outcome(stream, SSL_read(stream->ssl, out, at_most(len)));
  }
  ssize_t received = recv(stream->fd, out, len, 0);
  if (received < 0) {
    return errno == EAGAIN || errno == EINTR ? BYTE_STREAM_AGAIN : BYTE_STREAM_FAILED;
  }
  return received;
}

ssize_t byte_stream_write(struct byte_stream *stream, const uint8_t *bytes, size_t len) {
  begin_call();
  if (stream->ssl) {
    ssize_t sent = outcome(stream, SSL_write(stream->ssl, bytes, at_most(len)));
    return sent == 0 ? BYTE_STREAM_FAILED : sent;
  }
  ssize_t sent = send(stream->fd, bytes, len, MSG_NOSIGNAL);
  if (sent < 0) {
    return errno == EAGAIN || errno == EINTR ? BYTE_STREAM_AGAIN : BYTE_STREAM_FAILED;
  }
  return sent;
}

bool byte_stream_pending(const struct byte_stream *stream) {
  return stream->ssl && SSL_has_pending(stream->ssl);
}

const char *byte_stream_fault(const struct byte_stream *stream) {
  int kept = errno;
  unsigned long error = ERR_peek_last_error();
  if (stream->ssl && ERR_GET_LIB(error) == ERR_LIB_SSL &&
      ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    return X509_verify_cert_error_string(SSL_get_verify_result(stream->ssl));
  }
  const char *reason = error ? ERR_reason_error_string(error) : NULL;
  return reason ? reason : strerror(kept);
}

void byte_stream_close(struct byte_stream *stream) {
  if (stream->ssl) {
    if (SSL_is_init_finished(stream->ssl)) {
      begin_call();
      SSL_shutdown(stream->ssl);
    }
    SSL_free(stream->ssl);
    stream->ssl = NULL;
  }
  if (stream->fd >= 0) {
    close(stream->fd);
    stream->fd = -1;
  }
}
