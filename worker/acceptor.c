#include "worker/acceptor.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/networks.h"
#include "common/tls_server.h"
#include "worker/arrival.h"
#include "worker/kcp_engine.h"
#include "worker/kcp_listener.h"
#include "worker/session.h"
#include "worker/slice.h"
#include "worker/trace.h"
#include "worker/worker.h"

#define LOG_MODULE LOG_MODULE_LISTENER

static const struct timeval backoff_time = {.tv_usec = 100000};

static int open_reserve(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

// --- Places --------------------------------------------------------------------------

static bool is_full(size_t count, int64_t limit) { return limit > 0 && count >= (size_t)limit; }

struct place *acceptor_take_place(struct listener *listener, enum close_reason *reason) {
  struct acceptor *acceptor = listener->acceptor;
  const struct config *config = &acceptor->worker->config;
  if (is_full(acceptor->open_connections, config->limits.connections_per_worker) ||
      is_full(listener->open_connections, listener->config->connections_per_worker)) {
    *reason = CLOSE_CONNECTION_LIMIT;
    return NULL;
  }
  struct place *place = calloc(1, sizeof *place);
  if (!place) {
    *reason = CLOSE_OUT_OF_MEMORY;
    return NULL;
  }
  place->listener = listener;
  listener->open_connections++;
  acceptor->open_connections++;
  counters_split_add(acceptor->worker->counters, SPLIT_CONNECTIONS,
                     config_listener_kind(listener->config), 1);
  return place;
}

bool acceptor_allows(const struct listener *listener, const struct sockaddr *address) {
  const struct config_listener *config = listener->config;
  uint8_t bytes[NETWORK_ADDRESS_BYTES];
  network_address_of_socket(address, bytes);
  return !networks_have(&config->deny, bytes) &&
         (config->allow.count == 0 || networks_have(&config->allow, bytes));
}

bool acceptor_count_address(struct place *place, const struct sockaddr *address) {
  struct listener *listener = place->listener;
  place->of_all = address_limits_acquire(listener->acceptor->addresses, address);
  if (place->of_all) {
    place->of_listener = address_limits_acquire(listener->addresses, address);
  }
  return place->of_all && place->of_listener;
}

void acceptor_leave_place(struct place *place) {
  struct listener *listener = place->listener;
  struct acceptor *acceptor = listener->acceptor;
  trace_gone(place->trace);
  if (place->of_all) {
    address_limits_release(acceptor->addresses, place->of_all);
  }
  if (place->of_listener) {
    address_limits_release(listener->addresses, place->of_listener);
  }
  listener->open_connections--;
  acceptor->open_connections--;
  counters_split_add(acceptor->worker->counters, SPLIT_CONNECTIONS,
                     config_listener_kind(listener->config), -1);
  free(place);
}

void acceptor_refused(struct listener *listener, const struct sockaddr *address,
                      socklen_t address_len, enum close_reason reason) {
  struct worker *worker = listener->acceptor->worker;
  uint64_t suppressed;
  char text[64] = "unknown";
  counters_closed(worker->counters, reason);
  if (worker_may_log(worker, WORKER_LOG_REFUSED, &suppressed)) {
    if (address) {
      network_format_socket(address, address_len, text, sizeof text);
    }
    log_warn("connection_refused",
             "reason=%s listener=%s address=%s connections=%zu suppressed=%" PRIu64,
             close_reason_name(reason), config_listener_name(listener->config), text,
             listener->acceptor->open_connections, suppressed);
  }
}

// --- TLS -------------------------------------------------------------------------------

const char *acceptor_load_tls(struct acceptor *acceptor, char *why, size_t why_size) {
  struct worker *worker = acceptor->worker;
  bool any = false;
  for (size_t i = 0; i < acceptor->listener_count; i++) {
    any = any || acceptor->listeners[i].config->tls.enabled;
  }
  if (!any) {
    return NULL;
  }
  SSL_CTX *contexts[CONFIG_LISTENERS] = {NULL};
  struct tls_material *material = tls_material_new();
  const char *wrong = material ? NULL : "out of memory";
  if (material && tls_segment_read(worker->tls, material) != 0) {
    wrong = "the master is changing them";  // and tells when it is done
  }
  for (size_t i = 0; !wrong && i < acceptor->listener_count; i++) {
    const struct config_listener *config = acceptor->listeners[i].config;
    uint32_t index = (uint32_t)(config - worker->config.server.listeners);
    int64_t expires;
    if (config->tls.enabled &&
        !(contexts[i] = tls_server_context(config, index, material, &expires, why, why_size))) {
      wrong = why;
    }
  }
  for (size_t i = 0; i < acceptor->listener_count; i++) {
    SSL_CTX **current = &acceptor->listeners[i].tls;
    SSL_CTX_free(wrong ? contexts[i] : *current);
    *current = wrong ? *current : contexts[i];
  }
  tls_material_free(material);
  return wrong;
}

// --- Accepting -------------------------------------------------------------------------

static void rest_sockets(struct acceptor *acceptor) {
  for (size_t i = 0; i < acceptor->listener_count; i++) {
    if (acceptor->listeners[i].acceptable) {
      event_del(acceptor->listeners[i].acceptable);
    }
  }
}

void acceptor_rest(struct acceptor *acceptor) {
  if (acceptor->backoff) {
    event_del(acceptor->backoff);
  }
  rest_sockets(acceptor);
  for (size_t i = 0; i < acceptor->listener_count; i++) {
    if (acceptor->listeners[i].kcp) {
      kcp_listener_rest(acceptor->listeners[i].kcp);
    }
  }
}

void acceptor_start(struct acceptor *acceptor) {
  for (size_t i = 0; i < acceptor->listener_count; i++) {
    struct listener *listener = &acceptor->listeners[i];
    if (listener->kcp) {
      kcp_listener_start(listener->kcp);
    } else if (listener->fd >= 0) {
      event_add(listener->acceptable, NULL);
    }
  }
}

// No descriptor is left: the client at the head is refused with the one held in
// reserve, and accepting rests for a while. Clients over KCP need none, and come in.
static void out_of_descriptors(struct listener *listener) {
  struct acceptor *acceptor = listener->acceptor;
  close(acceptor->reserve);
  int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
  if (fd >= 0) {
    close(fd);
    acceptor_refused(listener, NULL, 0, CLOSE_DESCRIPTOR_LIMIT);
  }
  acceptor->reserve = open_reserve();
  counters_add(acceptor->worker->counters, COUNTER_ACCEPT_BACKOFFS, 1);
  rest_sockets(acceptor);
  event_add(acceptor->backoff, &backoff_time);
}

static void on_acceptable(evutil_socket_t fd, short what, void *owner) {
  struct listener *listener = owner;
  (void)what;
  int64_t end_us = slice_end_us();
  do {
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    int client = accept4(fd, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client >= 0) {
      counters_split_add(listener->acceptor->worker->counters, SPLIT_CONNECTIONS_ACCEPTED,
                         config_listener_kind(listener->config), 1);
      arrival_new(listener, client, &address, len);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      out_of_descriptors(listener);
      return;
    } else if (errno == EAGAIN) {
      return;
    }
    // Anything else concerns the one connection, which is gone already.
  } while (!slice_is_over(end_us));  // the event comes again for those who still wait
}

static void on_backoff_over(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  acceptor_start(owner);
}

// --- Set-up and tear-down ----------------------------------------------------------------

static int port_of(int fd) {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } address;
  socklen_t len = sizeof address;
  memset(&address, 0, sizeof address);
  if (getsockname(fd, &address.any, &len) != 0) {
    return 0;
  }
  return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

static void set_ping_interval(struct listener *listener) {
  int64_t ms = listener->config->ping_interval_ms;
  struct timeval interval = clock_timeval(ms);
  const struct timeval *common =
      ms > 0 ? event_base_init_common_timeout(listener->acceptor->worker->base, &interval) : NULL;
  if (common || ms == 0) {  // else libevent has no more lists, and it stays as it was
    listener->websocket.ping_interval = common;
  }
}

// What listeners for KCP share is made with the first of them.
static void set_up_kcp(struct listener *listener, int fd, char *why, size_t why_size) {
  struct acceptor *acceptor = listener->acceptor;
  if (!acceptor->kcp) {
    acceptor->kcp = kcp_engine_new(acceptor->worker, why, why_size);
  }
  if (acceptor->kcp) {
    listener->kcp = kcp_listener_new(acceptor->kcp, listener, fd);
  } else {
    close(fd);
  }
}

// False with the reason in why. The descriptor is taken over in any case.
static bool set_up(struct listener *listener, struct acceptor *acceptor, int fd,
                   const struct config_listener *config, char *why, size_t why_size) {
  struct worker *worker = acceptor->worker;
  *listener = (struct listener){.acceptor = acceptor, .config = config, .fd = fd};
  listener->port = port_of(fd);
  if (config->transport == TRANSPORT_KCP) {
    listener->fd = -1;
    set_up_kcp(listener, fd, why, why_size);
  } else {
    listener->acceptable =
        event_new(worker->base, fd, EV_READ | EV_PERSIST, on_acceptable, listener);
  }
  listener->websocket_rules = (struct websocket_rules){
      .path = config->path, .origins = config->origins, .subprotocols = config->subprotocols};
  listener->websocket = (struct websocket_options){.shared = acceptor->websockets,
                                                   .rules = &listener->websocket_rules};
  set_ping_interval(listener);
  listener->addresses = address_limits_new((size_t)config->connections_per_address);
  return (listener->acceptable || listener->kcp) && listener->addresses &&
         (listener->websocket.ping_interval || config->ping_interval_ms == 0);
}

struct acceptor *acceptor_new(struct worker *worker, int first_fd, char *why, size_t why_size) {
  const struct config_listener *config = NULL;
  struct acceptor *acceptor = calloc(1, sizeof *acceptor);
  snprintf(why, why_size, "out of memory");
  if (!acceptor) {
    return NULL;
  }
  acceptor->worker = worker;
  LIST_INIT(&acceptor->arrivals);
  acceptor->reserve = open_reserve();
  acceptor->addresses = address_limits_new((size_t)worker->config.limits.connections_per_address);
  acceptor->backoff = event_new(worker->base, -1, 0, on_backoff_over, acceptor);
  acceptor->websockets = websocket_shared_new();
  bool good =
      acceptor->reserve >= 0 && acceptor->addresses && acceptor->backoff && acceptor->websockets;
  while ((config = config_listener_next(&worker->config, config))) {
    size_t i = acceptor->listener_count++;
    good =
        set_up(&acceptor->listeners[i], acceptor, first_fd + (int)i, config, why, why_size) && good;
  }
  const char *wrong = good ? acceptor_load_tls(acceptor, why, why_size) : NULL;
  if (wrong && wrong != why) {
    snprintf(why, why_size, "%s", wrong);
  }
  if (!good || wrong) {
    acceptor_free(acceptor);
    return NULL;
  }
  return acceptor;
}

void acceptor_apply_settings(struct acceptor *acceptor) {
  const struct config *config = &acceptor->worker->config;
  address_limits_set(acceptor->addresses, (size_t)config->limits.connections_per_address);
  if (acceptor->kcp) {
    kcp_engine_apply_settings(acceptor->kcp);
  }
  for (size_t i = 0; i < acceptor->listener_count; i++) {
    struct listener *listener = &acceptor->listeners[i];
    address_limits_set(listener->addresses, (size_t)listener->config->connections_per_address);
    set_ping_interval(listener);
  }
}

static void close_listening(struct listener *listener) {
  if (listener->fd >= 0) {
    close(listener->fd);
    listener->fd = -1;
  }
}

void acceptor_give_up_listeners(struct acceptor *acceptor) {
  acceptor_rest(acceptor);
  for (size_t i = 0; i < acceptor->listener_count; i++) {
    struct listener *listener = &acceptor->listeners[i];
    close_listening(listener);
    if (listener->kcp) {
      kcp_listener_give_up(listener->kcp);
    }
  }
}

void acceptor_read_on(struct acceptor *acceptor) {
  for (size_t i = 0; i < acceptor->listener_count; i++) {
    if (acceptor->listeners[i].kcp) {
      kcp_listener_read_on(acceptor->listeners[i].kcp);
    }
  }
}

void acceptor_stop(struct acceptor *acceptor, enum close_reason reason) {
  acceptor_rest(acceptor);
  for (size_t i = 0; i < acceptor->listener_count; i++) {
    struct listener *listener = &acceptor->listeners[i];
    close_listening(listener);  // over KCP the last words need answers
    if (listener->kcp) {
      kcp_listener_stop(listener->kcp);
    }
  }
  struct arrival *arrival;
  while ((arrival = LIST_FIRST(&acceptor->arrivals))) {
    arrival_refuse(arrival, reason);
  }
}

size_t acceptor_open_connections(const struct acceptor *acceptor) {
  return acceptor->open_connections;
}

void acceptor_free(struct acceptor *acceptor) {
  if (!acceptor) {
    return;
  }
  acceptor_stop(acceptor, CLOSE_DRAIN);
  for (size_t i = 0; i < acceptor->listener_count; i++) {
    if (acceptor->listeners[i].acceptable) {
      event_free(acceptor->listeners[i].acceptable);
    }
    kcp_listener_free(acceptor->listeners[i].kcp);
    SSL_CTX_free(acceptor->listeners[i].tls);
    address_limits_free(acceptor->listeners[i].addresses);
  }
  if (acceptor->backoff) {
    event_free(acceptor->backoff);
  }
  if (acceptor->reserve >= 0) {
    close(acceptor->reserve);
  }
  kcp_engine_free(acceptor->kcp);
  websocket_shared_free(acceptor->websockets);
  address_limits_free(acceptor->addresses);
  free(acceptor);
}
