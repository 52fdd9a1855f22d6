#include "worker/handshake.h"

#include <sodium.h>
#include <string.h>

#include "common/packet.h"
#include "proto/message.pb-c.h"

static bool within(int64_t a, int64_t b, int64_t tolerance) {
  // Without overflow, whatever the client sent.
  return a >= b - tolerance && a <= b + tolerance;
}

static int check_token(const struct handshake_keys *keys, const Message__CSHandshake *request,
                       int64_t now_s, struct handshake *handshake) {
  switch (
      token_read(keys->account_seal, request->token, strlen(request->token), &handshake->token)) {
    case TOKEN_OK: break;
    case TOKEN_BAD_ENCODING: return CLOSE_TOKEN_ENCODING;
    case TOKEN_BAD_SEAL: return CLOSE_TOKEN_SEAL;
    case TOKEN_BAD_CONTENT: return CLOSE_TOKEN_CONTENT;
  }
  if (handshake->token.timeout <= now_s) {
    return CLOSE_TOKEN_EXPIRED;
  }
  return HANDSHAKE_OK;
}

static int check_signature(const struct handshake_keys *keys, const Message__CSHandshake *request,
                           struct handshake *handshake) {
  if (request->sign.len != KEY_ED25519_SIGNATURE_BYTES ||
      key_verify(keys->client_key, request->pub.data, request->pub.len, request->sign.data) != 0) {
    return CLOSE_HANDSHAKE_SIGNATURE;
  }
  if (request->pub.len != KEY_X25519_BYTES) {
    return CLOSE_HANDSHAKE_KEY;
  }
  memcpy(handshake->client_public, request->pub.data, KEY_X25519_BYTES);
  return HANDSHAKE_OK;
}

static int check_request(const struct handshake_keys *keys, const Message__CSHandshake *request,
                         int64_t now_s, struct handshake *handshake) {
  if (request->token[0] == '\0') {
    return CLOSE_TOKEN_EMPTY;
  }
  if (!within(request->timestamp, now_s, keys->clock_tolerance_s)) {
    return CLOSE_HANDSHAKE_CLOCK;
  }
  int verdict = check_token(keys, request, now_s, handshake);
  if (verdict != HANDSHAKE_OK) {
    return verdict;
  }
  handshake->sid = request->server_id != 0 ? request->server_id : handshake->token.server_id;
  return keys->encrypted ? check_signature(keys, request, handshake) : HANDSHAKE_OK;
}

int handshake_check(const struct handshake_keys *keys, const uint8_t *bytes, size_t len,
                    int64_t now_s, struct handshake *handshake) {
  struct packet packet;
  if (packet_decode(&packet, bytes, len) != 0) {
    return CLOSE_HANDSHAKE_MALFORMED;
  }
  if (packet.mod != MODULE_SYSTEM || packet.seq != SYSTEM_HANDSHAKE) {
    return CLOSE_HANDSHAKE_UNEXPECTED;
  }
  handshake->mod = packet.mod;
  handshake->seq = packet.seq;
  handshake->conn_id = packet.conn_id;

  Message__CSHandshake *request = message__cshandshake__unpack(NULL, packet.data_len, packet.data);
  if (!request) {
    return CLOSE_HANDSHAKE_MALFORMED;
  }
  int verdict = check_request(keys, request, now_s, handshake);
  message__cshandshake__free_unpacked(request, NULL);
  return verdict;
}

int handshake_answer(const struct handshake_keys *keys, const struct handshake *handshake,
                     int64_t now_s, uint8_t *out, size_t *out_len,
                     uint8_t shared[KEY_X25519_BYTES]) {
  uint8_t public[KEY_X25519_BYTES] = {0};
  if (keys->encrypted) {
    uint8_t secret[KEY_X25519_BYTES];
    key_exchange_pair(secret, public);
    int error = key_exchange_shared(shared, secret, handshake->client_public);
    sodium_memzero(secret, sizeof secret);
    if (error != 0) {
      return CLOSE_HANDSHAKE_KEY;
    }
  }
  // With encryption off the key is all zero, and signed all the same: some
  // clients verify in any case.
  uint8_t signature[KEY_ED25519_SIGNATURE_BYTES];
  key_sign(keys->server_key, public, sizeof public, signature);

  Message__SCHandshake answer = MESSAGE__SCHANDSHAKE__INIT;
  answer.pub = (ProtobufCBinaryData){.len = sizeof public, .data = public};
  answer.sign = (ProtobufCBinaryData){.len = sizeof signature, .data = signature};
  answer.timestamp = now_s;
  answer.start_index = HANDSHAKE_START_INDEX;
  uint8_t data[HANDSHAKE_ANSWER_MAX_BYTES];
  size_t data_len = message__schandshake__pack(&answer, data);

  struct packet packet = {
      .data = data, .data_len = data_len, .mod = handshake->mod, .seq = handshake->seq};
  *out_len = (size_t)(packet_encode(&packet, out) - out);
  return HANDSHAKE_OK;
}
