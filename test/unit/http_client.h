// An HTTP client on the loop of its server, that says just the bytes it is told to, and takes
// answers apart.
#ifndef JANUS_TEST_UNIT_HTTP_CLIENT_H
#define JANUS_TEST_UNIT_HTTP_CLIENT_H

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "common/clock.h"

enum { HTTP_CLIENT_PATIENCE_MS = 60000 };

struct http_client {
  struct event_base *base;
  struct bufferevent *buffer;
  bool ended;  // the server has closed it
};

struct http_reply {
  int status;
  char head[4096];  // with its empty line
  char *body;       // with a NUL behind it
  size_t len;
};

static inline void http_client_on_event(struct bufferevent *buffer, short what, void *owner) {
  struct http_client *client = owner;
  (void)buffer;
  client->ended |= (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) != 0;
}

// On a socket that is connected, or being connected.
static inline void http_client_on(struct http_client *client, struct event_base *base, int fd) {
  evutil_make_socket_nonblocking(fd);
  *client = (struct http_client){.base = base};
  client->buffer = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
  bufferevent_setcb(client->buffer, NULL, NULL, http_client_on_event, client);
  bufferevent_enable(client->buffer, EV_READ | EV_WRITE);
}

static inline int http_client_socket(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    perror("http_client_socket");
    exit(1);
  }
  return fd;
}

static inline void http_client_open(struct http_client *client, struct event_base *base, int port) {
  http_client_on(client, base, http_client_socket(port));
}

static inline void http_client_close(struct http_client *client) {
  if (client->buffer) {
    bufferevent_free(client->buffer);
    client->buffer = NULL;
  }
}

static inline void http_client_send_bytes(struct http_client *client, const void *bytes,
                                          size_t len) {
  bufferevent_write(client->buffer, bytes, len);
}

static inline void http_client_send(struct http_client *client, const char *text) {
  http_client_send_bytes(client, text, strlen(text));
}

static inline void http_client_on_time(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  *(bool *)context = true;
}

// Turns the loop for so long, and says how often it came round.
static inline int http_client_turn_for(struct event_base *base, int64_t ms) {
  const struct timeval time = clock_timeval(ms);
  bool over = false;
  int turns = 0;
  event_base_once(base, -1, EV_TIMEOUT, http_client_on_time, &over, &time);
  while (!over) {
    event_base_loop(base, EVLOOP_ONCE);
    turns++;
  }
  return turns;
}

// Turns the loop until condition holds; ends the program when that takes too long.
#define HTTP_CLIENT_WAIT(base, condition)                                                  \
  do {                                                                                     \
    int64_t http_client_until_ms = clock_monotonic_ms() + HTTP_CLIENT_PATIENCE_MS;         \
    while (!(condition)) {                                                                 \
      const struct timeval http_client_step = {.tv_usec = 20000};                          \
      event_base_loopexit((base), &http_client_step);                                      \
      event_base_loop((base), EVLOOP_ONCE);                                                \
      if (clock_monotonic_ms() > http_client_until_ms) {                                   \
        fprintf(stderr, "%s:%d: waited in vain for %s\n", __FILE__, __LINE__, #condition); \
        exit(1);                                                                           \
      }                                                                                    \
    }                                                                                      \
  } while (0)

// The value of a header of that reply, up to its line's end, in text; NULL: it has none.
static inline const char *http_reply_header(const struct http_reply *reply, const char *name,
                                            char *text, size_t size) {
  size_t len = strlen(name);
  for (const char *line = reply->head; (line = strstr(line, "\r\n"));) {
    line += 2;
    if (strncasecmp(line, name, len) == 0 && line[len] == ':') {
      const char *value = line + len + 1 + strspn(line + len + 1, " ");
      snprintf(text, size, "%.*s", (int)strcspn(value, "\r"), value);
      return text;
    }
  }
  return NULL;
}

// The next reply, if all of it is here; its body is to be freed. without_body: to HEAD.
static inline bool http_client_take(struct http_client *client, struct http_reply *reply,
                                    bool without_body) {
  struct evbuffer *input = bufferevent_get_input(client->buffer);
  struct evbuffer_ptr end = evbuffer_search(input, "\r\n\r\n", 4, NULL);
  char length[32];
  *reply = (struct http_reply){0};
  if (end.pos < 0) {
    return false;
  }
  size_t head_len = (size_t)end.pos + 4;
  if (head_len >= sizeof reply->head) {
    fprintf(stderr, "the head of a reply is too long\n");
    exit(1);
  }
  evbuffer_copyout(input, reply->head, head_len);
  if (sscanf(reply->head, "HTTP/1.%*d %d ", &reply->status) != 1) {
    fprintf(stderr, "this is no reply: %s\n", reply->head);
    exit(1);
  }
  if (!without_body && http_reply_header(reply, "content-length", length, sizeof length)) {
    reply->len = (size_t)strtoull(length, NULL, 10);
  }
  if (evbuffer_get_length(input) < head_len + reply->len) {
    return false;
  }
  reply->body = calloc(1, reply->len + 1);
  evbuffer_drain(input, head_len);
  evbuffer_remove(input, reply->body, reply->len);
  return true;
}

static inline struct http_reply http_client_wait(struct http_client *client) {
  struct http_reply reply;
  HTTP_CLIENT_WAIT(client->base, http_client_take(client, &reply, false) || client->ended);
  if (!reply.body && !http_client_take(client, &reply, false)) {
    fprintf(stderr, "the server closed without a reply\n");
    exit(1);
  }
  return reply;
}

static inline bool http_client_has_nothing(struct http_client *client) {
  return evbuffer_get_length(bufferevent_get_input(client->buffer)) == 0;
}

// Until the server has closed.
static inline void http_client_wait_end(struct http_client *client) {
  HTTP_CLIENT_WAIT(client->base, client->ended);
}

#endif
