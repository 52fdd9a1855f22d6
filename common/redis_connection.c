#include "common/redis_connection.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/counters.h"
#include "common/loop.h"
#include "common/tls.h"

enum {
  UNDER_WAY_MAX = 65536,         // commands
  OUTPUT_MAX_BYTES = 16 << 20,   // not yet taken by the server
  REPLY_MAX_BYTES = 64 << 20,    // one answer
  REPLY_MAX_ELEMENTS = 1 << 20,  // of one array in it
  HOST_BYTES = 256,
};

struct request {
  STAILQ_ENTRY(request) link;
  redis_on_reply *on_reply;  // may be NULL
  void *context;
  int64_t sent_ms;
  int64_t sent_us;
};

STAILQ_HEAD(request_queue, request);

struct redis_connection {
  const struct redis_options *options;
  struct redis_connection_events events;
  void *owner;
  struct bufferevent *buffer;
  redisReader *reader;
  redisReplyObjectFunctions reply_functions;
  void *(*default_create_array)(const redisReadTask *task, int elements);
  struct event *timer;  // the oldest request's time, or that for connecting
  struct request_queue requests;
  size_t under_way;
  size_t reply_bytes;  // fed since the last whole reply
  int64_t started_ms;
  bool connected;
  bool ready;
  bool subscribed;
  bool broken;
  bool freed;  // in a callback: to be freed when it is over
  int in_callback;
  char host[HOST_BYTES];
};

// --- The end ---------------------------------------------------------------------

static void answer(struct redis_connection *connection, const redisReply *reply) {
  struct request *request = STAILQ_FIRST(&connection->requests);
  STAILQ_REMOVE_HEAD(&connection->requests, link);
  connection->under_way--;
  if (reply && connection->options->counters) {
    counters_record_us(connection->options->counters, HISTOGRAM_REDIS_CALL,
                       clock_monotonic_us() - request->sent_us);
  }
  if (request->on_reply) {
    request->on_reply(reply, request->context);
  }
  free(request);
}

static void answer_all_with_nothing(struct redis_connection *connection) {
  connection->broken = true;
  while (!STAILQ_EMPTY(&connection->requests)) {
    answer(connection, NULL);
  }
}

static void release(struct redis_connection *connection) {
  if (connection->buffer) {
    bufferevent_free(connection->buffer);
  }
  if (connection->timer) {
    event_free(connection->timer);
  }
  redisReaderFree(connection->reader);
  free(connection);
}

// Callbacks run between these two; the connection may be gone after the second.
static void enter(struct redis_connection *connection) { connection->in_callback++; }
static void leave(struct redis_connection *connection) {
  if (--connection->in_callback == 0 && connection->freed) {
    release(connection);
  }
}

void redis_connection_free(struct redis_connection *connection) {
  if (!connection || connection->freed) {
    return;
  }
  enter(connection);
  connection->freed = true;
  answer_all_with_nothing(connection);
  leave(connection);
}

static void break_it(struct redis_connection *connection, const char *why) {
  if (connection->broken) {
    return;
  }
  char text[256];  // why may be in what the callbacks free
  snprintf(text, sizeof text, "%s", why);
  enter(connection);
  event_del(connection->timer);
  bufferevent_disable(connection->buffer, EV_READ | EV_WRITE);
  answer_all_with_nothing(connection);
  if (!connection->freed) {
    connection->events.on_broken(text, connection->owner);
  }
  leave(connection);
}

// --- Time ------------------------------------------------------------------------

static int64_t time_left(const struct redis_connection *connection) {
  const struct redis_options *options = connection->options;
  const struct request *oldest = STAILQ_FIRST(&connection->requests);
  int64_t until_ms = connection->ready
                         ? (oldest ? oldest->sent_ms : INT64_MAX / 2) + options->read_timeout_ms
                         : connection->started_ms + options->dial_timeout_ms;
  return until_ms - clock_monotonic_ms();
}

static void set_timer(struct redis_connection *connection) {
  int64_t left_ms = time_left(connection);
  loop_start_timer(connection->timer, left_ms < 1 ? 1 : left_ms);
}

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  struct redis_connection *connection = owner;
  (void)fd;
  (void)what;
  if (connection->ready && STAILQ_EMPTY(&connection->requests)) {
    return;
  }
  if (time_left(connection) > 0) {
    set_timer(connection);
    return;
  }
  break_it(connection, !connection->connected ? "no connection within dial_timeout"
                       : !connection->ready   ? "no answer to the log-in within dial_timeout"
                                              : "no answer within read_timeout");
}

// --- Reading ---------------------------------------------------------------------

// The default would allocate whatever number the server names.
static void *create_array(const redisReadTask *task, int elements) {
  const struct redis_connection *connection = task->privdata;
  if (elements > REPLY_MAX_ELEMENTS) {
    return NULL;
  }
  return connection->default_create_array(task, elements);
}

// What a subscription brings, between the answers.
static bool is_push(const redisReply *reply) {
  static const char *const kinds[] = {"message", "subscribe", "unsubscribe"};
  const redisReply *kind =
      reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 ? reply->element[0] : NULL;
  for (size_t i = 0; kind && kind->type == REDIS_REPLY_STRING && i < 3; i++) {
    if (strcmp(kind->str, kinds[i]) == 0) {
      return true;
    }
  }
  return false;
}

static void take_reply(struct redis_connection *connection, redisReply *reply) {
  if (connection->subscribed && is_push(reply)) {
    connection->events.on_push(reply, connection->owner);
  } else if (!STAILQ_EMPTY(&connection->requests)) {
    answer(connection, reply);
  } else {
    break_it(connection,
             reply->type == REDIS_REPLY_ERROR ? reply->str : "an answer to no question");
  }
}

static void on_read(struct bufferevent *buffer, void *owner) {
  struct redis_connection *connection = owner;
  struct evbuffer *input = bufferevent_get_input(buffer);
  struct evbuffer_iovec chunk;

  // NOLINTBEGIN(clang-analyzer-unix.Malloc): until leave nothing is released
  enter(connection);
  while (!connection->broken && evbuffer_peek(input, -1, NULL, &chunk, 1) > 0) {
    void *reply = NULL;
    redisReaderFeed(connection->reader, chunk.iov_base, chunk.iov_len);
    connection->reply_bytes += chunk.iov_len;
    evbuffer_drain(input, chunk.iov_len);
    while (!connection->broken) {
      if (redisReaderGetReply(connection->reader, &reply) != REDIS_OK) {
        break_it(connection, connection->reader->errstr);
        break;
      }
      if (!reply) {
        break;
      }
      connection->reply_bytes = 0;
      take_reply(connection, reply);
      freeReplyObject(reply);
    }
    if (!connection->broken && connection->reply_bytes > REPLY_MAX_BYTES) {
      break_it(connection, "an answer over the size limit");
    }
  }
  leave(connection);
  // NOLINTEND(clang-analyzer-unix.Malloc)
}

static void on_event(struct bufferevent *buffer, short what, void *owner) {
  struct redis_connection *connection = owner;
  if (what & BEV_EVENT_CONNECTED) {
    struct timeval write_timeout = clock_timeval(connection->options->write_timeout_ms);
    bufferevent_set_timeouts(buffer, NULL, &write_timeout);
    connection->connected = true;
    return;
  }
  char text[512];
  int dns_error = bufferevent_socket_get_dns_error(buffer);
  unsigned long tls_error = connection->options->tls ? bufferevent_get_openssl_error(buffer) : 0;
  if (dns_error != 0) {
    snprintf(text, sizeof text, "%s: %s", connection->host, evutil_gai_strerror(dns_error));
  } else if (tls_error != 0) {
    const char *reason = ERR_reason_error_string(tls_error);
    snprintf(text, sizeof text, "TLS: %s", reason ? reason : "failed");
  } else if (what & BEV_EVENT_TIMEOUT) {
    snprintf(text, sizeof text, "nothing taken within write_timeout");
  } else if (what & BEV_EVENT_EOF) {
    snprintf(text, sizeof text, "closed by the server");
  } else {
    snprintf(text, sizeof text, "%s", evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
  }
  break_it(connection, text);
}

// --- Writing ---------------------------------------------------------------------

static int add_request(struct redis_connection *connection, redis_on_reply *on_reply,
                       void *context) {
  struct request *request = malloc(sizeof *request);
  if (!request) {
    return ERROR_MEMORY;
  }
  bool first = STAILQ_EMPTY(&connection->requests);
  *request = (struct request){.on_reply = on_reply,
                              .context = context,
                              .sent_ms = clock_monotonic_ms(),
                              .sent_us = clock_monotonic_us()};
  STAILQ_INSERT_TAIL(&connection->requests, request, link);
  connection->under_way++;
  if (first && connection->ready && !event_pending(connection->timer, EV_TIMEOUT, NULL)) {
    set_timer(connection);
  }
  return 0;
}

int redis_connection_send_text(struct redis_connection *connection, const char *text, size_t len,
                               redis_on_reply *on_reply, void *context) {
  if (connection->broken) {
    return ERROR_NOT_FOUND;
  }
  struct evbuffer *output = bufferevent_get_output(connection->buffer);
  if (connection->under_way >= UNDER_WAY_MAX ||
      evbuffer_get_length(output) + len > OUTPUT_MAX_BYTES) {
    return ERROR_EXHAUSTED;
  }
  // Room first: a command that was noted must also be sent.
  if (evbuffer_expand(output, len) != 0) {
    return ERROR_MEMORY;
  }
  int error = add_request(connection, on_reply, context);
  return error == 0 && evbuffer_add(output, text, len) != 0 ? ERROR_MEMORY : error;
}

int redis_connection_send(struct redis_connection *connection, int argc, const char *const *argv,
                          const size_t *lens, redis_on_reply *on_reply, void *context) {
  char *text = NULL;
  int len = redisFormatCommandArgv(&text, argc, (const char **)(uintptr_t)argv, lens);
  if (len < 0) {
    return ERROR_MEMORY;
  }
  int error = redis_connection_send_text(connection, text, (size_t)len, on_reply, context);
  redisFreeCommand(text);
  return error;
}

// --- Starting --------------------------------------------------------------------

static void on_setup_reply(const redisReply *reply, void *context) {
  struct redis_connection *connection = context;
  if (reply && reply->type == REDIS_REPLY_ERROR) {
    break_it(connection, reply->str);
  }
}

int redis_connection_subscribe(struct redis_connection *connection, const char *channel) {
  char *text = NULL;
  if (connection->broken) {
    return ERROR_NOT_FOUND;
  }
  int len = redisFormatCommand(&text, "SUBSCRIBE %s", channel);
  if (len < 0) {
    return ERROR_MEMORY;
  }
  connection->subscribed = true;
  int error = evbuffer_add(bufferevent_get_output(connection->buffer), text, (size_t)len);
  redisFreeCommand(text);
  // What a subscription brings is no answer, and has no time limit; this has. If it is
  // refused, that is what comes in its place.
  return error == 0 ? redis_connection_send(connection, 1, (const char *[]){"PING"}, NULL,
                                            on_setup_reply, connection)
                    : ERROR_MEMORY;
}

int redis_connection_unsubscribe(struct redis_connection *connection) {
  static const char command[] = "UNSUBSCRIBE\r\n";
  return connection->broken ? ERROR_NOT_FOUND
         : evbuffer_add(bufferevent_get_output(connection->buffer), command, sizeof command - 1) !=
                 0
             ? ERROR_MEMORY
             : 0;
}

static void on_role(const redisReply *reply, void *context) {
  struct redis_connection *connection = context;
  if (!reply) {
    return;
  }
  const redisReply *role =
      reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 ? reply->element[0] : NULL;
  if (reply->type == REDIS_REPLY_ERROR) {
    return;  // not allowed to know: READONLY will tell
  }
  if (!role || role->type != REDIS_REPLY_STRING || strcmp(role->str, "master") != 0) {
    break_it(connection, "it is not a master");
  }
}

// The last of the setup.
static void on_first_pong(const redisReply *reply, void *context) {
  struct redis_connection *connection = context;
  if (!reply || connection->broken) {
    return;
  }
  if (reply->type == REDIS_REPLY_ERROR) {
    break_it(connection, reply->str);
    return;
  }
  connection->ready = true;
  if (STAILQ_EMPTY(&connection->requests)) {
    event_del(connection->timer);
  } else {
    set_timer(connection);
  }
  connection->events.on_ready(connection->owner);
}

static int set_up(struct redis_connection *connection) {
  const struct redis_options *options = connection->options;
  const char *auth[] = {"AUTH", options->username, options->password};
  char db[24];
  int error = 0;
  if (options->password[0] != '\0' && options->username[0] == '\0') {
    error = redis_connection_send(connection, 2, (const char *[]){"AUTH", options->password}, NULL,
                                  on_setup_reply, connection);
  } else if (options->password[0] != '\0') {
    error = redis_connection_send(connection, 3, auth, NULL, on_setup_reply, connection);
  }
  // For whoever looks at CLIENT LIST; a user who may not has no name.
  if (error == 0) {
    error = redis_connection_send(
        connection, 3, (const char *[]){"CLIENT", "SETNAME", "janus-gate"}, NULL, NULL, NULL);
  }
  if (error == 0 && options->db != 0) {
    snprintf(db, sizeof db, "%lld", (long long)options->db);
    error = redis_connection_send(connection, 2, (const char *[]){"SELECT", db}, NULL,
                                  on_setup_reply, connection);
  }
  if (error == 0 && options->masters_only) {
    error =
        redis_connection_send(connection, 1, (const char *[]){"ROLE"}, NULL, on_role, connection);
  }
  if (error == 0) {
    error = redis_connection_send(connection, 1, (const char *[]){"PING"}, NULL, on_first_pong,
                                  connection);
  }
  return error;
}

static struct bufferevent *new_buffer(const struct redis_options *options, const char *host) {
  if (!options->tls) {
    return bufferevent_socket_new(options->base, -1,
                                  BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
  }
  SSL *ssl = tls_client(options->tls, options->server_name[0] ? options->server_name : host);
  if (!ssl) {
    return NULL;
  }
  struct bufferevent *buffer =
      bufferevent_openssl_socket_new(options->base, -1, ssl, BUFFEREVENT_SSL_CONNECTING,
                                     BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
  if (!buffer) {
    SSL_free(ssl);
    return NULL;
  }
  bufferevent_openssl_set_allow_dirty_shutdown(buffer, 1);
  return buffer;
}

struct redis_connection *redis_connection_new(const struct redis_options *options,
                                              const char *address,
                                              const struct redis_connection_events *events,
                                              void *owner) {
  struct redis_connection *connection = calloc(1, sizeof *connection);
  const char *colon = strrchr(address, ':');
  if (!connection || !colon) {
    free(connection);
    return NULL;
  }
  connection->options = options;
  connection->events = *events;
  connection->owner = owner;
  connection->started_ms = clock_monotonic_ms();
  STAILQ_INIT(&connection->requests);
  bool bracketed = address[0] == '[';  // an IPv6 address
  snprintf(connection->host, sizeof connection->host, "%.*s",
           (int)(colon - address) - (bracketed ? 2 : 0), address + bracketed);
  connection->reader = redisReaderCreate();
  connection->timer = evtimer_new(options->base, on_timer, connection);
  connection->buffer = new_buffer(options, connection->host);
  if (!connection->reader || !connection->timer || !connection->buffer) {
    release(connection);
    return NULL;
  }
  connection->default_create_array = connection->reader->fn->createArray;
  connection->reply_functions = *connection->reader->fn;
  connection->reply_functions.createArray = create_array;
  connection->reader->fn = &connection->reply_functions;
  connection->reader->privdata = connection;
  bufferevent_setcb(connection->buffer, on_read, NULL, on_event, connection);
  bufferevent_enable(connection->buffer, EV_READ | EV_WRITE);
  // A failure to even start shows as an event, later.
  enter(connection);
  int error = set_up(connection);
  if (error == 0) {
    bufferevent_socket_connect_hostname(connection->buffer, options->dns, AF_UNSPEC,
                                        connection->host, atoi(colon + 1));
    set_timer(connection);
  }
  connection->in_callback--;
  if (error != 0) {
    connection->events = (struct redis_connection_events){0};
    answer_all_with_nothing(connection);
    release(connection);
    return NULL;
  }
  return connection;
}

bool redis_connection_ready(const struct redis_connection *connection) {
  return connection && connection->ready && !connection->broken;
}
