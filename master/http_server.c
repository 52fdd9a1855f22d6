#include "master/http_server.h"

#include <assert.h>
#include <errno.h>
#include <event2/listener.h>
#include <inttypes.h>
#include <jansson.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/networks.h"
#include "master/listeners.h"

#define LOG_MODULE LOG_MODULE_OPERATIONS

enum {
  CONNECTION_MEMORY_BYTES = 32 << 10,  // of one: its head, and what is read at a time
  // Of a refused body that is still read. A connection that is closed with bytes unread is
  // reset, and a client that is still writing may then not see the answer.
  REFUSED_BODY_MAX_BYTES = 64 << 10,
  FIRST_BODY_ROOM_BYTES = 4096,  // of a body that does not say its length
  BACKLOG = 64,
  ALLOW_BYTES = 128,
};

static const struct timeval accept_pause = {.tv_usec = 100000};  // without descriptors

enum request_state {
  REQUEST_ARRIVING,
  REQUEST_WAITING,  // for its owner
  REQUEST_ANSWERED,
};

struct http_request {
  struct connection *connection;
  const struct http_route *route;  // NULL: there is none
  const char *path;                // the library's
  enum request_state state;
  bool suspended;  // libmicrohttpd leaves it alone until it is answered
  uint8_t *body;
  size_t body_len;
  size_t body_room;
  size_t discardable;  // so much of a refused body is read yet
  void *context;
  struct {
    const char *name, *value;
  } headers[HTTP_HEADERS_MAX];
  size_t header_count;
  struct MHD_Response *response;  // until libmicrohttpd has it
  unsigned status;
};

// One of a client's, with one request after the other.
struct connection {
  LIST_ENTRY(connection) link;
  struct http_server *server;
  struct MHD_Connection *handle;
  int fd;
  char peer[64];
  struct event *deadline;
  struct http_request *request;  // that has come in at least with its head
};

LIST_HEAD(connections, connection);

struct http_server {
  struct event_base *base;
  struct http_route *routes;
  size_t route_count;
  size_t connections_max;
  const struct timeval *timeout;
  struct MHD_Daemon *daemon;
  struct event *ready;  // the library's epoll descriptor is
  struct event *due;    // the library wants to run without that
  bool soon;            // due was set since its last turn began
  struct listeners socket;
  struct evconnlistener *listener;
  struct event *accept_again;
  struct connections connections;
  struct http_server_counts counts;
};

// --- The library's turns -------------------------------------------------------------

// Has the library run, but not from inside of whatever calls this.
static void run_soon(struct http_server *server) {
  static const struct timeval now = {0};
  event_add(server->due, &now);
  server->soon = true;
}

static void on_turn(evutil_socket_t fd, short what, void *owner) {
  struct http_server *server = owner;
  MHD_UNSIGNED_LONG_LONG wait_ms;
  (void)fd;
  (void)what;
  server->soon = false;
  MHD_run(server->daemon);
  if (server->soon) {
    return;  // from inside; the library itself does not count what was resumed meanwhile
  }
  if (MHD_get_timeout(server->daemon, &wait_ms) == MHD_YES) {
    const struct timeval wait = clock_timeval((int64_t)wait_ms);
    event_add(server->due, &wait);
  } else {
    event_del(server->due);
  }
}

static void on_library_log(void *owner, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));
static void on_library_log(void *owner, const char *format, va_list arguments) {
  static struct log_limit limit = {.kind = "http_library"};
  uint64_t suppressed;
  char text[256];
  char quoted[320];
  (void)owner;
  if (!log_enabled(LOG_LEVEL_DEBUG) ||
      !log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
    return;
  }
  vsnprintf(text, sizeof text, format, arguments);
  log_debug("http_library", "says=%s suppressed=%" PRIu64,
            log_quote(quoted, sizeof quoted, text, strcspn(text, "\n")), suppressed);
}

// --- Answers -------------------------------------------------------------------------

static void start_time(struct connection *connection) {
  event_add(connection->deadline, connection->server->timeout);
}

// Gives the answer to the library.
static enum MHD_Result hand_over(struct http_request *request) {
  struct MHD_Response *response = request->response;
  request->response = NULL;
  if (!response) {
    return MHD_NO;  // memory ran out: there is none, and the connection is closed
  }
  enum MHD_Result queued =
      MHD_queue_response(request->connection->handle, request->status, response);
  MHD_destroy_response(response);
  return queued;
}

void http_request_answer(struct http_request *request, unsigned status, const char *content_type,
                         const char *text, size_t len) {
  struct connection *connection = request->connection;
  request->response =
      MHD_create_response_from_buffer(len, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
  bool whole =
      request->response &&
      (!content_type || MHD_add_response_header(request->response, MHD_HTTP_HEADER_CONTENT_TYPE,
                                                content_type) == MHD_YES);
  for (size_t i = 0; whole && i < request->header_count; i++) {
    whole = MHD_add_response_header(request->response, request->headers[i].name,
                                    request->headers[i].value) == MHD_YES;
  }
  if (request->response && !whole) {
    MHD_destroy_response(request->response);
    request->response = NULL;
  }
  connection->server->counts.waiting -= request->state == REQUEST_WAITING;
  request->state = REQUEST_ANSWERED;
  request->status = status;
  start_time(connection);
  if (request->suspended) {
    request->suspended = false;
    if (request->response) {
      (void)hand_over(request);
    }
    MHD_resume_connection(connection->handle);
    run_soon(connection->server);
  }
}

void http_request_fail(struct http_request *request, unsigned status, const char *error) {
  static const char no_memory[] = "{\"error\":\"out of memory\"}";
  json_t *object = json_pack("{s:s}", "error", error);
  char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
  const char *shown = text ? text : no_memory;
  http_request_answer(request, status, "application/json", shown, strlen(shown));
  free(text);
  json_decref(object);
}

void http_request_add_header(struct http_request *request, const char *name, const char *value) {
  assert(request->header_count < HTTP_HEADERS_MAX);
  request->headers[request->header_count].name = name;
  request->headers[request->header_count++].value = value;
}

// --- The head ------------------------------------------------------------------------

static void drop_body(struct http_request *request) {
  free(request->body);
  request->body = NULL;
  request->body_len = 0;
}

// How long the body is: 0 or more, or one of these.
enum { LENGTH_UNKNOWN = -1, LENGTH_UNCLEAR = -2, LENGTH_CODED = -3 };

struct framing {
  const char *length;
  const char *coding;
  int count;
};

static enum MHD_Result look_at_header(void *context, enum MHD_ValueKind kind, const char *name,
                                      const char *value) {
  struct framing *framing = context;
  (void)kind;
  if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
    framing->length = value;
    framing->count++;
  } else if (strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
    framing->coding = value;
    framing->count++;
  }
  return MHD_YES;
}

// Where the length is said twice, whoever stands between may have taken the other one, and
// what is body here is a request of its own there.
static int64_t body_length(const struct http_request *request) {
  struct framing framing = {0};
  MHD_get_connection_values(request->connection->handle, MHD_HEADER_KIND, look_at_header, &framing);
  if (framing.count > 1) {
    return LENGTH_UNCLEAR;
  }
  if (framing.coding) {
    return strcasecmp(framing.coding, "chunked") == 0 ? LENGTH_UNKNOWN : LENGTH_CODED;
  }
  errno = 0;
  // The library has refused all but digits.
  unsigned long long length = framing.length ? strtoull(framing.length, NULL, 10) : 0;
  return errno == 0 && length < INT64_MAX ? (int64_t)length : INT64_MAX;
}

static bool serves(const struct http_route *route, const char *method) {
  return strcmp(route->method, method) == 0 || (strcmp(method, MHD_HTTP_METHOD_HEAD) == 0 &&
                                                strcmp(route->method, MHD_HTTP_METHOD_GET) == 0);
}

// The methods of a path, or of all for "*"; false: there is no such path.
static bool list_methods(const struct http_server *server, const char *path,
                         char allow[ALLOW_BYTES]) {
  bool found = strcmp(path, "*") == 0;
  bool all = found;
  size_t len = (size_t)snprintf(allow, ALLOW_BYTES, "%s", MHD_HTTP_METHOD_OPTIONS);
  for (size_t i = 0; i < server->route_count && len < ALLOW_BYTES; i++) {
    const struct http_route *route = &server->routes[i];
    if (!all && strcmp(route->path, path) != 0) {
      continue;
    }
    found = true;
    if (!strstr(allow, route->method)) {
      bool gets = strcmp(route->method, MHD_HTTP_METHOD_GET) == 0;
      len += (size_t)snprintf(allow + len, ALLOW_BYTES - len, ", %s%s", route->method,
                              gets ? ", HEAD" : "");
    }
  }
  return found;
}

// There is no route: says what there is.
static void answer_without_route(struct http_request *request, const char *method) {
  char allow[ALLOW_BYTES];
  if (!list_methods(request->connection->server, http_request_path(request), allow)) {
    http_request_fail(request, MHD_HTTP_NOT_FOUND, "there is no such path");
    return;
  }
  http_request_add_header(request, MHD_HTTP_HEADER_ALLOW, allow);
  if (strcmp(method, MHD_HTTP_METHOD_OPTIONS) == 0) {
    http_request_answer(request, MHD_HTTP_NO_CONTENT, NULL, "", 0);
  } else {
    http_request_fail(request, MHD_HTTP_METHOD_NOT_ALLOWED, "the path does not have this method");
  }
}

static void refuse_length(struct http_request *request) {
  char error[64];
  const struct http_route *route = request->route;
  snprintf(error, sizeof error, "the body is longer than %zu bytes", route->rules->body_bytes);
  if (route->rules->on_too_large) {
    route->rules->on_too_large(request, route->owner);
  }
  drop_body(request);
  // Of a client that is let in, more is worth reading.
  request->discardable = 2 * route->rules->body_bytes + REFUSED_BODY_MAX_BYTES;
  http_request_fail(request, MHD_HTTP_CONTENT_TOO_LARGE, error);
}

static void look_at_head(struct http_request *request, const char *method, int64_t length) {
  const struct http_route *route = request->route;
  if (length == LENGTH_UNCLEAR) {
    http_request_fail(request, MHD_HTTP_BAD_REQUEST, "it says the length of its body twice");
  } else if (length == LENGTH_CODED) {
    http_request_fail(request, MHD_HTTP_NOT_IMPLEMENTED,
                      "the only Transfer-Encoding taken is chunked");
  } else if (!route) {
    answer_without_route(request, method);
  } else {
    if (route->rules->on_head) {
      route->rules->on_head(request, route->owner);
    }
    if (request->state == REQUEST_ARRIVING && length > 0 &&
        (size_t)length > route->rules->body_bytes) {
      refuse_length(request);
    }
  }
}

static bool make_room(struct http_request *request, size_t room) {
  uint8_t *larger = realloc(request->body, room);
  if (larger) {
    request->body = larger;
    request->body_room = room;
  }
  return larger != NULL;
}

static enum MHD_Result on_head(struct http_request *request, const char *method) {
  int64_t length = body_length(request);
  look_at_head(request, method, length);
  if (request->state == REQUEST_ARRIVING) {
    start_time(request->connection);
    return length <= 0 || make_room(request, (size_t)length) ? MHD_YES : MHD_NO;
  }
  // An answer that the library gets now ends the connection, whether there is a body or not.
  bool worth_reading = length >= 0 && (uint64_t)length <= request->discardable &&
                       !http_request_header(request, MHD_HTTP_HEADER_EXPECT);
  return worth_reading ? MHD_YES : hand_over(request);
}

// --- The body ------------------------------------------------------------------------

static bool keep(struct http_request *request, const char *bytes, size_t len) {
  const struct http_route *route = request->route;
  size_t needed = request->body_len + len;
  if (needed > route->rules->body_bytes) {
    refuse_length(request);
    return true;
  }
  if (needed > request->body_room) {
    size_t room = request->body_room > 0 ? request->body_room : FIRST_BODY_ROOM_BYTES;
    while (room < needed) {
      room *= 2;
    }
    if (!make_room(request, room < route->rules->body_bytes ? room : route->rules->body_bytes)) {
      return false;
    }
  }
  memcpy(request->body + request->body_len, bytes, len);
  request->body_len = needed;
  return true;
}

static enum MHD_Result on_body(struct http_request *request, const char *bytes, size_t len) {
  if (request->state == REQUEST_ARRIVING) {
    return keep(request, bytes, len) ? MHD_YES : MHD_NO;
  }
  if (len > request->discardable) {
    return MHD_NO;
  }
  request->discardable -= len;
  return MHD_YES;
}

// All of it is here; or it was answered meanwhile, and there was no memory for that.
static enum MHD_Result on_whole(struct http_request *request) {
  struct connection *connection = request->connection;
  if (request->state == REQUEST_ARRIVING) {
    request->state = REQUEST_WAITING;
    connection->server->counts.waiting++;
    start_time(connection);
    request->route->on_request(request, request->route->owner);
    drop_body(request);
  }
  if (request->state == REQUEST_ANSWERED) {
    return hand_over(request);
  }
  request->suspended = true;
  MHD_suspend_connection(connection->handle);
  return MHD_YES;
}

// --- A request -----------------------------------------------------------------------

static struct http_request *request_new(struct connection *connection, const char *path,
                                        const char *method) {
  const struct http_server *server = connection->server;
  struct http_request *request = calloc(1, sizeof *request);
  if (!request) {
    return NULL;
  }
  connection->request = request;
  request->connection = connection;
  request->path = path;
  request->discardable = REFUSED_BODY_MAX_BYTES;
  for (size_t i = 0; i < server->route_count && !request->route; i++) {
    if (strcmp(server->routes[i].path, path) == 0 && serves(&server->routes[i], method)) {
      request->route = &server->routes[i];
    }
  }
  return request;
}

// Its owner is not to answer any more.
static void take_from_owner(struct http_request *request) {
  if (request->route->rules->on_gone) {
    request->route->rules->on_gone(request, request->route->owner);
  }
}

static void request_free(struct http_request *request) {
  if (request->state == REQUEST_WAITING) {
    request->connection->server->counts.waiting--;
    take_from_owner(request);
  }
  if (request->response) {
    MHD_destroy_response(request->response);
  }
  request->connection->request = NULL;
  drop_body(request);
  free(request);
}

const char *http_request_path(const struct http_request *request) { return request->path; }

const char *http_request_peer(const struct http_request *request) {
  return request->connection->peer;
}

const char *http_request_header(const struct http_request *request, const char *name) {
  return MHD_lookup_connection_value(request->connection->handle, MHD_HEADER_KIND, name);
}

const char *http_request_body(const struct http_request *request, size_t *len) {
  *len = request->body_len;
  return request->body ? (const char *)request->body : "";
}

void http_request_set_context(struct http_request *request, void *context) {
  request->context = context;
}

void *http_request_context(const struct http_request *request) { return request->context; }

// For each request the library comes here with its head, with each part of its body, and
// when it is whole.
static enum MHD_Result on_access(void *owner, struct MHD_Connection *handle, const char *path,
                                 const char *method, const char *version, const char *bytes,
                                 size_t *len, void **context) {
  struct connection *connection =
      MHD_get_connection_info(handle, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
  struct http_request *request = *context;
  (void)owner;
  (void)version;
  if (!request) {
    request = connection ? request_new(connection, path, method) : NULL;
    *context = request;
    return request ? on_head(request, method) : MHD_NO;
  }
  if (*len > 0) {
    size_t had = *len;
    *len = 0;
    return on_body(request, bytes, had);
  }
  return on_whole(request);
}

static void on_completed(void *owner, struct MHD_Connection *handle, void **context,
                         enum MHD_RequestTerminationCode how) {
  struct http_request *request = *context;
  (void)owner;
  (void)handle;
  (void)how;
  if (request) {
    start_time(request->connection);
    request_free(request);
    *context = NULL;
  }
}

// --- Connections ---------------------------------------------------------------------

static void log_too_slow(const char *event, const struct connection *connection) {
  static struct log_limit limit = {.kind = "http_too_slow"};
  uint64_t suppressed;
  const struct http_route *route = connection->request->route;
  if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
    log_info(event, "peer=%s path=%s suppressed=%" PRIu64, connection->peer,
             route ? route->path : "-", suppressed);
  }
}

static void on_deadline(evutil_socket_t fd, short what, void *owner) {
  struct connection *connection = owner;
  struct http_request *request = connection->request;
  (void)fd;
  (void)what;
  if (request && request->state == REQUEST_WAITING) {
    connection->server->counts.late++;
    log_too_slow("http_late", connection);
    take_from_owner(request);
    http_request_fail(request, MHD_HTTP_GATEWAY_TIMEOUT, "it takes too long");
    return;
  }
  connection->server->counts.cut++;
  if (request) {
    log_too_slow("http_cut", connection);
  }
  // The library has no call for this; it sees an end, and closes.
  shutdown(connection->fd, SHUT_RDWR);
}

// As long as there is room for a further one.
static void accept_or_rest(struct http_server *server) {
  if (!server->listener) {
    return;
  }
  if (server->counts.connections < server->connections_max &&
      !event_pending(server->accept_again, EV_TIMEOUT, NULL)) {
    evconnlistener_enable(server->listener);
  } else {
    evconnlistener_disable(server->listener);
  }
}

static void connection_free(struct connection *connection) {
  struct http_server *server = connection->server;
  LIST_REMOVE(connection, link);
  server->counts.connections--;
  event_free(connection->deadline);
  free(connection);
  accept_or_rest(server);
}

static struct connection *connection_new(struct http_server *server,
                                         struct MHD_Connection *handle) {
  struct connection *connection = calloc(1, sizeof *connection);
  if (!connection ||
      !(connection->deadline = event_new(server->base, -1, 0, on_deadline, connection))) {
    free(connection);
    return NULL;
  }
  const struct sockaddr *address =
      MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
  network_format_socket(
      address,
      address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in),
      connection->peer, sizeof connection->peer);
  connection->server = server;
  connection->handle = handle;
  connection->fd = MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
  LIST_INSERT_HEAD(&server->connections, connection, link);
  server->counts.connections++;
  start_time(connection);
  return connection;
}

static void on_connection(void *owner, struct MHD_Connection *handle, void **context,
                          enum MHD_ConnectionNotificationCode code) {
  struct http_server *server = owner;
  if (code == MHD_CONNECTION_NOTIFY_STARTED) {
    *context = connection_new(server, handle);
    if (!*context) {
      server->counts.refused++;
      shutdown(MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
               SHUT_RDWR);
    }
  } else if (*context) {
    connection_free(*context);
  }
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int len, void *owner) {
  static struct log_limit limit = {.kind = "http_refused"};
  struct http_server *server = owner;
  uint64_t suppressed;
  char peer[64];
  (void)listener;
  // It closes what it does not take.
  if (MHD_add_connection(server->daemon, fd, address, (socklen_t)len) != MHD_YES) {
    server->counts.refused++;
    if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
      log_warn("http_refused",
               "peer=%s why=\"too many connections from there\" suppressed=%" PRIu64,
               network_format_socket(address, (socklen_t)len, peer, sizeof peer), suppressed);
    }
  }
  accept_or_rest(server);
}

// No descriptor is left: to try at once again would keep the loop busy with nothing else.
static void on_accept_error(struct evconnlistener *listener, void *owner) {
  static struct log_limit limit = {.kind = "http_accept_failed"};
  struct http_server *server = owner;
  uint64_t suppressed;
  int error = EVUTIL_SOCKET_ERROR();
  (void)listener;
  if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
    log_warn("http_accept_failed", "why=\"%s\" suppressed=%" PRIu64, strerror(error), suppressed);
  }
  event_add(server->accept_again, &accept_pause);
  accept_or_rest(server);
}

static void on_accept_again(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  accept_or_rest(owner);
}

// --- The server ----------------------------------------------------------------------

static struct MHD_Daemon *start_library(struct http_server *server,
                                        const struct http_server_options *options) {
  // We accept ourselves, and keep all times: what the library has for that spins when there
  // are no descriptors, and lets a client that sends a byte now and then stay forever.
  return MHD_start_daemon(
      MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG, 0,
      NULL, NULL, on_access, server, MHD_OPTION_EXTERNAL_LOGGER, on_library_log, NULL,
      MHD_OPTION_CONNECTION_LIMIT, (unsigned)options->connections_max,
      MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)options->connections_per_address,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES,
      MHD_OPTION_CONNECTION_TIMEOUT, 0U, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
      MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_END);
}

static bool take_routes(struct http_server *server, const struct http_server_options *options) {
  static const struct http_rules no_rules = {0};
  server->routes = calloc(options->route_count, sizeof *server->routes);
  if (!server->routes) {
    return false;
  }
  server->route_count = options->route_count;
  for (size_t i = 0; i < options->route_count; i++) {
    server->routes[i] = options->routes[i];
    if (!server->routes[i].rules) {
      server->routes[i].rules = &no_rules;
    }
  }
  return true;
}

static bool start(struct http_server *server, const struct http_server_options *options) {
  const struct timeval timeout = clock_timeval(options->timeout_ms);
  if (!take_routes(server, options) || !(server->daemon = start_library(server, options))) {
    return false;
  }
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  server->timeout = event_base_init_common_timeout(server->base, &timeout);
  server->ready = event_new(server->base, info->epoll_fd, EV_READ | EV_PERSIST, on_turn, server);
  server->due = event_new(server->base, -1, 0, on_turn, server);
  server->accept_again = event_new(server->base, -1, 0, on_accept_again, server);
  if (!server->timeout || !server->ready || !server->due || !server->accept_again ||
      event_add(server->ready, NULL) != 0) {
    return false;
  }
  server->listener = evconnlistener_new(server->base, on_accept, server, LEV_OPT_CLOSE_ON_EXEC, 0,
                                        server->socket.fds[0]);
  if (!server->listener) {
    return false;
  }
  evconnlistener_set_error_cb(server->listener, on_accept_error);
  return true;
}

struct http_server *http_server_new(struct event_base *base,
                                    const struct http_server_options *options, char *why,
                                    size_t why_size) {
  struct http_server *server = calloc(1, sizeof *server);
  if (!server) {
    snprintf(why, why_size, "out of memory");
    return NULL;
  }
  server->base = base;
  server->connections_max = options->connections_max;
  LIST_INIT(&server->connections);
  if (listeners_open_alone(&server->socket, options->address, BACKLOG, why, why_size) != 0) {
    free(server);
    return NULL;
  }
  if (!start(server, options)) {
    snprintf(why, why_size, "the HTTP server can't be started: no memory, or no descriptors");
    http_server_free(server);
    return NULL;
  }
  return server;
}

static void free_event(struct event *event) {
  if (event) {
    event_free(event);
  }
}

void http_server_free(struct http_server *server) {
  struct connection *connection;
  if (!server) {
    return;
  }
  if (server->listener) {
    evconnlistener_free(server->listener);
    server->listener = NULL;
  }
  listeners_close(&server->socket);
  // While its epoll descriptor is there.
  free_event(server->ready);
  // The library is not to be stopped with any of them suspended.
  LIST_FOREACH(connection, &server->connections, link) {
    if (connection->request && connection->request->suspended) {
      MHD_resume_connection(connection->handle);
    }
  }
  MHD_stop_daemon(server->daemon);
  free_event(server->due);
  free_event(server->accept_again);
  free(server->routes);
  free(server);
}

const struct listeners *http_server_socket(const struct http_server *server) {
  return &server->socket;
}

const char *http_server_address(const struct http_server *server) { return server->socket.address; }

void http_server_counts(const struct http_server *server, struct http_server_counts *counts) {
  *counts = server->counts;
}
