#include "worker/acceptor.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/networks.h"
#include "worker/session.h"
#include "worker/worker.h"

// Accepted in one turn of the loop at most, so that a storm of connections does
// not hold up the players who are in.
enum { ACCEPT_BATCH = 64 };
static const struct timeval backoff_time = {.tv_usec = 100000};

struct acceptor {
  struct worker *worker;
  int listener;  // -1 once stopped
  int reserve;   // given up to refuse a client cleanly when descriptors run out
  struct event *acceptable;
  struct event *backoff;
  struct address_limits *addresses;
  size_t open_connections;
};

static int open_reserve(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

static void refuse(struct acceptor *acceptor, int fd, enum close_reason reason) {
  struct worker *worker = acceptor->worker;
  uint64_t suppressed;
  close(fd);
  counters_closed(worker->counters, reason);
  if (worker_may_log(worker, WORKER_LOG_REFUSED, &suppressed)) {
    log_warn("connection_refused", "reason=%s connections=%zu suppressed=%" PRIu64,
             close_reason_name(reason), acceptor->open_connections, suppressed);
  }
}

// One that has been accepted.
struct arrival {
  struct worker *worker;
  struct address_count *count;
  int fd;  // -1 when the wire has taken it over
};

static struct wire *make_wire(void *context, const struct wire_events *events, void *owner) {
  struct arrival *arrival = context;
  int fd = arrival->fd;
  arrival->fd = -1;
  return wire_socket_new(&arrival->worker->wires, fd, events, owner);
}

static struct transport *make_transport(void *context, const struct transport_events *events,
                                        void *owner) {
  struct arrival *arrival = context;
  return transport_framed_new(make_wire, arrival, events, owner, &arrival->worker->transport_gone,
                              arrival->count);
}

static void take_in(struct acceptor *acceptor, int fd, const struct sockaddr *address,
                    socklen_t address_len) {
  struct worker *worker = acceptor->worker;
  struct address_count *count = NULL;
  char text[64];
  int on = 1;

  counters_add(worker->counters, COUNTER_CONNECTIONS_ACCEPTED, 1);
  if (acceptor->open_connections >= (size_t)worker->config.limits.connections_per_worker) {
    refuse(acceptor, fd, CLOSE_CONNECTION_LIMIT);
    return;
  }
  if (!(count = address_limits_acquire(acceptor->addresses, address))) {
    refuse(acceptor, fd, CLOSE_ADDRESS_LIMIT);
    return;
  }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  network_format_socket(address, address_len, text, sizeof text);
  struct arrival arrival = {.worker = worker, .count = count, .fd = fd};
  if (!session_new(worker, text, make_transport, &arrival)) {
    if (arrival.fd >= 0) {
      close(fd);
    }
    address_limits_release(acceptor->addresses, count);
    counters_closed(worker->counters, CLOSE_OUT_OF_MEMORY);
    return;
  }
  acceptor->open_connections++;
  counters_gauge_add(worker->counters, GAUGE_CONNECTIONS, 1);
}

void acceptor_on_gone(struct acceptor *acceptor, void *cookie) {
  address_limits_release(acceptor->addresses, cookie);
  acceptor->open_connections--;
  counters_gauge_add(acceptor->worker->counters, GAUGE_CONNECTIONS, -1);
}

// No descriptor is left: the client at the head is refused with the one held in
// reserve, and accepting rests for a while.
static void out_of_descriptors(struct acceptor *acceptor) {
  close(acceptor->reserve);
  int fd = accept4(acceptor->listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd >= 0) {
    refuse(acceptor, fd, CLOSE_DESCRIPTOR_LIMIT);
  }
  acceptor->reserve = open_reserve();
  counters_add(acceptor->worker->counters, COUNTER_ACCEPT_BACKOFFS, 1);
  event_del(acceptor->acceptable);
  event_add(acceptor->backoff, &backoff_time);
}

static void on_acceptable(evutil_socket_t listener, short what, void *owner) {
  struct acceptor *acceptor = owner;
  (void)what;
  for (int i = 0; i < ACCEPT_BATCH; i++) {
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    int fd = accept4(listener, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      take_in(acceptor, fd, (struct sockaddr *)&address, len);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      out_of_descriptors(acceptor);
      return;
    } else if (errno == EAGAIN) {
      return;
    }
    // Anything else concerns the one connection, which is gone already.
  }
}

static void on_backoff_over(evutil_socket_t fd, short what, void *owner) {
  struct acceptor *acceptor = owner;
  (void)fd;
  (void)what;
  event_add(acceptor->acceptable, NULL);
}

struct acceptor *acceptor_new(struct worker *worker, int listener) {
  struct acceptor *acceptor = calloc(1, sizeof *acceptor);
  if (!acceptor) {
    close(listener);
    return NULL;
  }
  acceptor->worker = worker;
  acceptor->listener = listener;
  acceptor->reserve = open_reserve();
  acceptor->addresses = address_limits_new((size_t)worker->config.limits.connections_per_address);
  acceptor->acceptable =
      event_new(worker->base, listener, EV_READ | EV_PERSIST, on_acceptable, acceptor);
  acceptor->backoff = event_new(worker->base, -1, 0, on_backoff_over, acceptor);
  if (acceptor->reserve < 0 || !acceptor->addresses || !acceptor->acceptable ||
      !acceptor->backoff) {
    acceptor_free(acceptor);
    return NULL;
  }
  return acceptor;
}

void acceptor_start(struct acceptor *acceptor) { event_add(acceptor->acceptable, NULL); }

void acceptor_stop(struct acceptor *acceptor) {
  if (acceptor->listener < 0) {
    return;
  }
  if (acceptor->acceptable) {
    event_del(acceptor->acceptable);
  }
  if (acceptor->backoff) {
    event_del(acceptor->backoff);
  }
  close(acceptor->listener);
  acceptor->listener = -1;
}

size_t acceptor_open_connections(const struct acceptor *acceptor) {
  return acceptor->open_connections;
}

void acceptor_free(struct acceptor *acceptor) {
  if (!acceptor) {
    return;
  }
  acceptor_stop(acceptor);
  if (acceptor->acceptable) {
    event_free(acceptor->acceptable);
  }
  if (acceptor->backoff) {
    event_free(acceptor->backoff);
  }
  if (acceptor->reserve >= 0) {
    close(acceptor->reserve);
  }
  address_limits_free(acceptor->addresses);
  free(acceptor);
}
