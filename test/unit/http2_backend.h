// A backend that speaks HTTP/2 frame by frame, as a test tells it to, and writes down what it
// hears. It has no opinion of its own on what is allowed, so that it can also be wrong; what every
// server does (settings, their acknowledgement, answers to pings, windows given back) it does by
// itself unless told not to. It runs in the test's own loop, and its accidents end the program.
#ifndef JANUS_TEST_UNIT_HTTP2_BACKEND_H
#define JANUS_TEST_UNIT_HTTP2_BACKEND_H

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
  BACKEND_CONNECTIONS = 32,
  BACKEND_STREAMS = 64,  // of one connection, in all its time
  BACKEND_SETTINGS = 8,
  BACKEND_HEADER_BYTES = 9,  // of a frame
  BACKEND_PREFACE_BYTES = 24,
};

struct backend_stream {
  int32_t id;
  char headers[8192];  // "name: value\n" of each, in their order
  uint8_t *data;       // of all DATA frames
  size_t len;
  int64_t window;  // what the client lets us send on it
  bool ended;      // half-closed by the client
  bool reset;
  uint32_t reset_code;
};

struct backend_connection {
  struct backend *backend;
  struct bufferevent *wire;
  nghttp2_hd_inflater *inflater;
  struct backend_stream streams[BACKEND_STREAMS];
  int stream_count;
  int64_t window;
  int64_t initial_window;
  uint8_t block[65536];  // of headers that go on in CONTINUATION frames
  size_t block_len;
  uint32_t settings[BACKEND_SETTINGS];  // the client's, by their number; as far as given
  bool preface;                         // has come
  bool closed;                          // by the client
  int settings_acks;
  int goaways;
  int pings;        // of the client,
  int pongs;        // and its answers to ours
  uint8_t pong[8];  // the last one's bytes
};

struct backend {
  struct event_base *base;
  struct evconnlistener *listener;
  char address[64];
  struct backend_connection *connections[BACKEND_CONNECTIONS];  // in the order of their coming
  int connection_count;
  nghttp2_settings_entry settings[BACKEND_SETTINGS];  // that it greets with
  size_t settings_count;
  const void *greeting;  // sent in place of settings; and then nothing comes by itself
  size_t greeting_len;
  bool silent;           // says nothing by itself
  bool resets;           // connections, as soon as they are there
  bool mute;             // answers no pings
  bool holds;            // gives no windows back
  size_t largest_frame;  // that it heard
};

// --- What it says -----------------------------------------------------------------------

static inline void backend_raw(struct backend_connection *connection, const void *bytes,
                               size_t len) {
  if (connection->wire) {
    bufferevent_write(connection->wire, bytes, len);
  }
}

static inline void backend_frame(struct backend_connection *connection, uint8_t type, uint8_t flags,
                                 int32_t stream, const void *payload, size_t len) {
  const uint32_t id = (uint32_t)stream;
  const uint8_t header[BACKEND_HEADER_BYTES] = {
      (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,       type,       flags,
      (uint8_t)(id >> 24),  (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
  backend_raw(connection, header, sizeof header);
  backend_raw(connection, payload, len);
}

static inline void backend_number(uint8_t *out, uint32_t value) {
  value = htonl(value);
  memcpy(out, &value, sizeof value);
}

static inline uint32_t backend_read_number(const uint8_t *bytes) {
  uint32_t value;
  memcpy(&value, bytes, sizeof value);
  return ntohl(value);
}

static inline void backend_settings(struct backend_connection *connection,
                                    const nghttp2_settings_entry *entries, size_t count) {
  uint8_t payload[6 * BACKEND_SETTINGS];
  for (size_t i = 0; i < count; i++) {
    payload[6 * i] = (uint8_t)(entries[i].settings_id >> 8);
    payload[6 * i + 1] = (uint8_t)entries[i].settings_id;
    backend_number(payload + 6 * i + 2, entries[i].value);
  }
  backend_frame(connection, NGHTTP2_SETTINGS, 0, 0, payload, 6 * count);
}

static inline void backend_setting(struct backend_connection *connection, int32_t id,
                                   uint32_t value) {
  const nghttp2_settings_entry entry = {id, value};
  backend_settings(connection, &entry, 1);
}

static inline void backend_window(struct backend_connection *connection, int32_t stream,
                                  uint32_t bytes) {
  uint8_t payload[4];
  backend_number(payload, bytes);
  backend_frame(connection, NGHTTP2_WINDOW_UPDATE, 0, stream, payload, sizeof payload);
}

static inline void backend_reset(struct backend_connection *connection, int32_t stream,
                                 uint32_t code) {
  uint8_t payload[4];
  backend_number(payload, code);
  backend_frame(connection, NGHTTP2_RST_STREAM, 0, stream, payload, sizeof payload);
}

static inline void backend_goaway_for(struct backend_connection *connection, int32_t last_stream,
                                      uint32_t code, const char *why) {
  uint8_t payload[8 + 1024];
  size_t len = strnlen(why, 1024);
  backend_number(payload, (uint32_t)last_stream);
  backend_number(payload + 4, code);
  memcpy(payload + 8, why, len);
  backend_frame(connection, NGHTTP2_GOAWAY, 0, 0, payload, 8 + len);
}

static inline void backend_goaway(struct backend_connection *connection, int32_t last_stream,
                                  uint32_t code) {
  backend_goaway_for(connection, last_stream, code, "");
}

static inline void backend_ping(struct backend_connection *connection, const char *text) {
  uint8_t payload[8] = {0};
  memcpy(payload, text, strnlen(text, sizeof payload));
  backend_frame(connection, NGHTTP2_PING, 0, 0, payload, sizeof payload);
}

static inline size_t backend_hpack_string(uint8_t *out, const char *text, size_t len) {
  size_t at = 0;
  size_t rest = len;
  if (rest < 127) {
    out[at++] = (uint8_t)rest;
  } else {
    out[at++] = 127;
    for (rest -= 127; rest >= 128; rest /= 128) {
      out[at++] = (uint8_t)(rest % 128 + 128);
    }
    out[at++] = (uint8_t)rest;
  }
  memcpy(out + at, text, len);
  return at + len;
}

// Of headers as "name: value\n" each; in HPACK they are literals that nobody needs to remember.
// out has room for twice the text.
static inline size_t backend_block(uint8_t *out, const char *headers) {
  size_t at = 0;
  while (*headers) {
    const char *colon = strstr(headers + 1, ": ");
    const char *end = strchr(headers, '\n');
    out[at++] = 0;
    at += backend_hpack_string(out + at, headers, (size_t)(colon - headers));
    at += backend_hpack_string(out + at, colon + 2, (size_t)(end - colon - 2));
    headers = end + 1;
  }
  return at;
}

static inline void backend_headers(struct backend_connection *connection, int32_t stream,
                                   uint8_t flags, const char *headers) {
  uint8_t *block = malloc(2 * strlen(headers) + 16);
  size_t len = backend_block(block, headers);
  backend_frame(connection, NGHTTP2_HEADERS, (uint8_t)(flags | NGHTTP2_FLAG_END_HEADERS), stream,
                block, len);
  free(block);
}

// The headers that an answer of gRPC begins with.
static inline void backend_accept(struct backend_connection *connection, int32_t stream) {
  backend_headers(connection, stream, 0, ":status: 200\ncontent-type: application/grpc\n");
}

static inline void backend_trailers(struct backend_connection *connection, int32_t stream,
                                    const char *status) {
  char headers[128];
  snprintf(headers, sizeof headers, "grpc-status: %s\n", status);
  backend_headers(connection, stream, NGHTTP2_FLAG_END_STREAM, headers);
}

static inline struct backend_stream *backend_stream(struct backend_connection *connection,
                                                    int32_t id) {
  for (int i = 0; i < connection->stream_count; i++) {
    if (connection->streams[i].id == id) {
      return &connection->streams[i];
    }
  }
  return NULL;
}

// Takes no notice of windows, but for keeping count.
static inline void backend_data(struct backend_connection *connection, int32_t stream,
                                uint8_t flags, const void *bytes, size_t len) {
  struct backend_stream *known = backend_stream(connection, stream);
  connection->window -= (int64_t)len;
  if (known) {
    known->window -= (int64_t)len;
  }
  backend_frame(connection, NGHTTP2_DATA, flags, stream, bytes, len);
}

// One message of gRPC in one DATA frame, of up to 16,000 bytes.
static inline void backend_message(struct backend_connection *connection, int32_t stream,
                                   const void *bytes, size_t len) {
  uint8_t data[16384] = {0};
  backend_number(data + 1, (uint32_t)len);
  memcpy(data + 5, bytes, len);
  backend_data(connection, stream, 0, data, 5 + len);
}

static inline void backend_text(struct backend_connection *connection, int32_t stream,
                                const char *text) {
  backend_message(connection, stream, text, strlen(text));
}

// --- What it hears -----------------------------------------------------------------------

static inline void backend_heard_headers(struct backend_connection *connection,
                                         struct backend_stream *stream) {
  const uint8_t *block = connection->block;
  size_t len = connection->block_len;
  size_t at = 0;
  int flags = 0;
  while (!(flags & NGHTTP2_HD_INFLATE_FINAL)) {
    nghttp2_nv header;
    ssize_t used = nghttp2_hd_inflate_hd2(connection->inflater, &header, &flags, block, len, 1);
    if (used < 0) {
      fprintf(stderr, "the headers cannot be read: %s\n", nghttp2_strerror((int)used));
      abort();
    }
    block += used;
    len -= (size_t)used;
    if (flags & NGHTTP2_HD_INFLATE_EMIT) {
      at += (size_t)snprintf(stream->headers + at, sizeof stream->headers - at, "%.*s: %.*s\n",
                             (int)header.namelen, (const char *)header.name, (int)header.valuelen,
                             (const char *)header.value);
      at = at < sizeof stream->headers ? at : sizeof stream->headers - 1;
    }
  }
  nghttp2_hd_inflate_end_headers(connection->inflater);
  connection->block_len = 0;
}

static inline struct backend_stream *backend_new_stream(struct backend_connection *connection,
                                                        int32_t id) {
  struct backend_stream *stream = &connection->streams[connection->stream_count];
  if (connection->stream_count == BACKEND_STREAMS) {
    fprintf(stderr, "more streams than a test has\n");
    abort();
  }
  connection->stream_count++;
  stream->id = id;
  stream->window = connection->initial_window;
  return stream;
}

static inline void backend_heard_data(struct backend_connection *connection,
                                      struct backend_stream *stream, const uint8_t *bytes,
                                      size_t len) {
  stream->data = realloc(stream->data, stream->len + len + 1);
  memcpy(stream->data + stream->len, bytes, len);
  stream->len += len;
  if (len > 0 && !connection->backend->holds) {
    backend_window(connection, 0, (uint32_t)len);
    backend_window(connection, stream->id, (uint32_t)len);
  }
}

static inline void backend_heard_settings(struct backend_connection *connection, uint8_t flags,
                                          const uint8_t *payload, size_t len) {
  if (flags & NGHTTP2_FLAG_ACK) {
    connection->settings_acks++;
    if (connection->settings_acks == 1 && connection->backend->settings_count > 0 &&
        connection->backend->settings[0].settings_id == NGHTTP2_SETTINGS_HEADER_TABLE_SIZE) {
      nghttp2_hd_inflate_change_table_size(connection->inflater,
                                           connection->backend->settings[0].value);
    }
    return;
  }
  for (size_t i = 0; i + 6 <= len; i += 6) {
    unsigned id = payload[i] * 256U + payload[i + 1];
    uint32_t value = backend_read_number(payload + i + 2);
    if (id == NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE) {
      for (int each = 0; each < connection->stream_count; each++) {
        connection->streams[each].window += (int64_t)value - connection->initial_window;
      }
      connection->initial_window = value;
    }
    if (id < BACKEND_SETTINGS) {
      connection->settings[id] = value;
    }
  }
  if (!connection->backend->silent && !connection->backend->greeting) {
    backend_frame(connection, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL, 0);
  }
}

static inline void backend_heard_ping(struct backend_connection *connection, uint8_t flags,
                                      const uint8_t *payload) {
  if (flags & NGHTTP2_FLAG_ACK) {
    connection->pongs++;
    memcpy(connection->pong, payload, sizeof connection->pong);
    return;
  }
  connection->pings++;
  if (!connection->backend->mute && !connection->backend->silent) {
    backend_frame(connection, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, payload, 8);
  }
}

static inline void backend_heard_window(struct backend_connection *connection,
                                        struct backend_stream *stream, const uint8_t *payload) {
  if (stream) {
    stream->window += backend_read_number(payload);
  } else {
    connection->window += backend_read_number(payload);
  }
}

static inline void backend_heard(struct backend_connection *connection, uint8_t type, uint8_t flags,
                                 int32_t id, const uint8_t *payload, size_t len) {
  struct backend_stream *stream = id > 0 ? backend_stream(connection, id) : NULL;
  if (type == NGHTTP2_HEADERS && !stream) {
    stream = backend_new_stream(connection, id);
  }
  if (type == NGHTTP2_HEADERS && (flags & NGHTTP2_FLAG_PRIORITY)) {
    payload += 5;
    len -= 5;
  }
  // A client of ours has no reason to pad.
  switch (type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_CONTINUATION:
      if (len > sizeof connection->block - connection->block_len) {
        fprintf(stderr, "longer headers than a test has\n");
        abort();
      }
      memcpy(connection->block + connection->block_len, payload, len);
      connection->block_len += len;
      if (flags & NGHTTP2_FLAG_END_HEADERS) {
        backend_heard_headers(connection, stream);
      }
      break;
    case NGHTTP2_DATA: backend_heard_data(connection, stream, payload, len); break;
    case NGHTTP2_RST_STREAM:
      if (stream) {
        stream->reset = true;
        stream->reset_code = backend_read_number(payload);
      }
      break;
    case NGHTTP2_SETTINGS: backend_heard_settings(connection, flags, payload, len); break;
    case NGHTTP2_PING: backend_heard_ping(connection, flags, payload); break;
    case NGHTTP2_GOAWAY: connection->goaways++; break;
    case NGHTTP2_WINDOW_UPDATE: backend_heard_window(connection, stream, payload); break;
    default: break;
  }
  if ((type == NGHTTP2_HEADERS || type == NGHTTP2_DATA) && (flags & NGHTTP2_FLAG_END_STREAM)) {
    stream->ended = true;
  }
}

static inline void backend_on_read(struct bufferevent *wire, void *context) {
  struct backend_connection *connection = context;
  struct evbuffer *input = bufferevent_get_input(wire);
  size_t size = evbuffer_get_length(input);
  if (!connection->preface && size >= BACKEND_PREFACE_BYTES) {
    if (memcmp(evbuffer_pullup(input, BACKEND_PREFACE_BYTES), NGHTTP2_CLIENT_MAGIC,
               BACKEND_PREFACE_BYTES) != 0) {
      fprintf(stderr, "not the preface of HTTP/2\n");
      abort();
    }
    evbuffer_drain(input, BACKEND_PREFACE_BYTES);
    connection->preface = true;
  }
  while (connection->preface && (size = evbuffer_get_length(input)) >= BACKEND_HEADER_BYTES) {
    const uint8_t *header = evbuffer_pullup(input, BACKEND_HEADER_BYTES);
    size_t len = header[0] * 65536U + header[1] * 256U + header[2];
    if (size < BACKEND_HEADER_BYTES + len) {
      return;
    }
    const uint8_t *frame = evbuffer_pullup(input, (ssize_t)(BACKEND_HEADER_BYTES + len));
    if (len > connection->backend->largest_frame) {
      connection->backend->largest_frame = len;
    }
    backend_heard(connection, frame[3], frame[4],
                  (int32_t)(backend_read_number(frame + 5) & 0x7fffffff),
                  frame + BACKEND_HEADER_BYTES, len);
    evbuffer_drain(input, BACKEND_HEADER_BYTES + len);
  }
}

static inline void backend_on_event(struct bufferevent *wire, short what, void *context) {
  struct backend_connection *connection = context;
  (void)wire;
  if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
    connection->closed = true;
  }
}

// --- Its life ------------------------------------------------------------------------------

// What has been said but not yet sent is lost.
static inline void backend_close(struct backend_connection *connection) {
  if (connection->wire) {
    bufferevent_free(connection->wire);
    connection->wire = NULL;
  }
}

static inline void backend_on_accept(struct evconnlistener *listener, evutil_socket_t fd,
                                     struct sockaddr *peer, int peer_len, void *context) {
  struct backend *backend = context;
  struct backend_connection *connection = calloc(1, sizeof *connection);
  (void)listener;
  (void)peer;
  (void)peer_len;
  if (!connection || backend->connection_count == BACKEND_CONNECTIONS) {
    fprintf(stderr, "more connections than a test has\n");
    abort();
  }
  backend->connections[backend->connection_count++] = connection;
  connection->backend = backend;
  connection->window = NGHTTP2_INITIAL_CONNECTION_WINDOW_SIZE;
  connection->initial_window = NGHTTP2_INITIAL_WINDOW_SIZE;
  nghttp2_hd_inflate_new(&connection->inflater);
  connection->wire = bufferevent_socket_new(backend->base, fd, BEV_OPT_CLOSE_ON_FREE);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  if (backend->resets) {
    const struct linger at_once = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    backend_close(connection);
    return;
  }
  bufferevent_setcb(connection->wire, backend_on_read, NULL, backend_on_event, connection);
  bufferevent_enable(connection->wire, EV_READ | EV_WRITE);
  if (backend->greeting) {
    backend_raw(connection, backend->greeting, backend->greeting_len);
  } else if (!backend->silent) {
    backend_settings(connection, backend->settings, backend->settings_count);
  }
}

static inline void backend_start(struct backend *backend, struct event_base *base) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  backend->base = base;
  backend->listener =
      evconnlistener_new_bind(base, backend_on_accept, backend, LEV_OPT_CLOSE_ON_FREE, -1,
                              (struct sockaddr *)&address, sizeof address);
  if (!backend->listener) {
    perror("backend_start");
    exit(1);
  }
  getsockname(evconnlistener_get_fd(backend->listener), (struct sockaddr *)&address, &len);
  snprintf(backend->address, sizeof backend->address, "127.0.0.1:%d", ntohs(address.sin_port));
}

// Its connections stay.
static inline void backend_stop_listening(struct backend *backend) {
  if (backend->listener) {
    evconnlistener_free(backend->listener);
    backend->listener = NULL;
  }
}

static inline void backend_stop(struct backend *backend) {
  backend_stop_listening(backend);
  for (int i = 0; i < backend->connection_count; i++) {
    struct backend_connection *connection = backend->connections[i];
    backend_close(connection);
    for (int each = 0; each < connection->stream_count; each++) {
      free(connection->streams[each].data);
    }
    nghttp2_hd_inflate_del(connection->inflater);
    free(connection);
  }
  backend->connection_count = 0;
}

#endif
