#include "tools/client/client.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/event_struct.h>
#include <fcntl.h>
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
#include "tools/client/byte_stream.h"
#include "tools/client/websocket.h"

enum {
  READ_AHEAD_BYTES = 65536,        // beyond the largest message, in the shared read buffer
  INFLATE_FACTOR = 64,             // inflated data may be this many times the largest frame
  SEND_LEVEL = 1,                  // zlib
  HANDSHAKE_OVERHEAD_BYTES = 512,  // of the handshake's packet, beside the token
  FLUSH_BYTES = 16384,             // of what is queued, at a time: a TLS record
  // In the write buffer, before a message's bytes.
  HEAD_BYTES = WEBSOCKET_HEADER_MAX_BYTES + FRAME_HEADER_BYTES,
};

struct client_group {
  struct event_base *base;
  size_t message_max_bytes;
  uint8_t *in;  // message_max_bytes, headers and READ_AHEAD_BYTES
  size_t in_bytes;
  uint8_t *out;  // grown to the largest message sent
  size_t out_bytes;
  // Two, since a message may be sent while a received one is still being looked at.
  struct deflater *inflater;
  struct deflater *deflater;
  SSL_CTX *tls;            // NULL: none
  SSL_SESSION *session;    // the last that came, to be resumed
  bool session_came;       // and nobody was told yet
  struct kcp_dialer *kcp;  // NULL: none
};

enum client_state {
  CLIENT_CONNECTING,
  CLIENT_SECURING,   // TLS
  CLIENT_UPGRADING,  // to a WebSocket
  CLIENT_HANDSHAKING,
  CLIENT_READY,
  CLIENT_ENDED,
};

struct client {
  struct client_group *group;
  const struct client_events *events;
  void *owner;
  struct event read;
  struct event write;
  struct byte_stream stream;
  struct kcp_stream *kcp;  // in place of stream; NULL: not over KCP, or ended
  struct websocket web;
  const struct client_target *target;
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
  uint8_t *partial;  // the beginning of a message
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

struct client_group *client_group_new(struct event_base *base, size_t message_max_bytes) {
  struct client_group *group = calloc(1, sizeof *group);
  if (!group) {
    return NULL;
  }
  group->base = base;
  group->message_max_bytes = message_max_bytes;
  group->in_bytes = HEAD_BYTES + message_max_bytes + READ_AHEAD_BYTES;
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
  kcp_dialer_free(group->kcp);
  deflater_free(group->inflater);
  deflater_free(group->deflater);
  SSL_SESSION_free(group->session);
  SSL_CTX_free(group->tls);
  free(group->in);
  free(group->out);
  free(group);
}

static int on_session(SSL *ssl, SSL_SESSION *session) {
  struct client_group *group = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
  SSL_SESSION_free(group->session);
  group->session = session;
  group->session_came = true;
  return 1;  // it is ours now
}

int client_group_use_tls(struct client_group *group, const struct client_tls *tls, char *fault,
                         size_t fault_bytes) {
  group->tls = client_tls_context(tls, fault, fault_bytes);
  if (!group->tls) {
    return ERROR_INVALID;
  }
  SSL_CTX_set_app_data(group->tls, group);
  if (tls->resume) {
    SSL_CTX_sess_set_new_cb(group->tls, on_session);
  }
  return 0;
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
  if (client->stream.fd >= 0) {
    event_del(&client->read);
    event_del(&client->write);
    byte_stream_close(&client->stream);
  }
  if (client->kcp) {
    event_del(&client->read);
    event_del(&client->write);
    kcp_stream_close(client->kcp);
    client->kcp = NULL;
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

// --- Sending -----------------------------------------------------------------

// A failure to send shows on the reading side too, and is reported from there:
// so no callback runs from inside client_send.
static int write_out(struct client *client, const uint8_t *bytes, size_t len) {
  size_t done = 0;
  if (client->kcp) {
    return kcp_stream_write(client->kcp, bytes, len);
  }
  if (!client->queued || evbuffer_get_length(client->queued) == 0) {
    ssize_t sent = byte_stream_write(&client->stream, bytes, len);
    if (sent == BYTE_STREAM_FAILED) {
      return 0;
    }
    done = sent > 0 ? (size_t)sent : 0;
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

// Frames, seals and sends the body that the caller encoded HEAD_BYTES into out (and behind
// the nonce).
static int send_encoded(struct client *client, uint8_t *out, size_t plain_len) {
  uint8_t *body = out + HEAD_BYTES;
  size_t body_len = plain_len;
  if (client->seal) {
    body_len += SEAL_OVERHEAD_BYTES;
    int error = seal_in_place(client->seal, body, plain_len);
    if (error != 0) {
      return error;
    }
  }
  uint8_t *start = body - FRAME_HEADER_BYTES;
  frame_write_header(start, body_len);
  if (client->target->websocket) {
    start = websocket_wrap(WEBSOCKET_BINARY, start, FRAME_HEADER_BYTES + body_len);
  }
  return write_out(client, start, (size_t)(body + body_len - start));
}

// Without memory for it the other side goes without.
static void send_control(struct client *client, enum websocket_opcode opcode, const uint8_t *bytes,
                         size_t len) {
  uint8_t out[WEBSOCKET_HEADER_MAX_BYTES + WEBSOCKET_CONTROL_MAX_BYTES];
  uint8_t *body = out + WEBSOCKET_HEADER_MAX_BYTES;
  memcpy(body, bytes, len);
  uint8_t *start = websocket_wrap(opcode, body, len);
  write_out(client, start, (size_t)(body + len - start));
}

static void send_close(struct client *client, unsigned code) {
  const uint8_t bytes[2] = {(uint8_t)(code >> 8), (uint8_t)code};
  send_control(client, WEBSOCKET_CLOSE, bytes, sizeof bytes);
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
                                  original->data_len, SIZE_MAX, &packet.data, &packet.data_len);
    if (error != 0) {
      return error;
    }
    packet.compress = true;
  }
  packet.index = client->index + 1;
  bool plain = client->mode == CLIENT_PLAIN;
  size_t plain_len = plain ? packet.data_len : packet_size(&packet);
  uint8_t *out = reserve_out(client->group, HEAD_BYTES + SEAL_OVERHEAD_BYTES + plain_len);
  if (!out) {
    return ERROR_MEMORY;
  }
  uint8_t *body = out + HEAD_BYTES + (client->seal ? SEAL_NONCE_BYTES : 0);
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
  if (client->kcp) {
    return kcp_stream_unsent_bytes(client->kcp);
  }
  return client->queued ? evbuffer_get_length(client->queued) : 0;
}

int32_t client_index(const struct client *client) { return client->index; }

bool client_resumed(const struct client *client) {
  return client->stream.ssl && SSL_session_reused(client->stream.ssl);
}

void client_free(struct client *client) {
  if (!client) {
    return;
  }
  if (client->freed) {
    *client->freed = true;
  }
  if (client->target->websocket && client->stream.fd >= 0 && client->state >= CLIENT_HANDSHAKING &&
      client_queued_bytes(client) == 0) {
    send_close(client, WEBSOCKET_NORMAL);
  }
  disconnect(client);
  seal_free(client->seal);
  if (client->queued) {
    evbuffer_free(client->queued);
  }
  free(client->partial);
  free(client);
}

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
  size_t most = HEAD_BYTES + data_len + HANDSHAKE_OVERHEAD_BYTES;
  // The message is packed at the far end of the buffer and framed at its start.
  uint8_t *out = reserve_out(client->group, most + data_len);
  if (!out) {
    return ERROR_MEMORY;
  }
  message__cshandshake__pack(&handshake, out + most);
  struct packet packet = {
      .data = out + most, .data_len = data_len, .mod = MODULE_SYSTEM, .seq = SYSTEM_HANDSHAKE};
  packet_encode(&packet, out + HEAD_BYTES);
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

static void begin_session(struct client *client);

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

// Keeps what is left of a message for the next time. False when out of memory.
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

static void broken(struct client *client, const char *what, const char *why) {
  if (client->target->websocket) {
    send_close(client, WEBSOCKET_PROTOCOL_ERROR);
  }
  end(client, CLIENT_END_PROTOCOL, "%s%s", what, why);
}

static void take_body(struct client *client, uint8_t *body, size_t len) {
  if (client->state == CLIENT_HANDSHAKING) {
    receive_handshake(client, body, len);
  } else {
    receive_message(client, body, len);
  }
}

// Each take_ looks for one thing at the start of bytes. True when something was there, and
// *taken of the bytes belonged to it; false when more is needed, or it was the end. The
// client may have been freed.

static bool take_frame(struct client *client, uint8_t *bytes, size_t len, size_t *taken) {
  size_t body_len;
  int found = frame_parse(bytes, len, client->group->message_max_bytes, &body_len);
  if (found < 0) {
    broken(client, "a frame's length is unacceptable: ", error_text(found));
  }
  if (found <= 0) {
    return false;
  }
  *taken = FRAME_HEADER_BYTES + body_len;
  take_body(client, bytes + FRAME_HEADER_BYTES, body_len);
  return true;
}

static bool take_answer_to_upgrade(struct client *client, const uint8_t *bytes, size_t len,
                                   size_t *taken) {
  char fault[200];
  ssize_t found = websocket_take_answer(&client->web, bytes, len, fault, sizeof fault);
  if (found < 0) {
    end(client, CLIENT_END_CONNECT, "%s", fault);
  }
  if (found <= 0) {
    return false;
  }
  *taken = (size_t)found;
  begin_session(client);
  return true;
}

static void take_close(struct client *client, const struct websocket_found *found) {
  if (found->len < 2) {
    send_control(client, WEBSOCKET_CLOSE, found->control, 0);
    end(client, CLIENT_END_CLOSED, "closed without a code");
    return;
  }
  send_control(client, WEBSOCKET_CLOSE, found->control, 2);
  char reason[WEBSOCKET_CONTROL_MAX_BYTES + 1];
  websocket_show(found->control + 2, found->len - 2, reason, sizeof reason);
  bool refused = client->state == CLIENT_HANDSHAKING;
  end(client, refused ? CLIENT_END_HANDSHAKE : CLIENT_END_CLOSED, "%sclosed with code %d%s%s",
      refused ? "the gateway refused the handshake: " : "",
      found->control[0] << 8 | found->control[1], *reason ? " " : "", reason);
}

// One message holds one frame, of the bytes before which the fragments of it are joined:
// so *len may shrink.
static bool take_web(struct client *client, uint8_t *bytes, size_t *len, size_t *taken) {
  struct websocket_found found;
  int result = websocket_take(&client->web, bytes, len,
                              FRAME_HEADER_BYTES + client->group->message_max_bytes, &found);
  if (result < 0) {
    broken(client, found.fault, "");
  }
  if (result <= 0) {
    return false;
  }
  switch (found.opcode) {
    case WEBSOCKET_PING:
      send_control(client, WEBSOCKET_PONG, found.control, found.len);
      return true;
    case WEBSOCKET_PONG: return true;
    case WEBSOCKET_CLOSE: take_close(client, &found); return false;
    default: break;
  }
  size_t body_len;
  if (frame_parse(found.message, found.len, client->group->message_max_bytes, &body_len) != 1 ||
      FRAME_HEADER_BYTES + body_len != found.len) {
    broken(client, "a WebSocket message is not one frame", "");
    return false;
  }
  *taken = found.taken;
  take_body(client, found.message + FRAME_HEADER_BYTES, body_len);
  return true;
}

// Takes all that is whole. Returns how many bytes at the start are done with; what follows
// them, up to *len, is to be kept. Stops early when the client was freed or ended.
static size_t take_all(struct client *client, uint8_t *bytes, size_t *len) {
  const bool *freed = client->freed;
  size_t done = 0;
  bool found = true;
  while (found && !*freed && client->state != CLIENT_ENDED) {
    size_t rest = *len - done;
    size_t taken = 0;
    if (client->state == CLIENT_UPGRADING) {
      found = take_answer_to_upgrade(client, bytes + done, rest, &taken);
    } else if (client->target->websocket) {
      found = take_web(client, bytes + done, &rest, &taken);
    } else {
      found = take_frame(client, bytes + done, rest, &taken);
    }
    *len = done + rest;
    done += taken;
  }
  return done;
}

// Reading came to its end, or to a fault that the stream tells.
static void lost(struct client *client, bool at_end) {
  const char *why = at_end ? "closed" : byte_stream_fault(&client->stream);
  switch (client->state) {
    case CLIENT_UPGRADING:
      end(client, CLIENT_END_CONNECT, "the upgrade to a WebSocket was not answered: %s", why);
      break;
    case CLIENT_HANDSHAKING:
      end(client, CLIENT_END_HANDSHAKE, "the gateway refused the handshake: %s", why);
      break;
    default:
      end(client, at_end ? CLIENT_END_CLOSED : CLIENT_END_RESET, "%s%s", why,
          at_end && client->partial_len != 0 ? " in the middle of a message" : "");
      break;
  }
}

static void receive(struct client *client) {
  struct client_group *group = client->group;
  const bool *freed = client->freed;
  size_t have = client->partial_len;
  if (have != 0) {
    memcpy(group->in, client->partial, have);
  }
  ssize_t received = byte_stream_read(&client->stream, group->in + have, group->in_bytes - have);
  if (received == BYTE_STREAM_AGAIN) {
    return;
  }
  if (received <= 0) {
    lost(client, received == 0);
    return;
  }
  size_t len = have + (size_t)received;
  size_t done = take_all(client, group->in, &len);
  if (*freed || client->state == CLIENT_ENDED) {
    return;
  }
  if (!keep_partial(client, group->in + done, len - done)) {
    end(client, CLIENT_END_RESET, "out of memory");
    return;
  }
  if (!client->paused && byte_stream_pending(&client->stream)) {
    event_active(&client->read, EV_READ, 0);
  }
}

// Over KCP. What is left of a message is kept by the stream.
static size_t on_kcp_bytes(uint8_t *bytes, size_t len, void *owner) {
  struct client *client = owner;
  bool freed = false;
  client->freed = &freed;
  size_t rest = len;
  size_t done = take_all(client, bytes, &rest);
  if (!freed) {
    client->freed = NULL;
  }
  return freed || client->state == CLIENT_ENDED ? len : done;
}

static void on_kcp_ended(int error, void *owner) {
  struct client *client = owner;
  switch (error) {
    case 0: lost(client, true); break;
    case ERROR_EXPIRED: end(client, CLIENT_END_RESET, "the gateway is silent"); break;
    case ERROR_MALFORMED: end(client, CLIENT_END_PROTOCOL, "what came over KCP is not smux"); break;
    default: end(client, CLIENT_END_RESET, "%s", error_text(error)); break;
  }
}

static const struct kcp_stream_events kcp_events = {on_kcp_bytes, on_kcp_ended};

int client_group_use_kcp(struct client_group *group, const struct kcp_wire *wire) {
  group->kcp = kcp_dialer_new(group->base, wire, &kcp_events);
  return group->kcp ? 0 : ERROR_MEMORY;
}

void client_pause(struct client *client, bool paused) {
  if (client->paused == paused || client->state == CLIENT_ENDED) {
    return;
  }
  client->paused = paused;
  if (client->kcp) {
    kcp_stream_pause(client->kcp, paused);
    return;
  }
  if (paused) {
    event_del(&client->read);
    return;
  }
  event_add(&client->read, NULL);
  if (byte_stream_pending(&client->stream)) {
    event_active(&client->read, EV_READ, 0);
  }
}

// --- Connecting --------------------------------------------------------------

// The connection stands: what is left is to log in.
static void begin_session(struct client *client) {
  const bool *freed = client->freed;
  bool plain = client->mode == CLIENT_PLAIN;
  client->state = plain ? CLIENT_READY : CLIENT_HANDSHAKING;
  event_add(&client->read, &client->timeout);
  if (plain) {
    event_remove_timer(&client->read);
  }
  if (client->events->on_connected) {
    client->events->on_connected(client->owner);
  }
  if (*freed) {
    return;
  }
  if (plain) {
    client->events->on_login(client->owner);
  } else if (send_handshake(client) != 0) {
    end(client, CLIENT_END_HANDSHAKE, "out of memory");
  }
}

static void begin_upgrade(struct client *client) {
  if (!client->target->websocket) {
    begin_session(client);
    return;
  }
  char request[WEBSOCKET_REQUEST_MAX_BYTES];
  size_t len =
      websocket_request(&client->web, client->target->authority, client->target->path, request);
  client->state = CLIENT_UPGRADING;
  event_add(&client->read, &client->timeout);
  if (write_out(client, (const uint8_t *)request, len) != 0) {
    end(client, CLIENT_END_CONNECT, "out of memory");
  }
}

static void go_on_securing(struct client *client) {
  bool for_writing;
  int result = byte_stream_handshake(&client->stream, &for_writing);
  if (result == 0) {
    if (byte_stream_pending(&client->stream)) {
      event_active(&client->read, EV_READ, 0);
    }
    begin_upgrade(client);
  } else if (result == BYTE_STREAM_AGAIN) {
    if (for_writing) {
      event_add(&client->write, NULL);
    }
  } else {
    end(client, CLIENT_END_CONNECT, "TLS: %s", byte_stream_fault(&client->stream));
  }
}

static void begin_securing(struct client *client) {
  if (!client->target->tls) {
    begin_upgrade(client);
    return;
  }
  struct client_group *group = client->group;
  client->state = CLIENT_SECURING;
  event_add(&client->read, &client->timeout);
  if (byte_stream_use_tls(&client->stream, group->tls, client->target->host, group->session) != 0) {
    end(client, CLIENT_END_CONNECT, "out of memory");
    return;
  }
  go_on_securing(client);
}

static void finish_connecting(struct client *client) {
  if (client->kcp) {
    begin_session(client);  // whether anybody is there, the handshake will show
    return;
  }
  int failure = 0;
  socklen_t failure_len = sizeof failure;
  getsockopt(client->stream.fd, SOL_SOCKET, SO_ERROR, &failure, &failure_len);
  if (failure != 0) {
    end(client, CLIENT_END_CONNECT, "%s", strerror(failure));
    return;
  }
  begin_securing(client);
}

static void send_queued(struct client *client) {
  size_t len = evbuffer_get_length(client->queued);
  while (len > 0) {
    size_t offered = len < FLUSH_BYTES ? len : FLUSH_BYTES;
    const uint8_t *bytes = evbuffer_pullup(client->queued, (ssize_t)offered);
    ssize_t sent = bytes ? byte_stream_write(&client->stream, bytes, offered) : BYTE_STREAM_AGAIN;
    if (sent == BYTE_STREAM_FAILED) {
      return;  // which reading tells
    }
    if (sent == BYTE_STREAM_AGAIN) {
      event_add(&client->write, NULL);
      return;
    }
    evbuffer_drain(client->queued, (size_t)sent);
    len -= (size_t)sent;
  }
}

static void timed_out(struct client *client) {
  switch (client->state) {
    case CLIENT_CONNECTING: end(client, CLIENT_END_CONNECT, "no connection in time"); break;
    case CLIENT_SECURING: end(client, CLIENT_END_CONNECT, "no TLS in time"); break;
    case CLIENT_UPGRADING:
      end(client, CLIENT_END_CONNECT, "the upgrade to a WebSocket was not answered in time");
      break;
    default: {
      int failure = client->kcp ? kcp_stream_path_errno(client->kcp) : 0;
      end(client, failure ? CLIENT_END_CONNECT : CLIENT_END_HANDSHAKE,
          "the gateway did not answer the handshake in time%s%s", failure ? ": " : "",
          failure ? strerror(failure) : "");
      break;
    }
  }
}

static void on_event(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  struct client *client = argument;
  bool freed = false;
  client->freed = &freed;
  if (what & EV_TIMEOUT) {
    timed_out(client);
  } else if (client->state == CLIENT_CONNECTING) {
    finish_connecting(client);
  } else if (client->state == CLIENT_SECURING) {
    go_on_securing(client);
  } else if (what & EV_READ) {
    receive(client);
  } else if (client->queued) {
    send_queued(client);
  }
  if (!freed && client->group->session_came && client->state == CLIENT_READY) {
    client->group->session_came = false;
    if (client->events->on_resumable) {
      client->events->on_resumable(client->owner);
    }
  }
  if (!freed) {
    client->freed = NULL;
  }
}

// A socket that has begun to connect; -1 with errno.
static int begin_connecting(const struct client_options *options) {
  const struct client_target *target = options->target;
  int family = target->address.ss_family;
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
  if (connect(fd, (const struct sockaddr *)&target->address, target->address_len) != 0 &&
      errno != EINPROGRESS) {
    int kept = errno;
    close(fd);
    errno = kept;
    return -1;
  }
  return fd;
}

// The first event of a client over KCP comes by itself, as that of a socket that has connected.
static bool dial(struct client *client, const struct client_options *options) {
  const struct client_target *target = options->target;
  const struct client *beside = options->beside;
  client->kcp = kcp_dial(client->group->kcp, (const struct sockaddr *)&target->address,
                         target->address_len, options->source, beside ? beside->kcp : NULL, client);
  if (client->kcp) {
    event_active(&client->write, EV_WRITE, 0);
  }
  return client->kcp != NULL;
}

static bool open_connection(struct client *client, const struct client_options *options) {
  bool is_kcp = options->target->kcp;
  int fd = is_kcp ? -1 : begin_connecting(options);
  client->stream.fd = fd;
  if (!is_kcp && fd < 0) {
    return false;
  }
  struct event_base *base = client->group->base;
  event_assign(&client->read, base, fd, EV_READ | EV_PERSIST, on_event, client);
  event_assign(&client->write, base, fd, EV_WRITE, on_event, client);
  if (is_kcp) {
    return dial(client, options);
  }
  if (event_add(&client->write, &client->timeout) != 0) {
    errno = ENOMEM;
    return false;
  }
  return true;
}

struct client *client_connect(struct client_group *group, const struct client_options *options,
                              const struct client_events *events, void *owner) {
  if ((options->target->tls && !group->tls) || (options->target->kcp && !group->kcp)) {
    errno = EINVAL;
    return NULL;
  }
  struct client *client = calloc(1, sizeof *client);
  if (!client) {
    errno = ENOMEM;
    return NULL;
  }
  client->group = group;
  client->events = events;
  client->owner = owner;
  client->target = options->target;
  client->mode = options->mode;
  client->identity = options->identity;
  client->server_key = options->server_key;
  client->token = options->token;
  client->server_id = options->server_id;
  client->timeout = clock_timeval(options->timeout_ms);
  if (!open_connection(client, options)) {
    int kept = errno;
    client_free(client);
    errno = kept;
    return NULL;
  }
  return client;
}
