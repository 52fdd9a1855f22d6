// echo-server: sends back what comes. fan-server: sends it to all others who are connected.
// The plain counterparts that a gateway is compared with: a raw event, recv, send at once.
#include <errno.h>
#include <event2/event_struct.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "tools/bench/bench.h"

enum { BUFFER_BYTES = 65536, BACKLOG = 4096 };

struct echo {
  LIST_ENTRY(echo) link;
  struct event read;
  struct event write;
  uint8_t *rest;  // what the socket did not take; it is read no further meanwhile
  size_t rest_len;
};

static uint8_t buffer[BUFFER_BYTES];
LIST_HEAD(echo_list, echo);

static struct echo_list all = LIST_HEAD_INITIALIZER(all);
static bool to_others;

static void drop(struct echo *echo) {
  LIST_REMOVE(echo, link);
  event_del(&echo->read);
  event_del(&echo->write);
  close(event_get_fd(&echo->read));
  free(echo->rest);
  free(echo);
}

static void keep_rest(struct echo *echo, const uint8_t *bytes, size_t len) {
  uint8_t *rest = malloc(len);
  if (!rest) {
    drop(echo);
    return;
  }
  memcpy(rest, bytes, len);
  free(echo->rest);
  echo->rest = rest;
  echo->rest_len = len;
  event_del(&echo->read);
  event_add(&echo->write, NULL);
}

static void send_to(struct echo *echo, const uint8_t *bytes, size_t len) {
  ssize_t sent = send(event_get_fd(&echo->read), bytes, len, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) {
    drop(echo);
  } else if (sent < (ssize_t)len) {
    sent = sent < 0 ? 0 : sent;
    keep_rest(echo, bytes + sent, len - (size_t)sent);
  }
}

static void on_readable(evutil_socket_t fd, short what, void *argument) {
  (void)what;
  struct echo *echo = argument;
  ssize_t len = recv(fd, buffer, sizeof buffer, 0);
  if (len <= 0) {
    if (len == 0 || (errno != EAGAIN && errno != EINTR)) {
      drop(echo);
    }
    return;
  }
  if (!to_others) {
    send_to(echo, buffer, (size_t)len);
    return;
  }
  struct echo *next;
  for (struct echo *other = LIST_FIRST(&all); other; other = next) {
    next = LIST_NEXT(other, link);
    if (other != echo) {
      send_to(other, buffer, (size_t)len);
    }
  }
}

static void on_writable(evutil_socket_t fd, short what, void *argument) {
  (void)what;
  struct echo *echo = argument;
  ssize_t sent = send(fd, echo->rest, echo->rest_len, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) {
    drop(echo);
  } else if (sent < 0 || (size_t)sent < echo->rest_len) {
    sent = sent < 0 ? 0 : sent;
    keep_rest(echo, echo->rest + sent, echo->rest_len - (size_t)sent);
  } else {
    event_add(&echo->read, NULL);
  }
}

static void on_accept(evutil_socket_t listener, short what, void *argument) {
  (void)what;
  struct bench *bench = argument;
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  struct echo *echo = fd < 0 ? NULL : calloc(1, sizeof *echo);
  if (!echo) {
    if (fd >= 0) {
      close(fd);
    }
    return;
  }
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  LIST_INSERT_HEAD(&all, echo, link);
  event_assign(&echo->read, bench->base, fd, EV_READ | EV_PERSIST, on_readable, echo);
  event_assign(&echo->write, bench->base, fd, EV_WRITE, on_writable, echo);
  event_add(&echo->read, NULL);
}

static int serve(struct bench *bench) {
  int fd = socket(bench->target.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (fd < 0 ||
      bind(fd, (struct sockaddr *)&bench->target.address, bench->target.address_len) != 0 ||
      listen(fd, BACKLOG) != 0) {
    bench_say("%s: %s", bench->options.connect, strerror(errno));
    return BENCH_CONNECT;
  }
  struct sockaddr_storage bound = {0};
  socklen_t bound_len = sizeof bound;
  getsockname(fd, (struct sockaddr *)&bound, &bound_len);
  // sin_port and sin6_port stand at the same place.
  // NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): getsockname has filled it
  printf("listening on port %u\n", ntohs(((struct sockaddr_in *)&bound)->sin_port));
  fflush(stdout);
  struct event *listener = event_new(bench->base, fd, EV_READ | EV_PERSIST, on_accept, bench);
  event_add(listener, NULL);
  event_base_dispatch(bench->base);
  event_free(listener);
  close(fd);
  return bench->exit_code;
}

int bench_echo_server(struct bench *bench) { return serve(bench); }

int bench_fan_server(struct bench *bench) {
  to_others = true;
  return serve(bench);
}
