// The first message of a client, as the login takes it. Half of the runs wrap the
// input in a sound packet and token, so that what lies behind those is reached too.
#include <stdlib.h>
#include <string.h>

#include "common/packet.h"
#include "proto/message.pb-c.h"
#include "worker/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const int64_t now_s = 1750000000;
static struct handshake_keys keys;
static char *sound_token;

static void set_up(void) {
  static const uint8_t account_key[32] = "0123456789abcdef0123456789abcde";
  const struct token token = {.color = "blue", .account_id = 10001, .timeout = INT64_MAX};
  if (seal_global_init(true) != 0) {
    abort();
  }
  // Two sets, of the versions that an input is likely to have.
  struct secrets secrets = {.previous_count = 1};
  for (int32_t i = 0; i < 2; i++) {
    struct login_keys *set = i == 0 ? &secrets.current : &secrets.previous[0];
    set->has_certs = true;
    set->client_cert_version = set->server_cert_version = i;
    set->account_aes_key_len = sizeof account_key;
    memcpy(set->account_aes_key, account_key, sizeof account_key);
    set->account_aes_key[0] ^= (uint8_t)i;
  }
  keys.clock_tolerance_s = 5;
  if (handshake_keys_set(&keys, &secrets) != 0) {
    abort();
  }
  struct seal *issuer = seal_new(account_key, sizeof account_key);
  sound_token = token_write(issuer, &token);
  seal_free(issuer);
}

static void take(const uint8_t *bytes, size_t len) {
  static const struct handshake_terms terms = {.now_s = now_s};
  struct handshake handshake;
  uint8_t answer[HANDSHAKE_ANSWER_MAX_BYTES];
  uint8_t shared[KEY_X25519_BYTES];
  size_t answer_len;
  int verdict = handshake_check(&keys, &terms, bytes, len, &handshake);
  if (verdict == HANDSHAKE_OK) {
    verdict = handshake_answer(&keys, &handshake, now_s, answer, &answer_len, shared);
    if (verdict == HANDSHAKE_OK && answer_len > sizeof answer) {
      abort();
    }
  }
}

static void take_wrapped(const uint8_t *bytes, size_t len) {
  Message__CSHandshake request = MESSAGE__CSHANDSHAKE__INIT;
  request.pub = (ProtobufCBinaryData){len < 40 ? len : 40, (uint8_t *)bytes};
  request.sign = (ProtobufCBinaryData){len, (uint8_t *)bytes};
  request.token = sound_token;
  request.timestamp = now_s;
  size_t data_len = message__cshandshake__get_packed_size(&request);
  uint8_t *data = malloc(data_len);
  message__cshandshake__pack(&request, data);
  struct packet packet = {
      .data = data, .data_len = data_len, .mod = MODULE_SYSTEM, .seq = SYSTEM_HANDSHAKE};
  uint8_t *whole = malloc(packet_size(&packet));
  take(whole, (size_t)(packet_encode(&packet, whole) - whole));
  free(whole);
  free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  if (!sound_token) {
    set_up();
  }
  if (len == 0) {
    return 0;
  }
  keys.encrypted = (bytes[0] & 1) != 0;
  if (bytes[0] & 2) {
    take_wrapped(bytes + 1, len - 1);
  } else {
    take(bytes + 1, len - 1);
  }
  return 0;
}
