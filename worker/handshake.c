#include "worker/handshake.h"

#include <sodium.h>
#include <string.h>

#include "common/packet.h"
#include "common/secrets_rotate.h"
#include "proto/message.pb-c.h"

static bool within(int64_t a, int64_t b, int64_t tolerance) {
  // Without overflow, whatever the client sent.
  return a >= b - tolerance && a <= b + tolerance;
}

// The public half is the second one of libsodium's form.
static const uint8_t *server_public(const struct login_keys *set) {
  return set->server_key.secret + KEY_ED25519_SECRET_BYTES - KEY_ED25519_PUBLIC_BYTES;
}

static void free_keys(struct login_keys *sets, struct seal **seals, size_t count) {
  for (size_t i = 0; i < count; i++) {
    seal_free(seals[i]);
  }
  sodium_free(sets);
}

int handshake_keys_set(struct handshake_keys *keys, const struct secrets *secrets) {
  size_t count = 1 + secrets->previous_count;
  struct login_keys *sets = sodium_malloc(HANDSHAKE_KEYS_MAX * sizeof *sets);
  struct seal *seals[HANDSHAKE_KEYS_MAX] = {NULL};
  bool complete = sets != NULL;
  for (size_t i = 0; i < count && complete; i++) {
    memcpy(&sets[i], i == 0 ? &secrets->current : &secrets->previous[i - 1], sizeof *sets);
    if (sets[i].account_aes_key_len > 0) {
      seals[i] = seal_new(sets[i].account_aes_key, sets[i].account_aes_key_len);
      complete = seals[i] != NULL;
    }
  }
  if (!complete) {
    free_keys(sets, seals, count);
    return ERROR_MEMORY;
  }
  handshake_keys_fini(keys);
  keys->sets = sets;
  memcpy(keys->account_seals, seals, sizeof seals);
  keys->count = count;
  return 0;
}

void handshake_keys_fini(struct handshake_keys *keys) {
  free_keys(keys->sets, keys->account_seals, keys->count);
  keys->sets = NULL;
  keys->count = 0;
}

static bool is_valid(const struct handshake_keys *keys, size_t i, int64_t now_s) {
  return login_keys_valid(&keys->sets[i], now_s * 1000);
}

// Under the current account key, or a previous one.
static enum token_result open_token(const struct handshake_keys *keys, const char *text,
                                    int64_t now_s, struct handshake *handshake) {
  enum token_result result = TOKEN_BAD_SEAL;
  for (size_t i = 0; i < keys->count && result == TOKEN_BAD_SEAL; i++) {
    if (keys->account_seals[i] && is_valid(keys, i, now_s)) {
      result = token_read(keys->account_seals[i], text, strlen(text), &handshake->token);
      handshake->by_previous_account_key = i > 0;
    }
  }
  return result;
}

static int check_token(const struct handshake_keys *keys, const Message__CSHandshake *request,
                       int64_t now_s, struct handshake *handshake) {
  switch (open_token(keys, request->token, now_s, handshake)) {
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

// The sets whose certificates the client may have, in the order in which they are tried: those
// of its version; where there are none, the current one; and for a client that names no
// version, all of them.
static size_t candidates(const struct handshake_keys *keys, int32_t version, int64_t now_s,
                         size_t found[HANDSHAKE_KEYS_MAX]) {
  size_t count = 0;
  for (size_t i = 0; i < keys->count; i++) {
    if (keys->sets[i].has_certs && is_valid(keys, i, now_s) &&
        keys->sets[i].client_cert_version == version) {
      found[count++] = i;
    }
  }
  for (size_t i = 0; i < keys->count && (version == 0 || count == 0); i++) {
    if (keys->sets[i].has_certs && is_valid(keys, i, now_s) &&
        keys->sets[i].client_cert_version != version) {
      found[count++] = i;
    }
  }
  return count;
}

static bool verifies(const struct login_keys *set, const Message__CSHandshake *request) {
  return key_verify(&set->client_key, request->pub.data, request->pub.len, request->sign.data) == 0;
}

// The set whose certificates the client has: with encryption on, it has signed by them.
static int check_signature(const struct handshake_keys *keys, const Message__CSHandshake *request,
                           int64_t now_s, struct handshake *handshake) {
  size_t found[HANDSHAKE_KEYS_MAX];
  size_t count = candidates(keys, request->cert_version, now_s, found);
  size_t i = 0;
  if (keys->encrypted && request->sign.len != KEY_ED25519_SIGNATURE_BYTES) {
    return CLOSE_HANDSHAKE_SIGNATURE;
  }
  while (i < count && keys->encrypted && !verifies(&keys->sets[found[i]], request)) {
    i++;
  }
  if (i == count) {
    return CLOSE_HANDSHAKE_SIGNATURE;
  }
  const struct login_keys *set = &keys->sets[found[i]];
  memcpy(handshake->server_public, server_public(set), sizeof handshake->server_public);
  handshake->server_cert_version = set->server_cert_version;
  handshake->named_cert_version = request->cert_version != 0;
  handshake->by_previous_certs = found[i] > 0;
  return HANDSHAKE_OK;
}

static int check_key(const Message__CSHandshake *request, struct handshake *handshake) {
  if (request->pub.len != KEY_X25519_BYTES) {
    return CLOSE_HANDSHAKE_KEY;
  }
  memcpy(handshake->client_public, request->pub.data, KEY_X25519_BYTES);
  return HANDSHAKE_OK;
}

static bool may_verify(const struct handshake_terms *terms) {
  return !terms->budget || token_bucket_take(terms->budget, 1, terms->now_ms);
}

static int check_request(const struct handshake_keys *keys, const struct handshake_terms *terms,
                         const Message__CSHandshake *request, struct handshake *handshake) {
  if (request->token[0] == '\0') {
    return CLOSE_TOKEN_EMPTY;
  }
  if (!within(request->timestamp, terms->now_s, keys->clock_tolerance_s)) {
    return CLOSE_HANDSHAKE_CLOCK;
  }
  int verdict = check_token(keys, request, terms->now_s, handshake);
  if (verdict != HANDSHAKE_OK) {
    return verdict;
  }
  if (!may_verify(terms)) {
    return CLOSE_HANDSHAKE_RATE;
  }
  handshake->sid = request->server_id != 0 ? request->server_id : handshake->token.server_id;
  verdict = check_signature(keys, request, terms->now_s, handshake);
  return verdict == HANDSHAKE_OK && keys->encrypted ? check_key(request, handshake) : verdict;
}

int handshake_check(const struct handshake_keys *keys, const struct handshake_terms *terms,
                    const uint8_t *bytes, size_t len, struct handshake *handshake) {
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
  int verdict = check_request(keys, terms, request, handshake);
  message__cshandshake__free_unpacked(request, NULL);
  return verdict;
}

// The current set's where it has gone since: the client will notice.
static const struct login_keys *answering_set(const struct handshake_keys *keys,
                                              const struct handshake *handshake) {
  for (size_t i = 0; i < keys->count; i++) {
    const struct login_keys *set = &keys->sets[i];
    if (set->has_certs && set->server_cert_version == handshake->server_cert_version &&
        memcmp(server_public(set), handshake->server_public, KEY_ED25519_PUBLIC_BYTES) == 0) {
      return set;
    }
  }
  return &keys->sets[0];
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
  const struct login_keys *set = answering_set(keys, handshake);
  key_sign(&set->server_key, public, sizeof public, signature);

  Message__SCHandshake answer = MESSAGE__SCHANDSHAKE__INIT;
  answer.pub = (ProtobufCBinaryData){.len = sizeof public, .data = public};
  answer.sign = (ProtobufCBinaryData){.len = sizeof signature, .data = signature};
  answer.timestamp = now_s;
  // The protocol's answer has no version; a client that names one is told it all the same.
  answer.cert_version = handshake->named_cert_version ? set->server_cert_version : 0;
  answer.start_index = HANDSHAKE_START_INDEX;
  uint8_t data[HANDSHAKE_ANSWER_MAX_BYTES];
  size_t data_len = message__schandshake__pack(&answer, data);

  struct packet packet = {
      .data = data, .data_len = data_len, .mod = handshake->mod, .seq = handshake->seq};
  *out_len = (size_t)(packet_encode(&packet, out) - out);
  return HANDSHAKE_OK;
}
