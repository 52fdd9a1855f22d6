// Datagrams of the KCP transport, many in a row, to a decoder of parity. The first byte chooses
// the numbers of shards, and with its highest bit where the sequence begins; the rest are steps,
// each a byte and what it takes: a datagram as it stands there; the next one of a sound encoder,
// which goes to a store; one of the store as it is, or with a byte changed. As long as nothing
// was made up or changed, what is recovered must be what was sent.
#include <stdlib.h>
#include <string.h>

#include "common/kcp/fec.h"
#include "common/kcp/reed_solomon_kernel.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { STORED_MAX = 128, SENT_MAX = 500, PAYLOAD_MIN_BYTES = 24 };

static const unsigned numbers[][2] = {{10, 3}, {8, 2}, {1, 1}, {3, 2}, {2, 5}, {20, 10}};
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

struct play {
  struct fec_encoder *encoder;
  struct fec_decoder *decoder;
  unsigned group_size;
  bool is_sound;
  int64_t now_ms;
  uint32_t sent;
  size_t stored;
  size_t stored_len[STORED_MAX];
  // What is being taken in.
  const uint8_t *datagram;
  size_t datagram_len;
  uint64_t regular;
  uint64_t recovered;
};

// Of what stored_len speaks; not cleared each time.
static uint8_t store[STORED_MAX][FEC_DATAGRAM_MAX_BYTES];

// Steps are read from here.
struct steps {
  const uint8_t *at;
  const uint8_t *end;
};

static unsigned next_byte(struct steps *steps) { return steps->at < steps->end ? *steps->at++ : 0; }

static void fill_payload(uint8_t *payload, size_t len, uint32_t number) {
  memcpy(payload, &number, sizeof number);
  for (size_t i = sizeof number; i < len; i++) {
    payload[i] = (uint8_t)(number * 7 + i + len);
  }
}

static void on_payload(uint8_t *payload, size_t len, bool regular, void *owner) {
  struct play *play = owner;
  if (len < PAYLOAD_MIN_BYTES) {
    abort();
  }
  if (regular && (play->regular++ > 0 || play->recovered > 0 || payload < play->datagram ||
                  payload + len != play->datagram + play->datagram_len)) {
    abort();
  }
  play->recovered += !regular;
  if (!regular && len > FEC_DATAGRAM_MAX_BYTES - FEC_HEADER_BYTES) {
    abort();
  }
  if (play->is_sound) {
    uint8_t expected[FEC_DATAGRAM_MAX_BYTES];
    uint32_t number;
    memcpy(&number, payload, sizeof number);
    fill_payload(expected, len, number);
    if (memcmp(payload, expected, len) != 0) {
      abort();
    }
  }
  memset(payload, 0xa5, len);  // it is writable
}

static void take_in(struct play *play, const uint8_t *bytes, size_t len) {
  uint8_t *copy = malloc(len + (len == 0));
  memcpy(copy, bytes, len);
  uint64_t recovered_before = fec_decoder_counts(play->decoder)->recovered;
  play->datagram = copy;
  play->datagram_len = len;
  play->regular = 0;
  play->recovered = 0;
  int status = fec_decoder_input(play->decoder, copy, len, on_payload, play);
  if (status != 0 && play->regular + play->recovered > 0) {
    abort();
  }
  if (fec_decoder_counts(play->decoder)->recovered - recovered_before != play->recovered) {
    abort();
  }
  if (fec_decoder_held_bytes(play->decoder) >
      (size_t)FEC_GROUPS_KEPT * play->group_size * FEC_DATAGRAM_MAX_BYTES) {
    abort();
  }
  if (play->is_sound && fec_decoder_counts(play->decoder)->unusable > 0) {
    abort();
  }
  free(copy);
}

static void on_output(uint8_t *datagram, size_t len, void *owner) {
  struct play *play = owner;
  size_t at = play->stored++ % STORED_MAX;
  if (len > FEC_DATAGRAM_MAX_BYTES) {
    abort();
  }
  memcpy(store[at], datagram, len);
  play->stored_len[at] = len;
}

static void send_next(struct play *play, unsigned size) {
  uint8_t buffer[FEC_DATAGRAM_MAX_BYTES];
  if (play->sent == SENT_MAX) {
    return;
  }
  size_t len = PAYLOAD_MIN_BYTES + size * 5;
  fill_payload(buffer + FEC_HEADER_BYTES, len, play->sent++);
  fec_encoder_send(play->encoder, buffer, len, play->now_ms, on_output, play);
}

static void take_stored(struct play *play, struct steps *steps, bool is_changed) {
  uint8_t copy[FEC_DATAGRAM_MAX_BYTES];
  if (play->stored == 0) {
    return;
  }
  // Counted from the newest.
  size_t back = next_byte(steps) % (play->stored < STORED_MAX ? play->stored : STORED_MAX);
  size_t at = (play->stored - 1 - back) % STORED_MAX;
  memcpy(copy, store[at], play->stored_len[at]);
  if (is_changed) {
    size_t place = next_byte(steps) % play->stored_len[at];
    copy[place] ^= (uint8_t)next_byte(steps);
    play->is_sound = false;
  }
  take_in(play, copy, play->stored_len[at]);
}

static void take_raw(struct play *play, struct steps *steps) {
  size_t len = next_byte(steps) | next_byte(steps) << 8;
  size_t left = (size_t)(steps->end - steps->at);
  len = len < left ? len : left;
  play->is_sound = false;
  take_in(play, steps->at, len);
  steps->at += len;
}

static void take_step(struct play *play, struct steps *steps) {
  unsigned step = next_byte(steps);
  switch (step % 8) {
    case 0: take_raw(play, steps); break;
    case 1:
      play->now_ms += step / 8 * 40;
      send_next(play, next_byte(steps));
      break;
    case 2:  // many at once
      for (unsigned i = 0; i <= step / 8; i++) {
        send_next(play, (step / 8 + i * 37) % 256);
      }
      break;
    case 3: take_stored(play, steps, true); break;
    case 4: fec_encoder_rest(play->encoder); break;
    default: take_stored(play, steps, false);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  static struct play play;
  struct steps steps = {bytes, bytes + len};
  if (len == 0 || len > 8000) {
    return 0;
  }
  unsigned first = next_byte(&steps);
  const unsigned *pair = numbers[first % NUMBERS];
  struct reed_solomon *code = reed_solomon_new_with(
      first & 0x40 || !reed_solomon_isal() ? reed_solomon_portable() : reed_solomon_isal(), pair[0],
      pair[1]);
  memset(&play, 0, sizeof play);
  play.encoder = fec_encoder_new(code);
  play.decoder = fec_decoder_new(code);
  play.group_size = pair[0] + pair[1];
  play.is_sound = true;
  if (first & 0x80) {
    fec_encoder_start_at(play.encoder,
                         UINT32_MAX / play.group_size * play.group_size - play.group_size);
  }
  while (steps.at < steps.end) {
    take_step(&play, &steps);
  }
  fec_encoder_free(play.encoder);
  fec_decoder_free(play.decoder);
  reed_solomon_free(code);
  return 0;
}
