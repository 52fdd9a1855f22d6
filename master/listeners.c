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

static int bind_one(const struct sockaddr *address, socklen_t len, int backlog, bool shared) {
  int on = 1;
  int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return -1;
  }
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      (shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) ||
      bind(fd, address, len) != 0 || listen(fd, backlog) != 0) {
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

static int open_all(struct listeners *listeners, const char *addr, int backlog, size_t count,
                    bool shared, char *why, size_t why_size) {
  struct addrinfo *found = NULL;
  struct sockaddr_storage bound;
  socklen_t len = 0;

  *listeners = (struct listeners){.fds = calloc(count, sizeof(int))};
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
  if (shared) {
    warn_if_shared((struct sockaddr *)&bound, len, addr);
  }
  for (size_t i = 0; i < count; i++) {
    int fd = bind_one((struct sockaddr *)&bound, len, backlog, shared);
    if (fd < 0) {
      snprintf(why, why_size, "can't listen on %s: %s%s", addr, strerror(errno),
               errno == EADDRINUSE ? " (is another gateway running?)" : "");
      listeners_close(listeners);
      return ERROR_SYSTEM;
    }
    listeners->fds[listeners->count++] = fd;
    // With port 0 the first socket decides which port it is for all.
    getsockname(fd, (struct sockaddr *)&bound, &len);
  }
  network_format_socket((struct sockaddr *)&bound, len, listeners->address,
                        sizeof listeners->address);
  return 0;
}

int listeners_open(struct listeners *listeners, const char *addr, int backlog, size_t count,
                   char *why, size_t why_size) {
  return open_all(listeners, addr, backlog, count, true, why, why_size);
}

int listeners_open_alone(struct listeners *listeners, const char *addr, int backlog, char *why,
                         size_t why_size) {
  return open_all(listeners, addr, backlog, 1, false, why, why_size);
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
      {defer_s > 0, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer_s, sizeof defer_s},
      {true, SOL_SOCKET, SO_KEEPALIVE, &keepalive, sizeof keepalive},
      {keepalive, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s},
      {keepalive, IPPROTO_TCP, TCP_KEEPINTVL, &keepalive_interval_s, sizeof keepalive_interval_s},
      {keepalive, IPPROTO_TCP, TCP_KEEPCNT, &keepalive_probes, sizeof keepalive_probes},
      {user_timeout_ms > 0, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms,
       sizeof user_timeout_ms},
  };
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
    if (options[i].wanted &&
        setsockopt(fd, options[i].level, options[i].name, options[i].value, options[i].size) != 0) {
      return false;
    }
  }
  return true;
}

int listeners_open_for_clients(struct listeners *listeners, const struct config_listener *listener,
                               size_t count, char *why, size_t why_size) {
  int error =
      open_all(listeners, listener->addr, (int)listener->backlog, count, true, why, why_size);
  for (size_t i = 0; error == 0 && i < count; i++) {
    if (!set_options(listeners->fds[i], listener)) {
      snprintf(why, why_size, "can't set the options of the listener on %s: %s", listener->addr,
               strerror(errno));
      listeners_close(listeners);
      error = ERROR_SYSTEM;
    }
  }
  return error;
}

void listeners_close(struct listeners *listeners) {
  for (size_t i = 0; i < listeners->count; i++) {
    close(listeners->fds[i]);
  }
  free(listeners->fds);
  *listeners = (struct listeners){0};
}
