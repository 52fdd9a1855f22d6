#include "master/listeners.h"

#include <errno.h>
#include <linux/filter.h>
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

#define LOG_MODULE LOG_MODULE_MASTER

// Of the kernel's questions to a client that is quiet, after which it is gone.
static const int keepalive_interval_s = 10;
static const int keepalive_probes = 3;

// Splits host:port or [host]:port; an empty host means every address.
static int resolve(const char *addr, struct addrinfo **found) {
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
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
  return getaddrinfo(len > 0 ? host : NULL, colon + 1, &hints, found);
}

// With a backlog of 0 it is only bound.
static int bind_one(const struct sockaddr *address, socklen_t len, int backlog, bool shared) {
  int on = 1;
  int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return -1;
  }
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
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
static void warn_if_shared(const struct sockaddr *address, socklen_t len, const char *addr) {
  int fd = bind_one(address, len, 1, false);
  if (fd >= 0) {
    close(fd);
  } else if (errno == EADDRINUSE) {
    log_warn(
        "port_shared",
        "address=%s hint=\"another process, or another listener of this gateway, has it too, "
        "and gets some of the clients; workers of a janusd that died leave it within seconds\"",
        addr);
  }
}

// --- Sockets that are open already ------------------------------------------------------

enum { OFFERS_MAX = CONFIG_LISTENERS + 1 };

static struct offer {
  char addr[CONFIG_TEXT_BYTES];
  struct listeners listeners;
} offers[OFFERS_MAX];
static size_t offer_count;

void listeners_offer(const char *addr, const char *address, int *fds, size_t count) {
  if (offer_count == OFFERS_MAX || !addr || !address || count == 0) {
    free(fds);
    return;
  }
  struct offer *offer = &offers[offer_count++];
  offer->listeners = (struct listeners){.fds = fds, .count = count};
  snprintf(offer->addr, sizeof offer->addr, "%s", addr);
  snprintf(offer->listeners.address, sizeof offer->listeners.address, "%s", address);
}

void listeners_withdraw_offers(void) {
  for (size_t i = 0; i < offer_count; i++) {
    listeners_close(&offers[i].listeners);
  }
  offer_count = 0;
}

// The offer for that address, which is the caller's then. False: there is none.
static bool take_offer(struct listeners *listeners, const char *addr) {
  for (size_t i = 0; i < offer_count; i++) {
    if (offers[i].listeners.fds && strcmp(offers[i].addr, addr) == 0) {
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
  int fd = bind_one((struct sockaddr *)address, *len, 0, true);
  if (fd >= 0) {
    getsockname(fd, (struct sockaddr *)address, len);
  }
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

static int open_all(struct listeners *listeners, const char *addr, int backlog, size_t count,
                    enum company company, char *why, size_t why_size) {
  const bool shared = company != ALONE;
  struct addrinfo *found = NULL;
  struct sockaddr_storage bound;
  socklen_t len = 0;
  int holder = -1;

  if (company != JOINING && take_offer(listeners, addr)) {
    listeners->backlog = backlog;
    return 0;
  }
  *listeners = (struct listeners){.fds = calloc(count, sizeof(int)), .backlog = backlog};
  if (!listeners->fds) {
    snprintf(why, why_size, "out of memory");
    return ERROR_MEMORY;
  }
  int resolved = resolve(addr, &found);
  if (resolved != 0) {
    snprintf(why, why_size, "%s is not an address to listen on: %s", addr, gai_strerror(resolved));
    listeners_close(listeners);
    return ERROR_INVALID;
  }
  len = found->ai_addrlen;
  memcpy(&bound, found->ai_addr, len);
  freeaddrinfo(found);
  if (shared && !has_port(&bound)) {
    if ((holder = hold_any_port(&bound, &len)) < 0) {
      return cant_listen(listeners, addr, why, why_size);
    }
  } else if (company == SHARED) {
    warn_if_shared((struct sockaddr *)&bound, len, addr);
  }
  for (size_t i = 0; i < count; i++) {
    int fd = bind_one((struct sockaddr *)&bound, len, backlog, shared);
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
  network_format_socket((struct sockaddr *)&bound, len, listeners->address,
                        sizeof listeners->address);
  return 0;
}

int listeners_open(struct listeners *listeners, const char *addr, int backlog, size_t count,
                   char *why, size_t why_size) {
  return open_all(listeners, addr, backlog, count, SHARED, why, why_size);
}

int listeners_open_alone(struct listeners *listeners, const char *addr, int backlog, char *why,
                         size_t why_size) {
  return open_all(listeners, addr, backlog, 1, ALONE, why, why_size);
}

static bool set_options(int fd, const struct config_listener *listener) {
  const int defer_s = (int)((listener->defer_accept_ms + 999) / 1000);
  const int idle_s = (int)((listener->keepalive_ms + 999) / 1000);
  const unsigned user_timeout_ms = (unsigned)listener->user_timeout_ms;
  const int nodelay = listener->nodelay;
  const int keepalive = idle_s > 0;
  const struct {
    bool wanted;
    int level, name;
    const void *value;
    socklen_t size;
  } options[] = {
      {true, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof nodelay},
      {true, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer_s, sizeof defer_s},
      {true, SOL_SOCKET, SO_KEEPALIVE, &keepalive, sizeof keepalive},
      {keepalive, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s},
      {keepalive, IPPROTO_TCP, TCP_KEEPINTVL, &keepalive_interval_s, sizeof keepalive_interval_s},
      {keepalive, IPPROTO_TCP, TCP_KEEPCNT, &keepalive_probes, sizeof keepalive_probes},
      {true, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms},
  };
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
    if (options[i].wanted &&
        setsockopt(fd, options[i].level, options[i].name, options[i].value, options[i].size) != 0) {
      return false;
    }
  }
  return true;
}

int listeners_set_options(struct listeners *listeners, const struct config_listener *listener,
                          char *why, size_t why_size) {
  for (size_t i = 0; i < listeners->count; i++) {
    if (!set_options(listeners->fds[i], listener) ||
        listen(listeners->fds[i], (int)listener->backlog) != 0) {
      snprintf(why, why_size, "can't set the options of the listener on %s: %s", listener->addr,
               strerror(errno));
      return ERROR_SYSTEM;
    }
  }
  listeners->backlog = (int)listener->backlog;
  return 0;
}

static int open_for_clients(struct listeners *listeners, const struct config_listener *listener,
                            bool known, size_t count, char *why, size_t why_size) {
  int error = open_all(listeners, listener->addr, (int)listener->backlog, count,
                       known ? JOINING : SHARED, why, why_size);
  if (error == 0 && (error = listeners_set_options(listeners, listener, why, why_size)) != 0) {
    listeners_close(listeners);
  }
  return error;
}

int listeners_open_for_clients(struct listeners *listeners, const struct config_listener *listener,
                               size_t count, char *why, size_t why_size) {
  return open_for_clients(listeners, listener, false, count, why, why_size);
}

void listeners_suspend(const struct listeners *listeners) {
  for (size_t i = 0; i < listeners->count; i++) {
    shutdown(listeners->fds[i], SHUT_RD);  // it is bound all the same, and listens again when told
  }
}

int listeners_resume(const struct listeners *listeners) {
  for (size_t i = 0; i < listeners->count; i++) {
    if (listen(listeners->fds[i], listeners->backlog) != 0) {
      return ERROR_SYSTEM;
    }
  }
  return 0;
}

int listeners_grow(struct listeners *listeners, const struct config_listener *listener,
                   size_t count, char *why, size_t why_size) {
  struct listeners more;
  if (count <= listeners->count) {
    return 0;
  }
  if (listeners_prefer(listeners, listeners->count) != 0) {
    snprintf(why, why_size, "%s: the kernel can't be told which workers clients are for: %s",
             listener->addr, strerror(errno));
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
  int error = open_for_clients(&more, &as_bound, true, count - listeners->count, why, why_size);
  if (error != 0) {
    return error;
  }
  memcpy(fds + listeners->count, more.fds, more.count * sizeof *fds);
  listeners->count = count;
  free(more.fds);
  return 0;
}

// A program in the kernel that picks a socket of the group by its number in the order in which
// they came: one of the first count, by chance.
int listeners_prefer(const struct listeners *listeners, size_t count) {
  struct sock_filter code[] = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM)},
      {BPF_ALU | BPF_MOD | BPF_K, 0, 0, (uint32_t)count},
      {BPF_RET | BPF_A, 0, 0, 0},
  };
  const struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
  return setsockopt(listeners->fds[0], SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program,
                    sizeof program) == 0
             ? 0
             : ERROR_SYSTEM;
}

void listeners_shrink(struct listeners *listeners, size_t count) {
  while (listeners->count > count) {
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
