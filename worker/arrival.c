#include "worker/arrival.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <inttypes.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/networks.h"
#include "common/tls_server.h"
#include "worker/acceptor.h"
#include "worker/newcomers.h"
#include "worker/proxy_header.h"
#include "worker/session.h"
#include "worker/trace.h"

#define LOG_MODULE LOG_MODULE_TLS

struct arrival {
  LIST_ENTRY(arrival) link;
  struct listener *listener;
  struct place *place;
  int fd;  // -1 when the wire has taken it over
  struct sockaddr_storage address;
  socklen_t address_len;
  struct proxy_header proxy_header;
  SSL *ssl;  // NULL without TLS, and when the wire has taken it over
  struct newcomer newcomer;
  struct event ready;
  struct event timer;
};

static struct worker *worker_of(const struct arrival *arrival) {
  return arrival->listener->acceptor->worker;
}

static const struct sockaddr *address_of(const struct arrival *arrival) {
  return (const struct sockaddr *)&arrival->address;
}

static void arrival_free(struct arrival *arrival) {
  newcomers_leave(worker_of(arrival)->newcomers, &arrival->newcomer);
  event_del(&arrival->ready);
  event_del(&arrival->timer);
  LIST_REMOVE(arrival, link);
  free(arrival);
}

void arrival_refuse(struct arrival *arrival, enum close_reason reason) {
  SSL_free(arrival->ssl);
  if (arrival->fd >= 0) {
    close(arrival->fd);
  }
  acceptor_refused(arrival->listener, address_of(arrival), arrival->address_len, reason);
  trace_address(arrival->place->trace, address_of(arrival));
  trace_refused(arrival->place->trace, reason);
  acceptor_leave_place(arrival->place);
  arrival_free(arrival);
}

// --- Its session ---------------------------------------------------------------------

static struct wire *make_wire(void *context, const struct wire_events *events, void *owner) {
  struct arrival *arrival = context;
  int fd = arrival->fd;
  SSL *ssl = arrival->ssl;
  arrival->fd = -1;
  arrival->ssl = NULL;
  return wire_socket_new(&worker_of(arrival)->wires, fd, ssl, events, owner);
}

static struct transport *make_transport(void *context, const struct transport_events *events,
                                        void *owner) {
  struct arrival *arrival = context;
  const struct listener *listener = arrival->listener;
  const struct transport_gone *gone = &worker_of(arrival)->transport_gone;
  if (listener->config->transport == TRANSPORT_WS) {
    return transport_websocket_new(make_wire, arrival, &listener->websocket, events, owner, gone,
                                   arrival->place);
  }
  return transport_framed_new(make_wire, arrival, events, owner, gone, arrival->place);
}

static void become_session(struct arrival *arrival) {
  event_del(&arrival->ready);  // before the wire has the descriptor
  struct worker *worker = worker_of(arrival);
  char text[64];
  network_format_socket(address_of(arrival), arrival->address_len, text, sizeof text);
  trace_address(arrival->place->trace, address_of(arrival));
  if (session_new(worker, config_listener_kind(arrival->listener->config), text, 0,
                  arrival->place->trace, make_transport, arrival)) {
    arrival_free(arrival);
    return;
  }
  arrival_refuse(arrival, CLOSE_OUT_OF_MEMORY);
}

// --- TLS -----------------------------------------------------------------------------

static void on_tls_ready(evutil_socket_t fd, short what, void *owner);

static void await(struct arrival *arrival, short what, event_callback_fn callback) {
  event_del(&arrival->ready);
  event_assign(&arrival->ready, worker_of(arrival)->base, arrival->fd, what | EV_PERSIST, callback,
               arrival);
  event_add(&arrival->ready, NULL);
}

// Goes on with the handshake, as far as what has come allows; what is awaited now.
static void shake_hands(struct arrival *arrival, short what) {
  struct worker *worker = worker_of(arrival);
  ERR_clear_error();
  errno = 0;
  int result = SSL_accept(arrival->ssl);
  if (result == 1) {
    counters_add(worker->counters, COUNTER_TLS_HANDSHAKES, 1);
    counters_add(worker->counters, COUNTER_TLS_RESUMED, (uint64_t)SSL_session_reused(arrival->ssl));
    become_session(arrival);
    return;
  }
  switch (SSL_get_error(arrival->ssl, result)) {
    case SSL_ERROR_WANT_READ:
      if (what != EV_READ) {
        await(arrival, EV_READ, on_tls_ready);
      }
      return;
    case SSL_ERROR_WANT_WRITE:
      if (what != EV_WRITE) {
        await(arrival, EV_WRITE, on_tls_ready);
      }
      return;
    case SSL_ERROR_ZERO_RETURN: arrival_refuse(arrival, CLOSE_CLIENT_CLOSED); return;
    case SSL_ERROR_SYSCALL:
      arrival_refuse(arrival, errno == 0 ? CLOSE_CLIENT_CLOSED : CLOSE_CLIENT_RESET);
      return;
    default: {
      const char *why = ERR_reason_error_string(ERR_peek_last_error());
      uint64_t suppressed;
      if (log_enabled(LOG_LEVEL_DEBUG) && worker_may_log(worker, WORKER_LOG_TLS, &suppressed)) {
        log_debug("tls_failed", "why=\"%s\" suppressed=%" PRIu64, why ? why : "unknown",
                  suppressed);
      }
      arrival_refuse(arrival, CLOSE_TLS_FAILED);
      return;
    }
  }
}

static void on_turn(void *owner) {
  struct arrival *arrival = owner;
  event_add(&arrival->ready, NULL);
  shake_hands(arrival, event_get_events(&arrival->ready) & (EV_READ | EV_WRITE));
}

static void on_tls_ready(evutil_socket_t fd, short what, void *owner) {
  struct arrival *arrival = owner;
  struct worker *worker = worker_of(arrival);
  if (!arrival->ssl) {
    // Not before the client has said something: one that only looks whether we are there costs
    // nothing.
    char byte;
    if (recv(fd, &byte, 1, MSG_PEEK) == 0) {
      arrival_refuse(arrival, CLOSE_CLIENT_CLOSED);
      return;
    }
    if (!token_bucket_take(&worker->tls_handshakes, 1, clock_monotonic_ms())) {
      arrival_refuse(arrival, CLOSE_TLS_RATE);
      return;
    }
    arrival->ssl = tls_server(arrival->listener->tls, arrival->fd);
    if (!arrival->ssl) {
      arrival_refuse(arrival, CLOSE_OUT_OF_MEMORY);
      return;
    }
  }
  if (newcomers_may(worker->newcomers)) {
    shake_hands(arrival, what);
  } else {
    event_del(&arrival->ready);
    newcomers_wait(worker->newcomers, &arrival->newcomer, on_turn, arrival);
  }
}

static void begin_tls(struct arrival *arrival) {
  if (!evtimer_pending(&arrival->timer, NULL)) {  // there was no PROXY header to wait for
    event_add(&arrival->timer, worker_of(arrival)->handshake_timeout);
  }
  await(arrival, EV_READ, on_tls_ready);
}

// --- Its address ---------------------------------------------------------------------

static bool is_in(const struct networks *networks, const struct sockaddr *address) {
  uint8_t bytes[NETWORK_ADDRESS_BYTES];
  network_address_of_socket(address, bytes);
  return networks_have(networks, bytes);
}

static void on_address(struct arrival *arrival) {
  const struct config_listener *config = arrival->listener->config;
  if (!acceptor_allows(arrival->listener, address_of(arrival))) {
    arrival_refuse(arrival, CLOSE_ADDRESS_DENIED);
    return;
  }
  if (!acceptor_count_address(arrival->place, address_of(arrival))) {
    arrival_refuse(arrival, CLOSE_ADDRESS_LIMIT);
    return;
  }
  if (config->tls.enabled) {
    begin_tls(arrival);
  } else {
    become_session(arrival);
  }
}

// Reads what there is of the PROXY header, and nothing behind it.
static void on_header_bytes(evutil_socket_t fd, short what, void *owner) {
  struct arrival *arrival = owner;
  uint8_t bytes[PROXY_HEADER_MAX_BYTES];
  (void)what;
  for (;;) {
    size_t wanted = proxy_header_wanted(&arrival->proxy_header);
    ssize_t got = recv(fd, bytes, wanted < sizeof bytes ? wanted : sizeof bytes, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      return;
    }
    if (got <= 0) {
      arrival_refuse(arrival, got == 0 ? CLOSE_CLIENT_CLOSED : CLOSE_CLIENT_RESET);
      return;
    }
    counters_add(worker_of(arrival)->counters, COUNTER_BYTES_IN, (uint64_t)got);
    int found = proxy_header_take(&arrival->proxy_header, bytes, (size_t)got, &arrival->address,
                                  &arrival->address_len);
    if (found < 0) {
      arrival_refuse(arrival, CLOSE_PROXY_HEADER);
      return;
    }
    if (found == 0) {
      event_del(&arrival->ready);
      on_address(arrival);
      return;
    }
  }
}

// --- The beginning ---------------------------------------------------------------------

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  arrival_refuse(owner, CLOSE_HANDSHAKE_TIMEOUT);
}

void arrival_new(struct listener *listener, int fd, const struct sockaddr_storage *address,
                 socklen_t address_len) {
  struct worker *worker = listener->acceptor->worker;
  enum close_reason reason = CLOSE_OUT_OF_MEMORY;
  struct arrival *arrival = calloc(1, sizeof *arrival);
  struct place *place = arrival ? acceptor_take_place(listener, &reason) : NULL;
  if (!place) {
    close(fd);
    free(arrival);
    acceptor_refused(listener, (const struct sockaddr *)address, address_len, reason);
    return;
  }
  arrival->listener = listener;
  arrival->place = place;
  place->trace = trace_accepted(worker->trace, listener->config, listener->port);
  arrival->fd = fd;
  arrival->address = *address;
  arrival->address_len = address_len;
  event_assign(&arrival->ready, worker->base, fd, EV_READ, on_header_bytes, arrival);
  evtimer_assign(&arrival->timer, worker->base, on_timer, arrival);
  LIST_INSERT_HEAD(&listener->acceptor->arrivals, arrival, link);
  if (!is_in(&listener->config->proxy, address_of(arrival))) {
    on_address(arrival);
    return;
  }
  event_add(&arrival->timer, worker->handshake_timeout);
  await(arrival, EV_READ, on_header_bytes);
}
