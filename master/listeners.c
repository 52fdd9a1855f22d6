#include "master/listeners.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/networks.h"

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

void listeners_close(struct listeners *listeners) {
  for (size_t i = 0; i < listeners->count; i++) {
    close(listeners->fds[i]);
  }
  free(listeners->fds);
  *listeners = (struct listeners){0};
}
