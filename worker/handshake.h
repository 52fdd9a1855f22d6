// The login: the client's first message is checked in the order that the client
// protocol gives ("handshake"), each failure under a reason of its own, and
// answered with the server's half of the key exchange.
//
// No connection, no clock: the bytes and the time come in, a verdict goes out.
#ifndef JANUS_WORKER_HANDSHAKE_H
#define JANUS_WORKER_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/close_reason.h"
#include "common/error.h"
#include "common/keys.h"
#include "common/seal.h"
#include "common/token.h"

// What the checks go by; the pointers are borrowed.
struct handshake_keys {
  struct seal *account_seal;
  const struct verify_key *client_key;
  const struct signing_key *server_key;
  bool encrypted;
  int64_t clock_tolerance_s;
};

// What the gateway has learned from a client that passed.
struct handshake {
  struct token token;
  int64_t sid;
  int32_t mod;  // as received, for the answer
  int32_t seq;
  int32_t conn_id;
  uint8_t client_public[KEY_X25519_BYTES];  // with encryption on
};

enum { HANDSHAKE_OK = -1, HANDSHAKE_START_INDEX = 1, HANDSHAKE_ANSWER_MAX_BYTES = 256 };

// HANDSHAKE_OK, or the close reason of the first check that failed. now_s is the
// wall clock in unix seconds.
int handshake_check(const struct handshake_keys *keys, const uint8_t *bytes, size_t len,
                    int64_t now_s, struct handshake *handshake) MUST_CHECK;

// Writes the answer's packet into out (HANDSHAKE_ANSWER_MAX_BYTES) and, with
// encryption on, the session key into shared. HANDSHAKE_OK, or a close reason: a
// public key that leads to an all-zero shared key.
int handshake_answer(const struct handshake_keys *keys, const struct handshake *handshake,
                     int64_t now_s, uint8_t *out, size_t *out_len,
                     uint8_t shared[KEY_X25519_BYTES]) MUST_CHECK;

#endif
