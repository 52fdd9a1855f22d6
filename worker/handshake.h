// The login: the client's first message is checked in the order that the client
// protocol gives ("handshake"), each failure under a reason of its own, and
// answered with the server's half of the key exchange.
//
// Keys that are being replaced are good beside the new ones until their time is over. The
// token may be under any of them; by which certificates client and gateway go is up to the
// client's cert_version.
//
// No connection, no clock: the bytes and the time come in, a verdict goes out.
#ifndef JANUS_WORKER_HANDSHAKE_H
#define JANUS_WORKER_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/close_reason.h"
#include "common/config.h"
#include "common/error.h"
#include "common/keys.h"
#include "common/seal.h"
#include "common/token.h"
#include "worker/limits.h"

enum { HANDSHAKE_KEYS_MAX = 1 + LOGIN_KEYS_PREVIOUS };

// What the checks go by. Its keys are its own.
struct handshake_keys {
  struct login_keys *sets;                         // the current one first; locked memory
  struct seal *account_seals[HANDSHAKE_KEYS_MAX];  // of each set; NULL: has no account key
  size_t count;
  bool encrypted;
  int64_t clock_tolerance_s;
};

// Takes a copy of the login keys, in place of those before, at any time between two calls of
// the others. The first time, keys must be all zero but for encrypted and clock_tolerance_s.
// ERROR_MEMORY leaves them as they were.
int handshake_keys_set(struct handshake_keys *keys, const struct secrets *secrets) MUST_CHECK;
void handshake_keys_fini(struct handshake_keys *keys);

// What the gateway has learned from a client that passed.
struct handshake {
  struct token token;
  int64_t sid;
  int32_t mod;  // as received, for the answer
  int32_t seq;
  int32_t conn_id;
  uint8_t client_public[KEY_X25519_BYTES];  // with encryption on

  // By which of the gateway's keys it is to be answered; a key and no place in a list, since
  // the keys may be others by then.
  uint8_t server_public[KEY_ED25519_PUBLIC_BYTES];
  int32_t server_cert_version;
  bool named_cert_version;  // the client did

  bool by_previous_account_key;
  bool by_previous_certs;
};

enum { HANDSHAKE_OK = -1, HANDSHAKE_START_INDEX = 1, HANDSHAKE_ANSWER_MAX_BYTES = 256 };

// The time, and out of what the checks that cost much are paid.
struct handshake_terms {
  int64_t now_s;                // wall clock, in unix seconds
  int64_t now_ms;               // monotonic, for the budget
  struct token_bucket *budget;  // NULL: no bound
};

// HANDSHAKE_OK, or the close reason of the first check that failed. Only who has a good token
// takes anything out of the budget: junk costs us next to nothing, and must cost others nothing.
int handshake_check(const struct handshake_keys *keys, const struct handshake_terms *terms,
                    const uint8_t *bytes, size_t len, struct handshake *handshake) MUST_CHECK;

// Writes the answer's packet into out (HANDSHAKE_ANSWER_MAX_BYTES) and, with
// encryption on, the session key into shared. HANDSHAKE_OK, or a close reason: a
// public key that leads to an all-zero shared key.
int handshake_answer(const struct handshake_keys *keys, const struct handshake *handshake,
                     int64_t now_s, uint8_t *out, size_t *out_len,
                     uint8_t shared[KEY_X25519_BYTES]) MUST_CHECK;

#endif
