#include "common/tcp_client.h"

#include <errno.h>
#include <event2/dns.h>
#include <event2/event_struct.h>
#include <event2/util.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/tls.h"

enum {
  HOST_MAX_BYTES = 255,
  READS_A_TURN = 4,  // of a full buffer, so that one server does not hold up all others
};

enum state { LOOKING_UP, CONNECTING, SHAKING_HANDS, CONNECTED, BROKEN };

// libevent tells the end of each look-up, also of one that was cancelled, and that from the loop:
// it may outlive who asked.
struct lookup {
  struct tcp_client *client;  // NULL: it is not wanted any more
  struct evdns_getaddrinfo_request *request;
};

struct tcp_client {
  struct tcp_client_shared *shared;
  const struct tcp_client_events *events;
  void *owner;
  enum state state;
  int fd;
  struct event readable;
  struct event writable;
  struct event broken;  // to tell from the loop
  struct lookup *lookup;
  struct evutil_addrinfo *addresses;
  struct evutil_addrinfo *next_address;
  int64_t deadline_ms;
  unsigned user_timeout_ms;
  SSL *ssl;
  bool write_wants_read;  // TLS has to hear something before it takes more
  char alpn[128];
  char host[HOST_MAX_BYTES + 1];
  char port[8];
  char why[512];
};

// --- The end ---------------------------------------------------------------------------------

static void on_broken(evutil_socket_t fd, short what, void *context) {
  struct tcp_client *client = context;
  (void)fd;
  (void)what;
  client->events->on_broken(client->why, client->owner);
}

static void drop_socket(struct tcp_client *client) {
  SSL_free(client->ssl);
  client->ssl = NULL;
  if (client->fd >= 0) {
    event_del(&client->readable);
    event_del(&client->writable);
    close(client->fd);
    client->fd = -1;
  }
}

static void break_it(struct tcp_client *client, const char *why) {
  if (client->state != BROKEN) {
    client->state = BROKEN;
    snprintf(client->why, sizeof client->why, "%s", why);
    drop_socket(client);
    event_active(&client->broken, EV_TIMEOUT, 0);
  }
}

static void break_by_tls(struct tcp_client *client) {
  char text[sizeof client->why];
  unsigned long error = ERR_peek_last_error();
  long verified = client->ssl ? SSL_get_verify_result(client->ssl) : X509_V_OK;
  const char *reason = verified != X509_V_OK ? X509_verify_cert_error_string(verified)
                       : error != 0          ? ERR_reason_error_string(error)
                                             : "the connection was cut";
  snprintf(text, sizeof text, "TLS: %s", reason ? reason : "failed");
  break_it(client, text);
}

// --- TLS ---------------------------------------------------------------------------------------

// The operation is to be tried again later, or the connection is broken.
static void wait_or_break(struct tcp_client *client, int result) {
  switch (SSL_get_error(client->ssl, result)) {
    case SSL_ERROR_WANT_READ: break;
    case SSL_ERROR_WANT_WRITE: event_add(&client->writable, NULL); break;
    case SSL_ERROR_ZERO_RETURN: break_it(client, "the connection was closed"); break;
    default: break_by_tls(client); break;
  }
}

static void shake_hands(struct tcp_client *client) {
  const unsigned char *chosen;
  unsigned len;
  ERR_clear_error();
  int result = SSL_connect(client->ssl);
  if (result != 1) {
    wait_or_break(client, result);
    return;
  }
  SSL_get0_alpn_selected(client->ssl, &chosen, &len);
  if (len != strlen(client->alpn) || memcmp(chosen, client->alpn, len) != 0) {
    break_it(client, "TLS: the server does not speak the protocol asked for");
    return;
  }
  client->state = CONNECTED;
  client->events->on_connected(client->owner);
}

static bool start_tls(struct tcp_client *client) {
  uint8_t protocols[sizeof client->alpn + 1];
  size_t len = strlen(client->alpn);
  protocols[0] = (uint8_t)len;
  memcpy(protocols + 1, client->alpn, len);
  return SSL_set_alpn_protos(client->ssl, protocols, (unsigned)len + 1) == 0 &&
         SSL_set_fd(client->ssl, client->fd) == 1;
}

// --- Bytes ---------------------------------------------------------------------------------------

static ssize_t receive(struct tcp_client *client) {
  struct tcp_client_shared *shared = client->shared;
  if (!client->ssl) {
    return recv(client->fd, shared->read_buffer, shared->read_buffer_bytes, 0);
  }
  size_t len = shared->read_buffer_bytes < INT_MAX ? shared->read_buffer_bytes : INT_MAX;
  ERR_clear_error();
  int result = SSL_read(client->ssl, shared->read_buffer, (int)len);
  if (result <= 0) {
    wait_or_break(client, result);
    errno = EAGAIN;
    return -1;
  }
  return result;
}

static void read_all(struct tcp_client *client) {
  ssize_t got = 1;
  for (int i = 0; i < READS_A_TURN && got > 0 && client->state == CONNECTED; i++) {
    got = receive(client);
    if (got > 0) {
      client->events->on_bytes(client->shared->read_buffer, (size_t)got, client->owner);
      if (!client->ssl && (size_t)got < client->shared->read_buffer_bytes) {
        return;  // that was all
      }
    }
  }
  if (client->state != CONNECTED) {
    return;
  }
  if (got == 0) {
    break_it(client, "the connection was closed");
  } else if (got < 0 && errno != EAGAIN && errno != EINTR) {
    break_it(client, strerror(errno));
  } else if (got > 0 && client->ssl && SSL_has_pending(client->ssl)) {
    event_active(&client->readable, EV_READ, 0);  // the socket will not say so
  }
}

static void on_readable(evutil_socket_t fd, short what, void *context) {
  struct tcp_client *client = context;
  (void)fd;
  (void)what;
  if (client->state == SHAKING_HANDS) {
    shake_hands(client);
    return;
  }
  read_all(client);
  if (client->state == CONNECTED && client->write_wants_read) {
    client->write_wants_read = false;
    client->events->on_writable(client->owner);
  }
}

// A call takes one record.
static size_t write_tls(struct tcp_client *client, const uint8_t *bytes, size_t len) {
  size_t taken = 0;
  while (taken < len) {
    size_t written = 0;
    ERR_clear_error();
    int result = SSL_write_ex(client->ssl, bytes + taken, len - taken, &written);
    if (result != 1) {
      client->write_wants_read = SSL_want_read(client->ssl);
      wait_or_break(client, result);
      break;
    }
    taken += written;
  }
  return taken;
}

size_t tcp_client_write(struct tcp_client *client, const uint8_t *bytes, size_t len) {
  if (client->state != CONNECTED || len == 0) {
    return 0;
  }
  if (client->ssl) {
    return write_tls(client, bytes, len);
  }
  ssize_t sent = send(client->fd, bytes, len, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) {
    break_it(client, strerror(errno));
    return 0;
  }
  if (sent < (ssize_t)len) {
    event_add(&client->writable, NULL);
  }
  return sent > 0 ? (size_t)sent : 0;
}

// --- Connecting ----------------------------------------------------------------------------------

static void connect_next(struct tcp_client *client);

static void on_writable(evutil_socket_t fd, short what, void *context) {
  struct tcp_client *client = context;
  int error = 0;
  socklen_t size = sizeof error;
  if (!(what & EV_WRITE)) {  // the time of take_socket is over
    errno = ETIMEDOUT;
    connect_next(client);
    return;
  }
  if (client->state == SHAKING_HANDS) {
    shake_hands(client);
    return;
  }
  if (client->state == CONNECTED) {
    client->events->on_writable(client->owner);
    return;
  }
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
    errno = error != 0 ? error : errno;
    connect_next(client);
    return;
  }
  event_add(&client->readable, NULL);
  if (client->ssl) {
    client->state = SHAKING_HANDS;
    if (start_tls(client)) {
      shake_hands(client);
    } else {
      break_by_tls(client);
    }
    return;
  }
  client->state = CONNECTED;
  client->events->on_connected(client->owner);
}

// Of the time that is left, for this address and each that comes after it.
static int64_t share_ms(const struct tcp_client *client) {
  int64_t left_ms = client->deadline_ms - clock_monotonic_ms();
  int64_t count = 1;
  for (const struct evutil_addrinfo *next = client->next_address; next; next = next->ai_next) {
    count++;
  }
  return left_ms > count ? left_ms / count : 1;
}

static void take_socket(struct tcp_client *client, int fd) {
  static const int on = 1;
  client->fd = fd;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &client->user_timeout_ms,
             sizeof client->user_timeout_ms);
  event_assign(&client->readable, client->shared->base, fd, EV_READ | EV_PERSIST, on_readable,
               client);
  event_assign(&client->writable, client->shared->base, fd, EV_WRITE, on_writable, client);
  const struct timeval share = clock_timeval(share_ms(client));
  event_add(&client->writable, client->next_address ? &share : NULL);
}

// Tries the next of the server's addresses; errno is why the one before came to nothing.
static void connect_next(struct tcp_client *client) {
  if (client->fd >= 0) {
    event_del(&client->writable);
    close(client->fd);
    client->fd = -1;
  }
  while (client->next_address) {
    const struct evutil_addrinfo *address = client->next_address;
    client->next_address = address->ai_next;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 &&
        (connect(fd, address->ai_addr, address->ai_addrlen) == 0 || errno == EINPROGRESS)) {
      client->state = CONNECTING;
      take_socket(client, fd);
      return;
    }
    if (fd >= 0) {
      int error = errno;
      close(fd);
      errno = error;
    }
  }
  break_it(client, strerror(errno));
}

static void take_addresses(struct tcp_client *client, struct evutil_addrinfo *addresses) {
  client->addresses = addresses;
  client->next_address = addresses;
  errno = EADDRNOTAVAIL;
  connect_next(client);
}

static void on_looked_up(int result, struct evutil_addrinfo *addresses, void *context) {
  struct lookup *lookup = context;
  struct tcp_client *client = lookup->client;
  free(lookup);
  if (!client) {
    if (addresses) {
      evutil_freeaddrinfo(addresses);
    }
    return;
  }
  client->lookup = NULL;
  if (result != 0) {
    char text[sizeof client->why];
    snprintf(text, sizeof text, "%s: %s", client->host, evutil_gai_strerror(result));
    break_it(client, text);
    return;
  }
  take_addresses(client, addresses);
}

// Cuts host:port. False: it is none.
static bool take_address(struct tcp_client *client, const char *address) {
  const char *colon = strrchr(address, ':');
  size_t host_len = colon ? (size_t)(colon - address) : 0;
  if (host_len >= 2 && address[0] == '[' && colon[-1] == ']') {
    address++;
    host_len -= 2;
  }
  if (host_len == 0 || host_len > HOST_MAX_BYTES || strlen(colon + 1) >= sizeof client->port) {
    return false;
  }
  memcpy(client->host, address, host_len);
  snprintf(client->port, sizeof client->port, "%s", colon + 1);
  return true;
}

static void look_up(struct tcp_client *client) {
  struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC,
                                  .ai_socktype = SOCK_STREAM,
                                  .ai_flags = EVUTIL_AI_NUMERICHOST | EVUTIL_AI_NUMERICSERV};
  struct evutil_addrinfo *addresses = NULL;
  if (evutil_getaddrinfo(client->host, client->port, &hints, &addresses) == 0) {
    take_addresses(client, addresses);
    return;
  }
  struct evdns_base **dns = &client->shared->dns;
  if (!*dns) {
    *dns = evdns_base_new(client->shared->base,
                          EVDNS_BASE_INITIALIZE_NAMESERVERS | EVDNS_BASE_DISABLE_WHEN_INACTIVE);
  }
  struct lookup *lookup = *dns ? calloc(1, sizeof *lookup) : NULL;
  if (!lookup) {
    break_it(client, "names can't be looked up");
    return;
  }
  hints.ai_flags = EVUTIL_AI_ADDRCONFIG;
  lookup->client = client;
  client->lookup = lookup;
  struct evdns_getaddrinfo_request *request =
      evdns_getaddrinfo(*dns, client->host, client->port, &hints, on_looked_up, lookup);
  if (client->lookup) {  // else it was known already, and on_looked_up has run
    client->lookup->request = request;
  }
}

// --- The whole -----------------------------------------------------------------------------------

struct tcp_client *tcp_client_new(struct tcp_client_shared *shared,
                                  const struct tcp_client_target *target,
                                  const struct tcp_client_events *events, void *owner) {
  struct tcp_client *client = calloc(1, sizeof *client);
  if (!client) {
    return NULL;
  }
  client->shared = shared;
  client->events = events;
  client->owner = owner;
  client->fd = -1;
  client->deadline_ms = clock_monotonic_ms() + target->timeout_ms;
  client->user_timeout_ms = target->user_timeout_ms;
  event_assign(&client->broken, shared->base, -1, 0, on_broken, client);
  if (target->alpn) {
    snprintf(client->alpn, sizeof client->alpn, "%s", target->alpn);
  }
  if (!take_address(client, target->address)) {
    break_it(client, "its address is no host:port");
    return client;
  }
  if (target->tls) {
    client->ssl = tls_client(target->tls, target->name ? target->name : client->host);
    if (!client->ssl) {
      free(client);
      return NULL;
    }
    // What is written may stand elsewhere the next time, and be taken in parts.
    SSL_set_mode(client->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
  }
  look_up(client);
  return client;
}

void tcp_client_free(struct tcp_client *client) {
  if (!client) {
    return;
  }
  if (client->lookup) {
    client->lookup->client = NULL;
    if (client->lookup->request) {
      evdns_getaddrinfo_cancel(client->lookup->request);
    }
  }
  drop_socket(client);
  event_del(&client->broken);
  if (client->addresses) {
    evutil_freeaddrinfo(client->addresses);
  }
  free(client);
}

static void free_dns(evutil_socket_t fd, short what, void *dns) {
  (void)fd;
  (void)what;
  evdns_base_free(dns, 0);
}

void tcp_client_shared_clear(struct tcp_client_shared *shared) {
  // Once the loop has let go of look-ups that were cancelled.
  if (shared->dns && event_base_once(shared->base, -1, EV_TIMEOUT, free_dns, shared->dns, NULL)) {
    free_dns(-1, 0, shared->dns);
  }
  shared->dns = NULL;
}
