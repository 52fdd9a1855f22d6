#include "tools/client/client.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/deflate.h"
#include "common/frame.h"
#include "common/seal.h"
#include "proto/message.pb-c.h"

enum {
  READ_AHEAD_BYTES = 65536,        // beyond the largest frame, in the shared read buffer
  INFLATE_FACTOR = 64,             // inflated data may be this many times the largest frame
  SEND_LEVEL = 1,                  // zlib
  HANDSHAKE_OVERHEAD_BYTES = 512,  // of the handshake's packet, beside the token
};

struct client_group {
  struct event_base *base;
  size_t message_max_bytes;
  uint8_t *in;  // message_max_bytes, header and READ_AHEAD_BYTES
  size_t in_bytes;
  uint8_t *out;  // grown to the largest message sent
  size_t out_bytes;
  // Two, since a message may be sent while a received one is still being looked at.
  struct deflater *inflater;
  struct deflater *deflater;
};

enum client_state { CLIENT_CONNECTING, CLIENT_HANDSHAKING, CLIENT_READY, CLIENT_ENDED };

struct client {
  struct client_group *group;
  const struct client_events *events;
  void *owner;
  struct event read;
  struct event write;
  int fd;
  enum client_state state;
  enum client_mode mode;
  bool paused;
  bool *freed;  // set while callbacks may free this client
  const struct client_identity *identity;
  const struct verify_key *server_key;
  const char *token;
  int64_t server_id;
  struct timeval timeout;
  struct seal *seal;
  int32_t index;     // of the last packet sent
  uint8_t *partial;  // the beginning of a frame
  size_t partial_len;
  struct evbuffer *queued;  // what the socket did not take
};

const char *client_end_name(enum client_end end) {
  switch (end) {
    case CLIENT_END_CONNECT: return "connect";
    case CLIENT_END_HANDSHAKE: return "handshake";
    case CLIENT_END_CLOSED: return "closed";
    case CLIENT_END_RESET: return "reset";
    case CLIENT_END_PROTOCOL: return "protocol";
  }
  return "unknown";
}

void client_identity_init(struct client_identity *identity, const struct signing_key *key) {
  memset(identity, 0, sizeof *identity);
  if (key) {
    key_exchange_pair(identity->secret, identity->public);
    key_sign(key, identity->public, sizeof identity->public, identity->signature);
  }
}

int client_resolve(const char *text, struct sockaddr_storage *address, socklen_t *address_len,
                   const char **detail) {
  char host[256];
  const char *colon = strrchr(text, ':');
  if (!colon || colon[1] == '\0' || (size_t)(colon - text) >= sizeof host) {
    *detail = "it must be host:port";
    return ERROR_INVALID;
  }
  const char *start = text;
  size_t len = (size_t)(colon - text);
  if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
    start++;
    len -= 2;
  }
  memcpy(host, start, len);
  host[len] = '\0';
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
  struct addrinfo *found;
  int failure = getaddrinfo(len == 0 ? "127.0.0.1" : host, colon + 1, &hints, &found);
  if (failure != 0) {
    *detail = gai_strerror(failure);
    return ERROR_INVALID;
  }
  memcpy(address, found->ai_addr, found->ai_addrlen);
  *address_len = found->ai_addrlen;
  freeaddrinfo(found);
  return 0;
}

struct client_group *client_group_new(struct event_base *base, size_t message_max_bytes) {
  struct client_group *group = calloc(1, sizeof *group);
  if (!group) {
    return NULL;
  }
  group->base = base;
  group->message_max_bytes = message_max_bytes;
  group->in_bytes = FRAME_HEADER_BYTES + message_max_bytes + READ_AHEAD_BYTES;
  group->in = malloc(group->in_bytes);
  group->inflater = deflater_new();
  group->deflater = deflater_new();
  if (!group->in || !group->inflater || !group->deflater) {
    client_group_free(group);
    return NULL;
  }
  return group;
}

void client_group_free(struct client_group *group) {
  if (!group) {
    return;
  }
  deflater_free(group->inflater);
  deflater_free(group->deflater);
  free(group->in);
  free(group->out);
  free(group);
}

// The group's write buffer, with room for bytes. NULL when out of memory.
static uint8_t *reserve_out(struct client_group *group, size_t bytes) {
  if (bytes > group->out_bytes) {
    uint8_t *grown = realloc(group->out, bytes);
    if (!grown) {
      return NULL;
    }
    group->out = grown;
    group->out_bytes = bytes;
  }
  return group->out;
}

// --- The end -----------------------------------------------------------------

static void disconnect(struct client *client) {
  if (client->fd >= 0) {
    event_del(&client->read);
    event_del(&client->write);
    close(client->fd);
    client->fd = -1;
  }
}

__attribute__((format(printf, 3, 4))) static void end(struct client *client, enum client_end how,
                                                      const char *format, ...) {
  char detail[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(detail, sizeof detail, format, arguments);
  va_end(arguments);
  disconnect(client);
  client->state = CLIENT_ENDED;
  client->events->on_closed(client->owner, how, detail);
}

void client_free(struct client *client) {
  if (!client) {
    return;
  }
  if (client->freed) {
    *client->freed = true;
  }
  disconnect(client);
  seal_free(client->seal);
  if (client->queued) {
    evbuffer_free(client->queued);
  }
  free(client->partial);
  free(client);
}

// --- Sending -----------------------------------------------------------------

// A failure to send shows on the reading side too, and is reported from there:
// so no callback runs from inside client_send.
static int write_out(struct client *client, const uint8_t *bytes, size_t len) {
  size_t done = 0;
  if (!client->queued || evbuffer_get_length(client->queued) == 0) {
    ssize_t sent = send(client->fd, bytes, len, MSG_NOSIGNAL);
    if (sent >= 0) {
      done = (size_t)sent;
    } else if (errno != EAGAIN && errno != EINTR) {
      return 0;
    }
  }
  if (done == len) {
    return 0;
  }
  if (!client->queued) {
    client->queued = evbuffer_new();
  }
  if (!client->queued || evbuffer_add(client->queued, bytes + done, len - done) != 0 ||
      event_add(&client->write, NULL) != 0) {
    return ERROR_MEMORY;
  }
  return 0;
}

// Frames, seals and sends what the caller encoded behind header and nonce.
static int send_encoded(struct client *client, uint8_t *out, size_t plain_len) {
  size_t body_len = plain_len;
  if (client->seal) {
    body_len += SEAL_OVERHEAD_BYTES;
    int error = seal_in_place(client->seal, out + FRAME_HEADER_BYTES, plain_len);
    if (error != 0) {
      return error;
    }
  }
  frame_write_header(out, body_len);
  return write_out(client, out, FRAME_HEADER_BYTES + body_len);
}

int client_send(struct client *client, const struct packet *original, bool with_compression) {
  if (client->state != CLIENT_READY) {
    return ERROR_INVALID;
  }
  if (original->data_len > CLIENT_SEND_MAX_BYTES) {
    return ERROR_TOO_LARGE;
  }
  struct packet packet = *original;
  if (with_compression) {
    int error = deflater_compress(client->group->deflater, SEND_LEVEL, original->data,
                                  original->data_len, &packet.data, &packet.data_len);
    if (error != 0) {
      return error;
    }
    packet.compress = true;
  }
  packet.index = client->index + 1;
  bool plain = client->mode == CLIENT_PLAIN;
  size_t plain_len = plain ? packet.data_len : packet_size(&packet);
  uint8_t *out = reserve_out(client->group, FRAME_HEADER_BYTES + SEAL_OVERHEAD_BYTES + plain_len);
  if (!out) {
    return ERROR_MEMORY;
  }
  uint8_t *body = out + FRAME_HEADER_BYTES + (client->seal ? SEAL_NONCE_BYTES : 0);
  if (plain) {
    memcpy(body, packet.data, packet.data_len);
  } else {
    packet_encode(&packet, body);
  }
  int error = send_encoded(client, out, plain_len);
  if (error == 0) {
    client->index = packet.index;
  }
  return error;
}

size_t client_queued_bytes(const struct client *client) {
  return client->queued ? evbuffer_get_length(client->queued) : 0;
}

int32_t client_index(const struct client *client) { return client->index; }

// --- Logging in --------------------------------------------------------------

static int send_handshake(struct client *client) {
  const struct client_identity *identity = client->identity;
  Message__CSHandshake handshake = MESSAGE__CSHANDSHAKE__INIT;
  handshake.pub = (ProtobufCBinaryData){sizeof identity->public, (uint8_t *)identity->public};
  handshake.sign =
      (ProtobufCBinaryData){sizeof identity->signature, (uint8_t *)identity->signature};
  handshake.token = (char *)client->token;
  handshake.server_id = client->server_id;
  handshake.timestamp = time(NULL);
  handshake.cert_version = identity->cert_version;
  size_t data_len = message__cshandshake__get_packed_size(&handshake);
  size_t most = FRAME_HEADER_BYTES + data_len + HANDSHAKE_OVERHEAD_BYTES;
  // The message is packed at the far end of the buffer and framed at its start.
  uint8_t *out = reserve_out(client->group, most + data_len);
  if (!out) {
    return ERROR_MEMORY;
  }
  message__cshandshake__pack(&handshake, out + most);
  struct packet packet = {
      .data = out + most, .data_len = data_len, .mod = MODULE_SYSTEM, .seq = SYSTEM_HANDSHAKE};
  packet_encode(&packet, out + FRAME_HEADER_BYTES);
  return send_encoded(client, out, packet_size(&packet));
}

// Takes the gateway's answer. NULL, or why it is not acceptable.
static const char *take_answer(struct client *client, const Message__SCHandshake *answer) {
  if (answer->pub.len != KEY_X25519_BYTES) {
    return "the gateway's public key does not have 32 bytes";
  }
  if (client->server_key) {
    if (answer->sign.len != KEY_ED25519_SIGNATURE_BYTES ||
        key_verify(client->server_key, answer->pub.data, answer->pub.len, answer->sign.data) != 0) {
      return "the gateway's signature is not that of the server key";
    }
  }
  client->index = answer->start_index - 1;
  bool server_is_open = sodium_is_zero(answer->pub.data, answer->pub.len);
  if (client->mode == CLIENT_OPEN) {
    return server_is_open ? NULL : "the gateway wants encryption: leave out --unencrypted";
  }
  if (server_is_open) {
    return "the gateway has encryption off: use --unencrypted";
  }
  uint8_t shared[KEY_X25519_BYTES];
  if (key_exchange_shared(shared, client->identity->secret, answer->pub.data) != 0) {
    return "the gateway's public key is unusable";
  }
  client->seal = seal_new(shared, sizeof shared);
  sodium_memzero(shared, sizeof shared);
  return client->seal ? NULL : "out of memory";
}

static void receive_handshake(struct client *client, const uint8_t *body, size_t len) {
  struct packet packet;
  if (packet_decode(&packet, body, len) != 0 || packet.mod != MODULE_SYSTEM ||
      packet.seq != SYSTEM_HANDSHAKE) {
    end(client, CLIENT_END_HANDSHAKE, "the gateway's first message is no answer to the handshake");
    return;
  }
  Message__SCHandshake *answer = message__schandshake__unpack(NULL, packet.data_len, packet.data);
  const char *fault = answer ? take_answer(client, answer) : "the gateway's answer is malformed";
  if (answer) {
    message__schandshake__free_unpacked(answer, NULL);
  }
  if (fault) {
    end(client, CLIENT_END_HANDSHAKE, "%s", fault);
    return;
  }
  event_remove_timer(&client->read);
  client->state = CLIENT_READY;
  client->events->on_login(client->owner);
}

// --- Receiving ---------------------------------------------------------------

static void receive_message(struct client *client, uint8_t *body, size_t len) {
  struct packet packet;
  struct client_message message = {.packet = &packet, .wire_bytes = FRAME_HEADER_BYTES + len};
  if (client->mode == CLIENT_PLAIN) {
    packet = (struct packet){.data = body, .data_len = len};
    message.data_bytes = len;
    client->events->on_message(client->owner, &message);
    return;
  }
  if (client->seal) {
    int error = seal_open_in_place(client->seal, body, len, &body, &len);
    if (error != 0) {
      end(client, CLIENT_END_PROTOCOL, "a message does not open: %s", error_text(error));
      return;
    }
  }
  if (packet_decode(&packet, body, len) != 0) {
    end(client, CLIENT_END_PROTOCOL, "a message is not a Packet");
    return;
  }
  message.data_bytes = packet.data_len;
  if (packet.compress) {
    int error = deflater_inflate(client->group->inflater, packet.data, packet.data_len,
                                 client->group->message_max_bytes * INFLATE_FACTOR, &packet.data,
                                 &packet.data_len);
    if (error != 0) {
      end(client, CLIENT_END_PROTOCOL, "a message does not inflate: %s", error_text(error));
      return;
    }
  }
  client->events->on_message(client->owner, &message);
}

// Keeps what is left of a frame for the next time. False when out of memory.
static bool keep_partial(struct client *client, const uint8_t *rest, size_t len) {
  if (len == 0) {
    free(client->partial);
    client->partial = NULL;
  } else if (len != client->partial_len || client->partial == NULL) {
    uint8_t *partial = realloc(client->partial, len);
    if (!partial) {
      return false;
    }
    client->partial = partial;
  }
  if (len != 0) {
    memcpy(client->partial, rest, len);
  }
  client->partial_len = len;
  return true;
}

// Takes every whole frame at the start of bytes. Returns how many bytes were
// taken; stops early when the client was freed or ended.
static size_t take_frames(struct client *client, uint8_t *bytes, size_t len, const bool *freed) {
  size_t taken = 0;
  for (;;) {
    size_t body_len;
    int found =
        frame_parse(bytes + taken, len - taken, client->group->message_max_bytes, &body_len);
    if (found < 0) {
      end(client, CLIENT_END_PROTOCOL, "a frame's length is unacceptable: %s", error_text(found));
      return taken;
    }
    if (found == 0) {
      return taken;
    }
    uint8_t *body = bytes + taken + FRAME_HEADER_BYTES;
    taken += FRAME_HEADER_BYTES + body_len;
    if (client->state == CLIENT_HANDSHAKING) {
      receive_handshake(client, body, body_len);
    } else {
      receive_message(client, body, body_len);
    }
    if (*freed || client->state == CLIENT_ENDED) {
      return taken;
    }
  }
}

static void on_readable(evutil_socket_t fd, short what, void *argument) {
  struct client *client = argument;
  struct client_group *group = client->group;
  if (what & EV_TIMEOUT) {
    end(client, CLIENT_END_HANDSHAKE, "the gateway did not answer the handshake in time");
    return;
  }
  size_t have = client->partial_len;
  if (have != 0) {
    memcpy(group->in, client->partial, have);
  }
  ssize_t received = recv(fd, group->in + have, group->in_bytes - have, 0);
  if (received < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (received <= 0) {
    if (client->state == CLIENT_HANDSHAKING) {
      end(client, CLIENT_END_HANDSHAKE, "the gateway refused the handshake and closed");
    } else if (received == 0) {
      end(client, CLIENT_END_CLOSED, have ? "closed in the middle of a message" : "closed");
    } else {
      end(client, CLIENT_END_RESET, "%s", strerror(errno));
    }
    return;
  }
  size_t len = have + (size_t)received;
  bool freed = false;
  client->freed = &freed;
  size_t taken = take_frames(client, group->in, len, &freed);
  if (freed) {
    return;
  }
  client->freed = NULL;
  if (client->state != CLIENT_ENDED && !keep_partial(client, group->in + taken, len - taken)) {
    end(client, CLIENT_END_RESET, "out of memory");
  }
}

void client_pause(struct client *client, bool paused) {
  if (client->paused == paused || client->state == CLIENT_ENDED) {
    return;
  }
  client->paused = paused;
  if (paused) {
    event_del(&client->read);
  } else {
    event_add(&client->read, NULL);
  }
}

// --- Connecting --------------------------------------------------------------

static void on_writable_connected(struct client *client) {
  ssize_t sent = evbuffer_write(client->queued, client->fd);
  bool again = sent >= 0 || errno == EAGAIN || errno == EINTR;
  if (again && evbuffer_get_length(client->queued) > 0) {
    event_add(&client->write, NULL);
  }
}

static void on_writable(evutil_socket_t fd, short what, void *argument) {
  struct client *client = argument;
  if (client->state != CLIENT_CONNECTING) {
    on_writable_connected(client);
    return;
  }
  if (what & EV_TIMEOUT) {
    end(client, CLIENT_END_CONNECT, "no connection in time");
    return;
  }
  int failure = 0;
  socklen_t failure_len = sizeof failure;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &failure_len);
  if (failure != 0) {
    end(client, CLIENT_END_CONNECT, "%s", strerror(failure));
    return;
  }
  bool freed = false;
  client->freed = &freed;
  bool plain = client->mode == CLIENT_PLAIN;
  client->state = plain ? CLIENT_READY : CLIENT_HANDSHAKING;
  event_add(&client->read, plain ? NULL : &client->timeout);
  if (client->events->on_connected) {
    client->events->on_connected(client->owner);
  }
  if (!freed && plain) {
    client->events->on_login(client->owner);
  } else if (!freed && send_handshake(client) != 0) {
    end(client, CLIENT_END_HANDSHAKE, "out of memory");
  }
  if (!freed) {
    client->freed = NULL;
  }
}

// A socket that has begun to connect; -1 with errno.
static int begin_connecting(const struct client_options *options) {
  int family = options->address.ss_family;
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return -1;
  }
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (options->receive_buffer_bytes > 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &options->receive_buffer_bytes,
               sizeof options->receive_buffer_bytes);
  }
  if (family == AF_INET && options->source.s_addr != INADDR_ANY) {
    // The port is chosen when connecting, so that each source address has all of them.
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr = options->source};
    if (bind(fd, (struct sockaddr *)&source, sizeof source) != 0) {
      close(fd);
      return -1;
    }
  }
  if (connect(fd, (const struct sockaddr *)&options->address, options->address_len) != 0 &&
      errno != EINPROGRESS) {
    int kept = errno;
    close(fd);
    errno = kept;
    return -1;
  }
  return fd;
}

struct client *client_connect(struct client_group *group, const struct client_options *options,
                              const struct client_events *events, void *owner) {
  int fd = begin_connecting(options);
  if (fd < 0) {
    return NULL;
  }
  struct client *client = calloc(1, sizeof *client);
  if (!client) {
    close(fd);
    errno = ENOMEM;
    return NULL;
  }
  client->group = group;
  client->events = events;
  client->owner = owner;
  client->fd = fd;
  client->mode = options->mode;
  client->identity = options->identity;
  client->server_key = options->server_key;
  client->token = options->token;
  client->server_id = options->server_id;
  client->timeout = clock_timeval(options->timeout_ms);
  event_assign(&client->read, group->base, fd, EV_READ | EV_PERSIST, on_readable, client);
  event_assign(&client->write, group->base, fd, EV_WRITE, on_writable, client);
  if (event_add(&client->write, &client->timeout) != 0) {
    client_free(client);
    errno = ENOMEM;
    return NULL;
  }
  return client;
}
