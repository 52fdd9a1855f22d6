#include <errno.h>
#include <event2/buffer.h>
#include <event2/event_struct.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/frame.h"
#include "worker/transport.h"

// A plain event and direct recv and send: an echo costs two thirds of what it
// does through a bufferevent. All clients share one read buffer; a client owns
// memory only while part of a frame, or frames it may not pass on yet, wait.
struct transport {
  LIST_ENTRY(transport) link;
  struct transport_shared *shared;
  struct transport_events events;
  void *owner;
  void *cookie;
  int fd;
  bool paused;
  bool closed;     // given up by the owner
  bool reading;    // inside on_readable: memory may not be freed under it
  bool flushing;   // given up, but what is pending is still to be taken
  bool replaying;  // the resume event is to go through what was kept first
  uint8_t *kept;   // received, not yet passed on
  size_t kept_len;
  uint64_t accepted_bytes;  // by the socket
  struct evbuffer *output;  // NULL while nothing waits
  struct event readable;
  struct event writable;
  struct event linger;
};

// One read: a client's largest frame with its header. With what was kept, at
// most a frame less one byte, this fits the shared buffer; while paused no more
// is read.
enum { READ_MAX_BYTES = FRAME_HEADER_BYTES + FRAME_BODY_MAX_BYTES };

static void transport_free(struct transport *transport) {
  struct transport_shared *shared = transport->shared;
  event_del(&transport->readable);
  event_del(&transport->writable);
  event_del(&transport->linger);
  close(transport->fd);
  free(transport->kept);
  if (transport->output) {
    counters_gauge_add(shared->counters, GAUGE_QUEUED_OUT_BYTES,
                       -(int64_t)evbuffer_get_length(transport->output));
    evbuffer_free(transport->output);
  }
  void *cookie = transport->cookie;
  LIST_REMOVE(transport, link);
  free(transport);
  shared->on_gone(shared->context, cookie);
}

static void ended(struct transport *transport, enum close_reason reason) {
  if (transport->closed) {
    return;
  }
  event_del(&transport->readable);
  transport->events.on_ended(reason, transport->owner);
}

// Keeps bytes (which may lie in the old kept ones) for later.
static int keep(struct transport *transport, const uint8_t *bytes, size_t len) {
  uint8_t *kept = NULL;
  if (len > 0) {
    kept = malloc(len);
    if (!kept) {
      return ERROR_MEMORY;
    }
    memcpy(kept, bytes, len);
  }
  free(transport->kept);
  transport->kept = kept;
  transport->kept_len = len;
  return 0;
}

// Passes on the frames in bytes and keeps the rest.
static void pass_on(struct transport *transport, uint8_t *bytes, size_t len) {
  while (!transport->paused && !transport->closed) {
    size_t body_len = 0;
    int found = frame_parse(bytes, len, transport->shared->frame_max_bytes, &body_len);
    if (found < 0) {
      ended(transport, CLOSE_FRAME_LENGTH);
      return;
    }
    if (found == 0) {
      break;
    }
    transport->events.on_message(bytes + FRAME_HEADER_BYTES, body_len, transport->owner);
    bytes += FRAME_HEADER_BYTES + body_len;
    len -= FRAME_HEADER_BYTES + body_len;
  }
  if (!transport->closed && keep(transport, bytes, len) != 0) {
    ended(transport, CLOSE_OUT_OF_MEMORY);
  }
}

// Reads and forgets, after everything was sent: closing with unread input would
// make the kernel reset the connection, and the client could lose our last words.
static void discard(struct transport *transport) {
  ssize_t got = recv(transport->fd, transport->shared->read_buffer, TRANSPORT_READ_BUFFER_BYTES, 0);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
    transport_free(transport);
  }
}

static void on_readable(evutil_socket_t fd, short what, void *owner) {
  struct transport *transport = owner;
  uint8_t *buffer = transport->shared->read_buffer;
  (void)what;

  if (transport->closed) {
    discard(transport);
    return;
  }
  if (transport->paused) {
    return;
  }
  size_t len = transport->kept_len;
  if (len > 0) {
    memcpy(buffer, transport->kept, len);
  }
  if (!transport->replaying) {
    ssize_t got = recv(fd, buffer + len, READ_MAX_BYTES, 0);
    if (got <= 0) {
      if (got == 0) {
        ended(transport, CLOSE_CLIENT_CLOSED);
      } else if (errno != EAGAIN && errno != EINTR) {
        ended(transport, CLOSE_CLIENT_RESET);
      }
      return;
    }
    counters_add(transport->shared->counters, COUNTER_BYTES_IN, (uint64_t)got);
    len += (size_t)got;
  }
  transport->replaying = false;
  transport->reading = true;
  pass_on(transport, buffer, len);
  transport->reading = false;
  if (transport->closed && !transport->flushing) {
    transport_free(transport);
  }
}

static void finish_writing(struct transport *transport) {
  shutdown(transport->fd, SHUT_WR);
  event_add(&transport->readable, NULL);
}

static void on_writable(evutil_socket_t fd, short what, void *owner) {
  struct transport *transport = owner;
  const struct transport_shared *shared = transport->shared;
  (void)what;

  int sent = evbuffer_write(transport->output, fd);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) {
    if (transport->closed) {
      transport_free(transport);
    } else {
      event_del(&transport->writable);
      ended(transport, CLOSE_CLIENT_RESET);
    }
    return;
  }
  if (sent > 0) {
    transport->accepted_bytes += (uint64_t)sent;
    counters_add(shared->counters, COUNTER_BYTES_OUT, (uint64_t)sent);
    counters_gauge_add(shared->counters, GAUGE_QUEUED_OUT_BYTES, -(int64_t)sent);
  }
  size_t left = evbuffer_get_length(transport->output);
  if (left == 0) {
    event_del(&transport->writable);
    evbuffer_free(transport->output);
    transport->output = NULL;
    if (transport->closed) {
      finish_writing(transport);
      return;
    }
  }
  if (left < shared->low_bytes && !transport->closed) {
    transport->events.on_drained(transport->owner);
  }
}

static void on_linger_over(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  transport_free(owner);
}

struct transport *transport_tcp_new(struct transport_shared *shared, int fd,
                                    const struct transport_events *events, void *owner,
                                    void *cookie) {
  struct transport *transport = calloc(1, sizeof *transport);
  if (!transport) {
    close(fd);
    return NULL;
  }
  transport->shared = shared;
  transport->events = *events;
  transport->owner = owner;
  transport->cookie = cookie;
  transport->fd = fd;
  event_assign(&transport->readable, shared->base, fd, EV_READ | EV_PERSIST, on_readable,
               transport);
  event_assign(&transport->writable, shared->base, fd, EV_WRITE | EV_PERSIST, on_writable,
               transport);
  evtimer_assign(&transport->linger, shared->base, on_linger_over, transport);
  if (event_add(&transport->readable, NULL) != 0) {
    close(fd);
    free(transport);
    return NULL;
  }
  LIST_INSERT_HEAD(&shared->all, transport, link);
  return transport;
}

int transport_send(struct transport *transport, uint8_t *buffer, size_t len) {
  const struct transport_shared *shared = transport->shared;
  size_t total = FRAME_HEADER_BYTES + len;
  size_t sent = 0;

  frame_write_header(buffer, len);
  if (!transport->output) {
    ssize_t n = send(transport->fd, buffer, total, MSG_NOSIGNAL);
    // An error shows again, and is dealt with, when the loop finds the socket
    // readable or writable.
    sent = n > 0 ? (size_t)n : 0;
    counters_add(shared->counters, COUNTER_BYTES_OUT, sent);
    transport->accepted_bytes += sent;
    if (sent == total) {
      return 0;
    }
    transport->output = evbuffer_new();
    if (!transport->output) {
      return ERROR_MEMORY;
    }
    event_add(&transport->writable, NULL);
  }
  if (evbuffer_add(transport->output, buffer + sent, total - sent) != 0) {
    return ERROR_MEMORY;
  }
  counters_gauge_add(shared->counters, GAUGE_QUEUED_OUT_BYTES, (int64_t)(total - sent));
  return 0;
}

size_t transport_queued_bytes(const struct transport *transport) {
  return transport->output ? evbuffer_get_length(transport->output) : 0;
}

// The kernel's own buffer is not the client: it takes megabytes before it shows anything.
uint64_t transport_taken_bytes(const struct transport *transport) {
  int unacknowledged = 0;
  ioctl(transport->fd, SIOCOUTQ, &unacknowledged);
  return transport->accepted_bytes - (uint64_t)unacknowledged;
}

void transport_pause(struct transport *transport) {
  transport->paused = true;
  event_del(&transport->readable);
}

void transport_resume(struct transport *transport) {
  if (!transport->paused || transport->closed) {
    return;
  }
  transport->paused = false;
  event_add(&transport->readable, NULL);
  if (transport->kept_len > 0) {
    transport->replaying = true;
    event_active(&transport->readable, EV_READ, 0);
  }
}

void transport_close(struct transport *transport, bool flush) {
  if (transport->closed) {
    return;
  }
  transport->closed = true;
  if (!flush) {
    if (!transport->reading) {
      transport_free(transport);
    }
    return;
  }
  struct timeval linger = clock_timeval(transport->shared->linger_ms);
  transport->flushing = true;
  evtimer_add(&transport->linger, &linger);
  event_del(&transport->readable);
  if (!transport->output) {
    finish_writing(transport);
  }
}

void transport_cut_all(struct transport_shared *shared) {
  struct transport *transport;
  while ((transport = LIST_FIRST(&shared->all))) {
    transport_free(transport);  // NOLINT(clang-analyzer-unix.Malloc): it has left the list
  }
}
