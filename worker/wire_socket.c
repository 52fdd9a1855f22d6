#include <errno.h>
#include <event2/buffer.h>
#include <event2/event_struct.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/loop.h"
#include "worker/tls_bytes.h"
#include "worker/wire.h"

// A plain event and direct recv and send: an echo costs two thirds of what it
// does through a bufferevent. All clients share one read buffer; a client owns
// memory only while bytes that its owner has no use for yet wait.
struct wire_socket {
  struct wire wire;
  int fd;
  SSL *ssl;       // NULL: the bytes go as they are
  bool has_more;  // received already, and no event comes for it
  bool paused;
  bool closed;     // given up by the owner
  bool reading;    // inside on_readable: memory may not be freed under it
  bool flushing;   // given up, but what is pending is still to be taken
  bool replaying;  // the resume event is to go through what was kept first
  uint8_t *kept;   // received, not yet used
  size_t kept_len;
  uint64_t accepted_bytes;  // by the socket
  struct evbuffer *output;  // NULL while nothing waits
  struct event readable;
  struct event writable;
  struct event linger;
};

// One read: about a client's largest frame. With what was kept, at most another one and as
// much as one read brings, this fits the shared buffer; while paused no more is read.
enum { READ_MAX_BYTES = 16448 };
_Static_assert(WIRE_UNUSED_MAX_BYTES + READ_MAX_BYTES <= WIRE_READ_BUFFER_BYTES,
               "what was kept and a read fit");

static ssize_t receive(struct wire_socket *socket, uint8_t *buffer, size_t room) {
  return socket->ssl ? tls_receive(socket->ssl, buffer, room, &socket->has_more)
                     : recv(socket->fd, buffer, room, 0);
}

static ssize_t transmit(struct wire_socket *socket, const uint8_t *bytes, size_t len) {
  return socket->ssl ? tls_send(socket->ssl, bytes, len)
                     : send(socket->fd, bytes, len, MSG_NOSIGNAL);
}

static struct wire_socket *of(struct wire *wire) { return (struct wire_socket *)wire; }

static void wire_free(struct wire_socket *socket) {
  struct wire *wire = &socket->wire;
  event_del(&socket->readable);
  event_del(&socket->writable);
  event_del(&socket->linger);
  SSL_free(socket->ssl);
  close(socket->fd);
  free(socket->kept);
  if (socket->output) {
    counters_gauge_add(wire->shared->counters, GAUGE_QUEUED_OUT_BYTES,
                       -(int64_t)evbuffer_get_length(socket->output));
    evbuffer_free(socket->output);
  }
  LIST_REMOVE(wire, link);
  wire->events->on_gone(wire->owner);
  free(socket);
}

// It reads no further; the owner will close it.
static void ended(struct wire_socket *socket, enum close_reason reason) {
  if (socket->closed) {
    return;
  }
  event_del(&socket->readable);
  socket->wire.events->on_ended(reason, socket->wire.owner);
}

// Keeps bytes (which may lie in the old kept ones) for later.
static int keep(struct wire_socket *socket, const uint8_t *bytes, size_t len) {
  uint8_t *kept = NULL;
  if (len > 0) {
    kept = malloc(len);
    if (!kept) {
      return ERROR_MEMORY;
    }
    memcpy(kept, bytes, len);
  }
  free(socket->kept);
  socket->kept = kept;
  socket->kept_len = len;
  return 0;
}

// Reads and forgets, after everything was sent: closing with unread input would
// make the kernel reset the connection, and the client could lose our last words.
static void discard(struct wire_socket *socket) {
  ssize_t got = recv(socket->fd, socket->wire.shared->read_buffer, WIRE_READ_BUFFER_BYTES, 0);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
    wire_free(socket);
  }
}

static void on_readable(evutil_socket_t fd, short what, void *argument) {
  struct wire_socket *socket = argument;
  struct wire *wire = &socket->wire;
  uint8_t *buffer = wire->shared->read_buffer;
  (void)fd;
  (void)what;

  if (socket->closed) {
    discard(socket);
    return;
  }
  if (socket->paused) {
    return;
  }
  size_t len = socket->kept_len;
  if (len > 0) {
    memcpy(buffer, socket->kept, len);
  }
  if (!socket->replaying) {
    ssize_t got = receive(socket, buffer + len, READ_MAX_BYTES);
    if (got <= 0) {
      if (got == 0) {
        ended(socket, CLOSE_CLIENT_CLOSED);
      } else if (errno != EAGAIN && errno != EINTR) {
        ended(socket, errno == EPROTO ? CLOSE_TLS_FAILED : CLOSE_CLIENT_RESET);
      }
      return;
    }
    counters_add(wire->shared->counters, COUNTER_BYTES_IN, (uint64_t)got);
    len += (size_t)got;
  }
  socket->replaying = false;
  socket->reading = true;
  size_t used = wire->events->on_bytes(buffer, len, wire->owner);
  if (!socket->closed && !socket->paused && len - used > WIRE_UNUSED_MAX_BYTES) {
    ended(socket, CLOSE_INTERNAL);
  } else if (!socket->closed && keep(socket, buffer + used, len - used) != 0) {
    ended(socket, CLOSE_OUT_OF_MEMORY);
  }
  socket->reading = false;
  if (socket->closed && !socket->flushing) {
    wire_free(socket);
  } else if (socket->has_more && !socket->closed && !socket->paused) {
    event_active(&socket->readable, EV_READ, 0);
  }
}

static void finish_writing(struct wire_socket *socket) {
  if (socket->ssl) {
    SSL_shutdown(socket->ssl);
  }
  shutdown(socket->fd, SHUT_WR);
  event_add(&socket->readable, NULL);
}

static void on_writable(evutil_socket_t fd, short what, void *argument) {
  struct wire_socket *socket = argument;
  struct wire *wire = &socket->wire;
  const struct wire_shared *shared = wire->shared;
  (void)what;

  ssize_t sent = socket->ssl ? tls_send_buffer(socket->ssl, socket->output)
                             : evbuffer_write(socket->output, fd);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) {
    if (socket->closed) {
      wire_free(socket);
    } else {
      event_del(&socket->writable);
      ended(socket, CLOSE_CLIENT_RESET);
    }
    return;
  }
  if (sent > 0) {
    socket->accepted_bytes += (uint64_t)sent;
    counters_add(shared->counters, COUNTER_BYTES_OUT, (uint64_t)sent);
    counters_gauge_add(shared->counters, GAUGE_QUEUED_OUT_BYTES, -(int64_t)sent);
  }
  size_t left = evbuffer_get_length(socket->output);
  if (left == 0) {
    event_del(&socket->writable);
    evbuffer_free(socket->output);
    socket->output = NULL;
    if (socket->closed) {
      finish_writing(socket);
      return;
    }
  }
  if (left < shared->low_bytes && !socket->closed) {
    wire->events->on_drained(wire->owner);
  }
}

static void on_linger_over(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  wire_free(argument);
}

static int socket_write(struct wire *wire, const uint8_t *bytes, size_t len) {
  struct wire_socket *socket = of(wire);
  struct counters *counters = wire->shared->counters;
  size_t sent = 0;

  if (!socket->output) {
    ssize_t n = transmit(socket, bytes, len);
    // An error shows again, and is dealt with, when the loop finds the socket
    // readable or writable.
    sent = n > 0 ? (size_t)n : 0;
    counters_add(counters, COUNTER_BYTES_OUT, sent);
    socket->accepted_bytes += sent;
    if (sent == len) {
      return 0;
    }
    socket->output = evbuffer_new();
    if (!socket->output) {
      return ERROR_MEMORY;
    }
    event_add(&socket->writable, NULL);
  }
  if (evbuffer_add(socket->output, bytes + sent, len - sent) != 0) {
    return ERROR_MEMORY;
  }
  counters_gauge_add(counters, GAUGE_QUEUED_OUT_BYTES, (int64_t)(len - sent));
  return 0;
}

static size_t socket_queued_bytes(const struct wire *wire) {
  const struct wire_socket *socket = (const struct wire_socket *)wire;
  return socket->output ? evbuffer_get_length(socket->output) : 0;
}

// The kernel's own buffer is not the client: it takes megabytes before it shows anything.
static uint64_t socket_taken_bytes(const struct wire *wire) {
  const struct wire_socket *socket = (const struct wire_socket *)wire;
  int unacknowledged = 0;
  uint64_t accepted = socket->ssl ? tls_accepted_bytes(socket->ssl) : socket->accepted_bytes;
  ioctl(socket->fd, SIOCOUTQ, &unacknowledged);
  return accepted - (uint64_t)unacknowledged;
}

static void socket_pause(struct wire *wire) {
  struct wire_socket *socket = of(wire);
  socket->paused = true;
  event_del(&socket->readable);
}

static void socket_resume(struct wire *wire) {
  struct wire_socket *socket = of(wire);
  if (!socket->paused || socket->closed) {
    return;
  }
  socket->paused = false;
  event_add(&socket->readable, NULL);
  socket->replaying = socket->kept_len > 0;
  if (socket->replaying || socket->has_more) {
    event_active(&socket->readable, EV_READ, 0);
  }
}

static void socket_close(struct wire *wire, bool flush) {
  struct wire_socket *socket = of(wire);
  if (socket->closed) {
    return;
  }
  socket->closed = true;
  if (!flush) {
    if (socket->ssl && !socket->output) {
      SSL_shutdown(socket->ssl);  // polite, where it is one short write
    }
    if (!socket->reading) {
      wire_free(socket);
    }
    return;
  }
  socket->flushing = true;
  loop_start_timer(&socket->linger, wire->shared->linger_ms);
  event_del(&socket->readable);
  if (!socket->output) {
    finish_writing(socket);
  }
}

static void socket_cut(struct wire *wire) { wire_free(of(wire)); }

struct wire *wire_socket_new(struct wire_shared *shared, int fd, SSL *ssl,
                             const struct wire_events *events, void *owner) {
  static const struct wire_kind kind = {.name = "tcp",
                                        .write = socket_write,
                                        .queued_bytes = socket_queued_bytes,
                                        .taken_bytes = socket_taken_bytes,
                                        .pause = socket_pause,
                                        .resume = socket_resume,
                                        .close = socket_close,
                                        .cut = socket_cut};
  struct wire_socket *socket = calloc(1, sizeof *socket);
  if (!socket) {
    SSL_free(ssl);
    close(fd);
    return NULL;
  }
  socket->wire = (struct wire){.kind = &kind, .events = events, .owner = owner, .shared = shared};
  socket->fd = fd;
  socket->ssl = ssl;
  event_assign(&socket->readable, shared->base, fd, EV_READ | EV_PERSIST, on_readable, socket);
  event_assign(&socket->writable, shared->base, fd, EV_WRITE | EV_PERSIST, on_writable, socket);
  evtimer_assign(&socket->linger, shared->base, on_linger_over, socket);
  if (event_add(&socket->readable, NULL) != 0) {
    SSL_free(ssl);
    close(fd);
    free(socket);
    return NULL;
  }
  socket->has_more = ssl && SSL_has_pending(ssl);  // it came with the end of TLS's handshake
  if (socket->has_more) {
    event_active(&socket->readable, EV_READ, 0);
  }
  LIST_INSERT_HEAD(&shared->all, &socket->wire, link);
  return &socket->wire;
}

void wire_cut_all(struct wire_shared *shared) {
  struct wire *wire;
  while ((wire = LIST_FIRST(&shared->all))) {
    wire->kind->cut(wire);  // NOLINT(clang-analyzer-unix.Malloc): it has left the list
  }
}
