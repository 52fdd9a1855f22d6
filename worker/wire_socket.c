#include <errno.h>
#include <event2/buffer.h>
#include <event2/event_struct.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cache_line.h"
#include "common/loop.h"
#include "worker/tls_bytes.h"
#include "worker/wire.h"
#include "worker/wire_gather.h"

// What the socket has not taken, and what only a wire has that is being closed: most wires have
// none.
struct socket_waiting {
  struct evbuffer *bytes;
  struct event writable;
  struct event linger;
};

// A plain event and direct recv and send: an echo costs two thirds of what it
// does through a bufferevent. All clients share one read buffer, and what is gathered for them in a
// turn; a client owns memory only while bytes that its owner has no use for yet wait, or bytes that
// it does not take.
//
// What every message touches is in the first two cache lines; the event behind them is libevent's.
struct wire_socket {
  struct wire wire;
  SSL *ssl;  // NULL: the bytes go as they are
  int fd;
  uint32_t kept_len;
  uint8_t *kept;  // received, not yet used
  bool has_more;  // received already, and no event comes for it
  bool paused;
  bool closed;              // given up by the owner
  bool reading;             // inside on_readable: memory may not be freed under it
  bool flushing;            // given up, but what is pending is still to be taken
  bool replaying;           // the resume event is to go through what was kept first
  bool broken;              // bytes to the client are lost: memory was out
  uint64_t accepted_bytes;  // by the socket
  struct gathered gathered;
  struct socket_waiting *waiting;  // or NULL
  struct event readable;
};
_Static_assert(offsetof(struct wire_socket, kept) <= CACHE_LINE_BYTES, "for reading");
_Static_assert(offsetof(struct wire_socket, readable) <= 2 * CACHE_LINE_BYTES, "and for writing");

// One read: two of a client's largest frames, or a few hundred small ones. With what was kept this
// fits the shared buffer; while paused no more is read.
enum { READ_MAX_BYTES = WIRE_READ_BUFFER_BYTES - WIRE_UNUSED_MAX_BYTES };

static ssize_t receive(struct wire_socket *socket, uint8_t *buffer, size_t room) {
  return socket->ssl ? tls_receive(socket->ssl, buffer, room, &socket->has_more)
                     : recv(socket->fd, buffer, room, 0);
}

static ssize_t transmit(struct wire_socket *socket, const uint8_t *bytes, size_t len) {
  return socket->ssl ? tls_send(socket->ssl, bytes, len)
                     : send(socket->fd, bytes, len, MSG_NOSIGNAL);
}

static struct wire_socket *of(struct wire *wire) { return (struct wire_socket *)wire; }

static size_t socket_queued_bytes(const struct wire *wire) {
  const struct wire_socket *socket = (const struct wire_socket *)wire;
  return socket->waiting ? evbuffer_get_length(socket->waiting->bytes) : 0;
}

static void forget_waiting(struct wire_socket *socket) {
  if (socket->waiting) {
    event_del(&socket->waiting->writable);
    event_del(&socket->waiting->linger);
    evbuffer_free(socket->waiting->bytes);
    free(socket->waiting);
    socket->waiting = NULL;
  }
}

static void wire_free(struct wire_socket *socket) {
  struct wire *wire = &socket->wire;
  size_t len;
  (void)wire_gather_take(wire->shared->gather, &socket->gathered, &len);
  event_del(&socket->readable);
  SSL_free(socket->ssl);
  free(socket->kept);
  counters_gauge_add(wire->shared->counters, GAUGE_QUEUED_OUT_BYTES,
                     -(int64_t)socket_queued_bytes(wire));
  forget_waiting(socket);
  close(socket->fd);
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
  if (len == 0 && !socket->kept) {
    return 0;
  }
  if (len > 0) {
    kept = malloc(len);
    if (!kept) {
      return ERROR_MEMORY;
    }
    memcpy(kept, bytes, len);
  }
  free(socket->kept);
  socket->kept = kept;
  socket->kept_len = (uint32_t)len;
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

  if (socket->broken) {
    if (socket->closed) {
      wire_free(socket);
    } else {
      ended(socket, CLOSE_OUT_OF_MEMORY);
    }
    return;
  }
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
  struct evbuffer *bytes = socket->waiting->bytes;
  const struct wire_shared *shared = wire->shared;
  (void)what;

  ssize_t sent = socket->ssl ? tls_send_buffer(socket->ssl, bytes) : evbuffer_write(bytes, fd);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) {
    if (socket->closed) {
      wire_free(socket);
    } else {
      event_del(&socket->waiting->writable);
      ended(socket, CLOSE_CLIENT_RESET);
    }
    return;
  }
  if (sent > 0) {
    socket->accepted_bytes += (uint64_t)sent;
    counters_add(shared->counters, COUNTER_BYTES_OUT, (uint64_t)sent);
    counters_gauge_add(shared->counters, GAUGE_QUEUED_OUT_BYTES, -(int64_t)sent);
  }
  size_t left = evbuffer_get_length(bytes);
  if (left == 0 && socket->closed) {
    event_del(&socket->waiting->writable);
    finish_writing(socket);
    return;
  }
  if (left == 0) {
    forget_waiting(socket);
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

static bool make_waiting(struct wire_socket *socket) {
  struct event_base *base = socket->wire.shared->base;
  struct socket_waiting *waiting = malloc(sizeof *waiting);
  struct evbuffer *bytes = waiting ? evbuffer_new() : NULL;
  if (!bytes) {
    free(waiting);
    return false;
  }
  waiting->bytes = bytes;
  event_assign(&waiting->writable, base, socket->fd, EV_WRITE | EV_PERSIST, on_writable, socket);
  evtimer_assign(&waiting->linger, base, on_linger_over, socket);
  socket->waiting = waiting;
  return true;
}

// What the socket does not take waits.
static int send_now(struct wire_socket *socket, const uint8_t *bytes, size_t len) {
  struct counters *counters = socket->wire.shared->counters;
  size_t sent = 0;
  if (!socket->waiting) {
    ssize_t n = transmit(socket, bytes, len);
    // An error shows again, and is dealt with, when the loop finds the socket
    // readable or writable.
    sent = n > 0 ? (size_t)n : 0;
    counters_add(counters, COUNTER_BYTES_OUT, sent);
    socket->accepted_bytes += sent;
    if (sent == len) {
      return 0;
    }
    if (!make_waiting(socket)) {
      return ERROR_MEMORY;
    }
    event_add(&socket->waiting->writable, NULL);
  }
  if (evbuffer_add(socket->waiting->bytes, bytes + sent, len - sent) != 0) {
    return ERROR_MEMORY;
  }
  counters_gauge_add(counters, GAUGE_QUEUED_OUT_BYTES, (int64_t)(len - sent));
  return 0;
}

// Nobody is told from in here: it may be called from within whatever an owner does.
static void send_gathered(struct gathered *gathered) {
  struct wire_socket *socket =
      (struct wire_socket *)(void *)((char *)gathered - offsetof(struct wire_socket, gathered));
  size_t len;
  const uint8_t *bytes = wire_gather_take(socket->wire.shared->gather, gathered, &len);
  if (bytes && send_now(socket, bytes, len) != 0) {
    socket->broken = true;
    event_active(&socket->readable, EV_READ, 0);
  }
}

// How much is gathered for one client. Below the bound from which on it counts as behind: that
// it is, only its socket can tell.
static size_t gathered_max(const struct wire_shared *shared) {
  return shared->low_bytes < GATHERED_MAX_BYTES ? shared->low_bytes : GATHERED_MAX_BYTES;
}

static int socket_write(struct wire *wire, const uint8_t *bytes, size_t len) {
  struct wire_socket *socket = of(wire);
  struct wire_gather *gather = wire->shared->gather;
  size_t most = gathered_max(wire->shared);
  if (!socket->waiting && len <= most && !wire_gather_has_room(gather, len)) {
    wire_gather_flush(gather);
  }
  if (gathered_bytes(&socket->gathered) + len > most) {
    send_gathered(&socket->gathered);
  }
  if (socket->broken) {
    return ERROR_MEMORY;
  }
  if (!socket->waiting && len <= most) {
    wire_gather_add(gather, &socket->gathered, bytes, len);
    return 0;
  }
  return send_now(socket, bytes, len);
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
  send_gathered(&socket->gathered);
  socket->closed = true;
  bool all_sent = !socket->waiting;
  if (!flush || socket->broken || (all_sent && !make_waiting(socket))) {
    if (socket->ssl && all_sent) {
      SSL_shutdown(socket->ssl);  // polite, where it is one short write
    }
    if (!socket->reading) {
      wire_free(socket);
    }
    return;
  }
  socket->flushing = true;
  loop_start_timer(&socket->waiting->linger, wire->shared->linger_ms);
  event_del(&socket->readable);
  if (all_sent) {
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
  struct wire_socket *socket = cache_line_calloc(sizeof *socket);
  if (!socket) {
    SSL_free(ssl);
    close(fd);
    return NULL;
  }
  socket->wire = (struct wire){.kind = &kind, .events = events, .owner = owner, .shared = shared};
  socket->fd = fd;
  socket->ssl = ssl;
  event_assign(&socket->readable, shared->base, fd, EV_READ | EV_PERSIST, on_readable, socket);
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

int wire_shared_init(struct wire_shared *shared) {
  shared->read_buffer = malloc(WIRE_READ_BUFFER_BYTES);
  shared->gather = wire_gather_new(shared->base, send_gathered);
  if (!shared->read_buffer || !shared->gather) {
    wire_shared_fini(shared);
    return ERROR_MEMORY;
  }
  return 0;
}

void wire_shared_fini(struct wire_shared *shared) {
  wire_gather_free(shared->gather);
  free(shared->read_buffer);
  shared->gather = NULL;
  shared->read_buffer = NULL;
}

void wire_send_gathered(struct wire_shared *shared) { wire_gather_flush(shared->gather); }

void wire_cut_all(struct wire_shared *shared) {
  struct wire *wire;
  wire_send_gathered(shared);
  while ((wire = LIST_FIRST(&shared->all))) {
    wire->kind->cut(wire);  // NOLINT(clang-analyzer-unix.Malloc): it has left the list
  }
}
