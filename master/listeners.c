#include "master/listeners.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/networks.h"
#include "master/listeners_steer.h"

#define LOG_MODULE LOG_MODULE_MASTER

// Of the kernel's questions to a client that is quiet, after which it is gone.
static const int keepalive_interval_s = 10;
static const int keepalive_probes = 3;

// Splits host:port or [host]:port; an empty host means every address.
static int resolve(const char *addr, int type, struct addrinfo **found) {
  char host[128];
  const char *colon = strrchr(addr, ':');
  if (!colon || (size_t)(colon - addr) >= sizeof host) {
    return EAI_NONAME;
  }
  size_t len = (size_t)(colon - addr);
  const char *start = addr;
  if (len >= 2 && addr[0] == '[' && colon[-1] == ']') {
    start++;
    len -= 2;
  }
  memcpy(host, start, len);
  host[len] = '\0';
  struct addrinfo hints = {.ai_socktype = type, .ai_flags = AI_PASSIVE};
  return getaddrinfo(len > 0 ? host : NULL, colon + 1, &hints, found);
}

// With a backlog of 0 it is only bound. SO_REUSEADDR lets TCP bind a port that connections of the
// past still have; with UDP it would let a stranger have the port too.
static int bind_one(int type, const struct sockaddr *address, socklen_t len, int backlog,
                    bool shared) {
  int on = 1;
  int fd = socket(address->sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return -1;
  }
  if ((type == SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) ||
      (shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) ||
      bind(fd, address, len) != 0 || (backlog > 0 && listen(fd, backlog) != 0)) {
    int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  return fd;
}

// The kernel takes in whoever of the same user binds the same port with SO_REUSEPORT, and deals the
// clients out between them. It is no error: workers whose master died still have the port when the
// next one comes.
static bool warn_of_strangers(int type, const struct sockaddr *address, socklen_t len,
                              const char *addr) {
  int fd = bind_one(type, address, len, type == SOCK_STREAM, false);
  if (fd >= 0) {
    close(fd);
    return false;
  }
  const bool shared = errno == EADDRINUSE;
  if (shared) {
    log_warn(
        "port_shared",
        "address=%s hint=\"another process, or another listener of this gateway, has it too, "
        "and gets some of the clients; workers of a janusd that died leave it within seconds\"",
        addr);
  }
  return shared;
}

// --- Sockets that are open already ------------------------------------------------------

enum { OFFERS_MAX = CONFIG_LISTENERS + 1 };

static struct offer {
  char addr[CONFIG_TEXT_BYTES];
  struct listeners listeners;
} offers[OFFERS_MAX];
static size_t offer_count;

void listeners_offer(const char *addr, const struct listeners *listeners) {
  if (offer_count == OFFERS_MAX || listeners->count == 0) {
    free(listeners->fds);
    return;
  }
  struct offer *offer = &offers[offer_count++];
  offer->listeners = *listeners;
  snprintf(offer->addr, sizeof offer->addr, "%s", addr);
}

void listeners_withdraw_offers(void) {
  for (size_t i = 0; i < offer_count; i++) {
    listeners_close(&offers[i].listeners);
  }
  offer_count = 0;
}

// The offer for that address, which is the caller's then. False: there is none.
static bool take_offer(struct listeners *listeners, int type, const char *addr) {
  for (size_t i = 0; i < offer_count; i++) {
    if (offers[i].listeners.fds && offers[i].listeners.type == type &&
        strcmp(offers[i].addr, addr) == 0) {
      *listeners = offers[i].listeners;
      offers[i].listeners = (struct listeners){0};
      return true;
    }
  }
  return false;
}

// --- Opening ------------------------------------------------------------------------------

// Who else may have the port.
enum company {
  ALONE,    // nobody
  SHARED,   // sockets of the same group
  JOINING,  // and some are known to be there
};

// Finds a free port, which the socket holds until all others are bound: one that was bound to port
// 0 itself would lose it with listeners_suspend. It does not listen, and so is none of their group.
static int hold_any_port(struct sockaddr_storage *address, socklen_t *len) {
  int fd = bind_one(SOCK_STREAM, (struct sockaddr *)address, *len, 0, true);
  if (fd >= 0) {
    getsockname(fd, (struct sockaddr *)address, len);
  }
  return fd;
}

// The same for UDP, where the socket is to be the first of the group: whoever is bound is in it.
// With SO_REUSEPORT the kernel would choose ports that other groups have; so it is set afterwards,
// and the group comes into being with a second one, which leaves it again.
static int open_any_port(struct sockaddr_storage *address, socklen_t *len) {
  const int on = 1;
  int fd = bind_one(SOCK_DGRAM, (struct sockaddr *)address, *len, 0, false);
  int second = -1;
  if (fd >= 0 && getsockname(fd, (struct sockaddr *)address, len) == 0 &&
      setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0) {
    second = bind_one(SOCK_DGRAM, (struct sockaddr *)address, *len, 0, true);
  }
  int error = errno;
  if (second >= 0) {
    close(second);
  } else if (fd >= 0) {
    close(fd);
    fd = -1;
  }
  errno = error;
  return fd;
}

static int cant_listen(struct listeners *listeners, const char *addr, char *why, size_t why_size) {
  snprintf(why, why_size, "can't listen on %s: %s%s", addr, strerror(errno),
           errno == EADDRINUSE ? " (is another gateway running?)" : "");
  listeners_close(listeners);
  return ERROR_SYSTEM;
}

static bool has_port(const struct sockaddr_storage *address) {
  return address->ss_family == AF_INET6
             ? ((const struct sockaddr_in6 *)(const void *)address)->sin6_port != 0
             : ((const struct sockaddr_in *)(const void *)address)->sin_port != 0;
}

static int open_all(struct listeners *listeners, int type, const char *addr, int backlog,
                    size_t count, enum company company, char *why, size_t why_size) {
  const bool shared = company != ALONE;
  struct addrinfo *found = NULL;
  struct sockaddr_storage bound;
  socklen_t len = 0;
  int holder = -1;
  bool crowded = false;

  if (company != JOINING && take_offer(listeners, type, addr)) {
    listeners->backlog = backlog;
    return 0;
  }
  *listeners =
      (struct listeners){.fds = calloc(count, sizeof(int)), .type = type, .backlog = backlog};
  if (!listeners->fds) {
    snprintf(why, why_size, "out of memory");
    return ERROR_MEMORY;
  }
  int resolved = resolve(addr, type, &found);
  if (resolved != 0) {
    snprintf(why, why_size, "%s is not an address to listen on: %s", addr, gai_strerror(resolved));
    listeners_close(listeners);
    return ERROR_INVALID;
  }
  len = found->ai_addrlen;
  memcpy(&bound, found->ai_addr, len);
  freeaddrinfo(found);
  if (shared && !has_port(&bound)) {
    int fd = type == SOCK_DGRAM ? open_any_port(&bound, &len) : hold_any_port(&bound, &len);
    if (fd < 0) {
      return cant_listen(listeners, addr, why, why_size);
    }
    if (type == SOCK_DGRAM) {
      listeners->fds[listeners->count++] = fd;
    } else {
      holder = fd;
    }
  } else if (company == SHARED) {
    crowded = warn_of_strangers(type, (struct sockaddr *)&bound, len, addr);
  }
  while (listeners->count < count) {
    int fd = bind_one(type, (struct sockaddr *)&bound, len, backlog, shared);
    if (fd < 0) {
      int error = cant_listen(listeners, addr, why, why_size);
      if (holder >= 0) {
        close(holder);
      }
      return error;
    }
    listeners->fds[listeners->count++] = fd;
    getsockname(fd, (struct sockaddr *)&bound, &len);
  }
  if (holder >= 0) {
    close(holder);
  }
  listeners->preferred = crowded ? 0 : listeners->count;
  listeners->disordered = crowded && type == SOCK_DGRAM;
  network_format_socket((struct sockaddr *)&bound, len, listeners->address,
                        sizeof listeners->address);
  return 0;
}

int listeners_open(struct listeners *listeners, const char *addr, int backlog, size_t count,
                   char *why, size_t why_size) {
  return open_all(listeners, SOCK_STREAM, addr, backlog, count, SHARED, why, why_size);
}

int listeners_open_alone(struct listeners *listeners, const char *addr, int backlog, char *why,
                         size_t why_size) {
  return open_all(listeners, SOCK_STREAM, addr, backlog, 1, ALONE, why, why_size);
}

// --- Options ------------------------------------------------------------------------------

struct option {
  bool wanted;
  int level, name;
  const void *value;
  socklen_t size;
};

static bool set_all(int fd, const struct option *options, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (options[i].wanted &&
        setsockopt(fd, options[i].level, options[i].name, options[i].value, options[i].size) != 0) {
      return false;
    }
  }
  return true;
}

static bool set_stream_options(int fd, const struct config_listener *listener) {
  const int defer_s = (int)((listener->defer_accept_ms + 999) / 1000);
  const int idle_s = (int)((listener->keepalive_ms + 999) / 1000);
  const unsigned user_timeout_ms = (unsigned)listener->user_timeout_ms;
  const int nodelay = listener->nodelay;
  const int keepalive = idle_s > 0;
  const struct option options[] = {
      {true, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof nodelay},
      {true, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer_s, sizeof defer_s},
      {true, SOL_SOCKET, SO_KEEPALIVE, &keepalive, sizeof keepalive},
      {keepalive, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s},
      {keepalive, IPPROTO_TCP, TCP_KEEPINTVL, &keepalive_interval_s, sizeof keepalive_interval_s},
      {keepalive, IPPROTO_TCP, TCP_KEEPCNT, &keepalive_probes, sizeof keepalive_probes},
      {true, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms},
  };
  return set_all(fd, options, sizeof options / sizeof *options);
}

// Says so once for each size that was asked for.
static void check_buffer(int fd, int name, const char *sysctl, int wanted, int *warned_of) {
  int doubled = 0;
  socklen_t size = sizeof doubled;
  if (getsockopt(fd, SOL_SOCKET, name, &doubled, &size) != 0 || doubled / 2 >= wanted ||
      *warned_of == wanted) {
    return;
  }
  *warned_of = wanted;
  log_warn("small_socket_buffer",
           "wanted=%d got=%d hint=\"datagrams of clients may be lost here when many come at once: "
           "sysctl -w %s=%d, or a smaller kcp.socket_buffer_bytes\"",
           wanted, doubled / 2, sysctl, wanted);
}

static bool set_datagram_options(int fd, const struct config *config) {
  static int warned_of_receive, warned_of_send;
  const int on = 1;
  const int class = (int)(config->kcp.dscp << 2);
  const int buffer = (int)config->kcp.socket_buffer_bytes;
  int domain = AF_INET;
  socklen_t size = sizeof domain;
  getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
  const bool is_v6 = domain == AF_INET6;
  const struct option options[] = {
      // Each datagram says which of our addresses it came to: the answer has to come from there.
      {!is_v6, IPPROTO_IP, IP_PKTINFO, &on, sizeof on},
      {is_v6, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on},
      {is_v6, IPPROTO_IPV6, IPV6_TCLASS, &class, sizeof class},
      {true, IPPROTO_IP, IP_TOS, &class, sizeof class},  // to clients of IPv4 from either
      {true, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer},
      {true, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer},
  };
  if (!set_all(fd, options, sizeof options / sizeof *options)) {
    return false;
  }
  check_buffer(fd, SO_RCVBUF, "net.core.rmem_max", buffer, &warned_of_receive);
  check_buffer(fd, SO_SNDBUF, "net.core.wmem_max", buffer, &warned_of_send);
  return true;
}

static bool set_options(const struct listeners *listeners, int fd, const struct config *config,
                        const struct config_listener *listener) {
  return listeners->type == SOCK_DGRAM
             ? set_datagram_options(fd, config)
             : set_stream_options(fd, listener) && listen(fd, (int)listener->backlog) == 0;
}

int listeners_set_options(struct listeners *listeners, const struct config *config,
                          const struct config_listener *listener, char *why, size_t why_size) {
  for (size_t i = 0; i < listeners->count; i++) {
    if (!set_options(listeners, listeners->fds[i], config, listener)) {
      snprintf(why, why_size, "can't set the options of the listener on %s: %s", listener->addr,
               strerror(errno));
      return ERROR_SYSTEM;
    }
  }
  listeners->backlog = (int)listener->backlog;
  return 0;
}

// --- For clients ---------------------------------------------------------------------------

static int open_for_clients(struct listeners *listeners, const struct config *config,
                            const struct config_listener *listener, bool known, size_t count,
                            char *why, size_t why_size) {
  const bool datagrams = listener->transport == TRANSPORT_KCP;
  int error = open_all(listeners, datagrams ? SOCK_DGRAM : SOCK_STREAM, listener->addr,
                       datagrams ? 0 : (int)listener->backlog, count, known ? JOINING : SHARED, why,
                       why_size);
  if (error == 0 &&
      (error = listeners_set_options(listeners, config, listener, why, why_size)) != 0) {
    listeners_close(listeners);
  }
  return error;
}

static void cant_prefer(const struct listeners *listeners, char *why, size_t why_size) {
  snprintf(why, why_size, "%s: the kernel can't be told which workers clients are for: %s",
           listeners->address, strerror(errno));
}

// Workers of a master that died have sockets in the group for a few seconds, and these came first:
// by their numbers nothing would come to ours.
static int begin_steering(struct listeners *listeners, char *why, size_t why_size) {
  if (listeners->type != SOCK_DGRAM) {
    return 0;
  }
  if (listeners->preferred == 0) {
    listeners_steer_not(listeners->fds[0]);
    return 0;
  }
  int error = listeners_prefer(listeners, listeners->preferred);
  if (error != 0) {
    cant_prefer(listeners, why, why_size);
  }
  return error;
}

int listeners_open_for_clients(struct listeners *listeners, const struct config *config,
                               const struct config_listener *listener, size_t count, char *why,
                               size_t why_size) {
  int error = open_for_clients(listeners, config, listener, false, count, why, why_size);
  if (error == 0 && (error = begin_steering(listeners, why, why_size)) != 0) {
    listeners_close(listeners);
  }
  return error;
}

void listeners_suspend(const struct listeners *listeners) {
  for (size_t i = 0; listeners->type == SOCK_STREAM && i < listeners->count; i++) {
    shutdown(listeners->fds[i], SHUT_RD);  // it is bound all the same, and listens again when told
  }
}

int listeners_resume(const struct listeners *listeners) {
  for (size_t i = 0; listeners->type == SOCK_STREAM && i < listeners->count; i++) {
    if (listen(listeners->fds[i], listeners->backlog) != 0) {
      return ERROR_SYSTEM;
    }
  }
  return 0;
}

int listeners_grow(struct listeners *listeners, const struct config *config,
                   const struct config_listener *listener, size_t count, char *why,
                   size_t why_size) {
  struct listeners more;
  size_t preferred = listeners->preferred > 0 ? listeners->preferred : listeners->count;
  // When a stranger's socket leaves the group, the kernel puts the last one into its place: the
  // first few would be those of any of our workers, also of one that leaves.
  if (listeners->disordered && count < preferred) {
    snprintf(why, why_size,
             "worker.count: can't be lowered before a restart: others had %s too when this janusd "
             "started, and which of our sockets the kernel takes for the first is not known",
             listeners->address);
    return ERROR_INVALID;
  }
  if (count <= listeners->count) {
    return 0;
  }
  if (listeners_prefer(listeners, preferred) != 0) {
    cant_prefer(listeners, why, why_size);
    return ERROR_SYSTEM;
  }
  int *fds = realloc(listeners->fds, count * sizeof *fds);
  if (!fds) {
    snprintf(why, why_size, "out of memory");
    return ERROR_MEMORY;
  }
  listeners->fds = fds;
  struct config_listener as_bound = *listener;  // the port that it has, where 0 was asked for
  snprintf(as_bound.addr, sizeof as_bound.addr, "%s", listeners->address);
  int error =
      open_for_clients(&more, config, &as_bound, true, count - listeners->count, why, why_size);
  if (error != 0) {
    return error;
  }
  memcpy(fds + listeners->count, more.fds, more.count * sizeof *fds);
  listeners->count = count;
  free(more.fds);
  return 0;
}

int listeners_prefer(struct listeners *listeners, size_t count) {
  int error = listeners->type == SOCK_DGRAM ? listeners_steer_by_client(listeners->fds[0], count)
                                            : listeners_steer_by_chance(listeners->fds[0], count);
  if (error == 0) {
    listeners->preferred = count;
  }
  return error;
}

void listeners_shrink(struct listeners *listeners, size_t count) {
  while (listeners->type == SOCK_STREAM && listeners->count > count) {
    close(listeners->fds[--listeners->count]);
  }
}

void listeners_close(struct listeners *listeners) {
  for (size_t i = 0; i < listeners->count; i++) {
    close(listeners->fds[i]);
  }
  free(listeners->fds);
  *listeners = (struct listeners){0};
}
