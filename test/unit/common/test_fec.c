#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/kcp/fec.h"
#include "test/unit/kcp_capture.h"

enum {
  DATA = 10,
  PARITY = 3,
  GROUP = DATA + PARITY,
  END = 0xfffffff7,  // of the sequence numbers of 10+3
  LEN_MAX = FEC_DATAGRAM_MAX_BYTES - FEC_HEADER_BYTES,
  LEN_MIN = 24,
  SENT_MAX = 40000,
  HELD_MAX = FEC_GROUPS_KEPT * GROUP * FEC_DATAGRAM_MAX_BYTES,
};

struct datagram {
  size_t len;
  uint8_t *bytes;  // in memory of its own, for AddressSanitizer
};

struct sent {
  size_t count;
  struct datagram datagrams[SENT_MAX];
};

struct delivered {
  size_t regular;
  size_t recovered;
  size_t times[SENT_MAX];  // by the number in the payload's first bytes
};

static struct reed_solomon *code;
static struct fec_encoder *encoder;
static struct fec_decoder *decoder;
static struct sent sent;
static struct delivered delivered;
static int64_t now_ms;

static uint64_t random_state;
static uint32_t random_next(void) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(random_state >> 33);
}

static void use_numbers(unsigned data, unsigned parity) {
  fec_encoder_free(encoder);
  fec_decoder_free(decoder);
  reed_solomon_free(code);
  code = reed_solomon_new(data, parity);
  encoder = fec_encoder_new(code);
  decoder = fec_decoder_new(code);
  assert_non_null(encoder);
  assert_non_null(decoder);
}

static int set_up(void **state) {
  (void)state;
  use_numbers(DATA, PARITY);
  memset(&delivered, 0, sizeof delivered);
  now_ms = 1000;
  random_state = 1;
  return 0;
}

static void forget_sent(void) {
  for (size_t i = 0; i < sent.count; i++) {
    free(sent.datagrams[i].bytes);
  }
  sent.count = 0;
}

static int tear_down(void **state) {
  (void)state;
  forget_sent();
  fec_encoder_free(encoder);
  fec_decoder_free(decoder);
  reed_solomon_free(code);
  encoder = NULL;
  decoder = NULL;
  code = NULL;
  return 0;
}

static void keep_sent(uint8_t *bytes, size_t len, void *owner) {
  struct datagram *datagram = &sent.datagrams[sent.count++];
  assert_ptr_equal(owner, &sent);
  assert_true(sent.count <= SENT_MAX);
  datagram->len = len;
  datagram->bytes = malloc(len);
  memcpy(datagram->bytes, bytes, len);
}

// A payload by which its number can be told and its every byte checked.
static void fill_payload(uint8_t *payload, size_t len, uint32_t number) {
  memcpy(payload, &number, sizeof number);
  for (size_t i = sizeof number; i < len; i++) {
    payload[i] = (uint8_t)(number * 31 + i * (number | 1) + len);
  }
}

static void send_one(uint32_t number, size_t len) {
  uint8_t buffer[FEC_DATAGRAM_MAX_BYTES + 100];
  fill_payload(buffer + FEC_HEADER_BYTES, len, number);
  fec_encoder_send(encoder, buffer, len, now_ms, keep_sent, &sent);
}

static void send_group(uint32_t first, size_t len) {
  for (uint32_t i = 0; i < reed_solomon_data(code); i++) {
    send_one(first + i, len);
  }
}

static void check_payload(uint8_t *payload, size_t len, bool regular, void *owner) {
  uint8_t expected[FEC_DATAGRAM_MAX_BYTES + 100];
  uint32_t number;
  assert_ptr_equal(owner, &delivered);
  memcpy(&number, payload, sizeof number);
  assert_true(number < SENT_MAX);
  fill_payload(expected, len, number);
  assert_memory_equal(payload, expected, len);
  delivered.times[number]++;
  delivered.regular += regular;
  delivered.recovered += !regular;
  memset(payload, 0xaa, len);  // the layer above may
}

static void take_in(const struct datagram *datagram) {
  uint8_t *copy = malloc(datagram->len);
  memcpy(copy, datagram->bytes, datagram->len);
  assert_int_equal(fec_decoder_input(decoder, copy, datagram->len, check_payload, &delivered), 0);
  assert_true(fec_decoder_held_bytes(decoder) <= HELD_MAX);
  free(copy);
}

static void take_in_between(size_t from, size_t to) {
  for (size_t i = from; i < to; i++) {
    take_in(&sent.datagrams[i]);
  }
}

static uint32_t sequence_of(const struct datagram *datagram) {
  const uint8_t *bytes = datagram->bytes;
  return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
         (uint32_t)bytes[3] << 24;
}

static void set_sequence(struct datagram *datagram, uint32_t sequence) {
  for (unsigned i = 0; i < 4; i++) {
    datagram->bytes[i] = (uint8_t)(sequence >> 8 * i);
  }
}

static bool is_parity(const struct datagram *datagram) { return datagram->bytes[4] == FEC_PARITY; }

static const struct fec_counts *counts(void) { return fec_decoder_counts(decoder); }

// --- Sending ---------------------------------------------------------------------------------

static void a_group_goes_out_as_the_ecosystem_sends_it(void **state) {
  const struct kcp_capture *capture = kcp_capture_read("test/kcp/message-5-bytes.txt");
  size_t at = 0;
  (void)state;
  for (size_t i = 0; i < capture->count; i++) {
    const struct kcp_capture_datagram *datagram = &capture->datagrams[i];
    uint8_t buffer[FEC_DATAGRAM_MAX_BYTES] = {0};
    if (datagram->from == 'C' && datagram->bytes[4] == FEC_DATA) {
      memcpy(buffer + FEC_HEADER_BYTES, datagram->bytes + FEC_HEADER_BYTES,
             datagram->len - FEC_HEADER_BYTES);
      fec_encoder_send(encoder, buffer, datagram->len - FEC_HEADER_BYTES, (int64_t)datagram->ms,
                       keep_sent, &sent);
    }
  }
  assert_int_equal(sent.count, GROUP);
  for (size_t i = 0; i < capture->count; i++) {
    const struct kcp_capture_datagram *datagram = &capture->datagrams[i];
    if (datagram->from == 'C') {
      assert_int_equal(sent.datagrams[at].len, datagram->len);
      assert_memory_equal(sent.datagrams[at].bytes, datagram->bytes, datagram->len);
      at++;
    }
  }
  assert_int_equal(at, GROUP);
}

// With datagrams of full size, whose room is made in the middle of a group; for both sides.
static void large_and_small_datagrams_share_a_group(void **state) {
  static const char sides[] = {'C', 'S'};
  const struct kcp_capture *capture = kcp_capture_read("test/kcp/message-3000-bytes.txt");
  (void)state;
  for (size_t side = 0; side < sizeof sides; side++) {
    size_t at = 0;
    use_numbers(DATA, PARITY);
    forget_sent();
    for (size_t i = 0; i < capture->count; i++) {
      const struct kcp_capture_datagram *datagram = &capture->datagrams[i];
      uint8_t buffer[FEC_DATAGRAM_MAX_BYTES] = {0};
      if (datagram->from != sides[side]) {
        continue;
      }
      if (datagram->bytes[4] == FEC_DATA) {
        memcpy(buffer + FEC_HEADER_BYTES, datagram->bytes + FEC_HEADER_BYTES,
               datagram->len - FEC_HEADER_BYTES);
        fec_encoder_send(encoder, buffer, datagram->len - FEC_HEADER_BYTES, (int64_t)datagram->ms,
                         keep_sent, &sent);
      }
      assert_true(at < sent.count);
      assert_int_equal(sent.datagrams[at].len, datagram->len);
      assert_memory_equal(sent.datagrams[at].bytes, datagram->bytes, datagram->len);
      at++;
    }
    assert_int_equal(at, sent.count);
    assert_true(at > GROUP);
  }
}

static void data_goes_out_at_once_and_parity_behind_the_last(void **state) {
  (void)state;
  for (uint32_t i = 0; i < DATA - 1; i++) {
    send_one(i, 100 + i);
    assert_int_equal(sent.count, i + 1);
    assert_int_equal(sent.datagrams[i].len, FEC_HEADER_BYTES + 100 + i);
  }
  send_one(DATA - 1, 50);
  assert_int_equal(sent.count, GROUP);
  for (uint32_t i = 0; i < GROUP; i++) {
    assert_int_equal(sequence_of(&sent.datagrams[i]), i);
    assert_int_equal(is_parity(&sent.datagrams[i]), i >= DATA);
    assert_int_equal(sent.datagrams[i].bytes[5], 0);
  }
  // As long as the longest.
  assert_int_equal(sent.datagrams[DATA].len, FEC_HEADER_BYTES + 108);
}

static void after_a_gap_before_its_last_a_group_gets_no_parity(void **state) {
  (void)state;
  // Gaps earlier in the group do not matter.
  for (uint32_t i = 0; i < DATA - 1; i++) {
    now_ms += 5000;
    send_one(i, 100);
  }
  now_ms += 499;
  send_one(9, 100);
  assert_int_equal(sent.count, GROUP);
  send_group(0, 100);
  assert_int_equal(sent.count, 2 * GROUP);
  for (uint32_t gap = 500; gap <= 501; gap++) {
    forget_sent();
    for (uint32_t i = 0; i < DATA - 1; i++) {
      send_one(i, 100);
    }
    uint32_t last = sequence_of(&sent.datagrams[DATA - 2]) + 1;
    now_ms += gap;
    send_one(9, 100);
    assert_int_equal(sent.count, DATA);
    assert_int_equal(sequence_of(&sent.datagrams[DATA - 1]), last);
    // The next group begins where it would have with parity, and has its own.
    send_group(0, 100);
    assert_int_equal(sequence_of(&sent.datagrams[DATA]), last + 1 + PARITY);
    assert_int_equal(sent.count, DATA + GROUP);
  }
}

static void a_group_that_rested_gets_no_parity_and_the_next_one_does(void **state) {
  (void)state;
  fec_encoder_rest(encoder);  // nothing is open
  send_group(0, 100);
  assert_int_equal(sent.count, GROUP);
  fec_encoder_rest(encoder);
  send_one(0, 100);
  fec_encoder_rest(encoder);
  fec_encoder_rest(encoder);
  for (uint32_t i = 1; i < DATA; i++) {
    send_one(i, 100);
  }
  assert_int_equal(sent.count, GROUP + DATA);
  send_group(0, 100);
  assert_int_equal(sent.count, 2 * GROUP + DATA);
  assert_int_equal(sequence_of(&sent.datagrams[GROUP + DATA]), 2 * GROUP);
  take_in_between(GROUP + DATA + PARITY, sent.count);
  assert_int_equal(delivered.recovered, 3);
}

static void one_datagram_a_group_gets_parity_when_it_follows_another(void **state) {
  (void)state;
  use_numbers(1, 1);
  send_one(0, 100);
  assert_int_equal(sent.count, 1);
  send_one(1, 100);
  assert_int_equal(sent.count, 3);
  assert_int_equal(sequence_of(&sent.datagrams[1]), 2);
  take_in(&sent.datagrams[2]);
  assert_int_equal(delivered.recovered, 1);
  assert_int_equal(delivered.times[1], 1);
}

static void a_datagram_too_large_for_parity_is_sent_without(void **state) {
  (void)state;
  send_one(0, LEN_MAX + 1);
  send_group(1, 100);
  assert_int_equal(sent.count, 11);
  assert_int_equal(sequence_of(&sent.datagrams[10]), GROUP);
  take_in_between(0, sent.count);
  assert_int_equal(delivered.regular, 11);
}

static void sequence_numbers_wrap_at_a_groups_end(void **state) {
  (void)state;
  fec_encoder_start_at(encoder, END - 2 * GROUP);
  for (uint32_t group = 0; group < 4; group++) {
    send_group(group * DATA, 100);
  }
  assert_int_equal(sequence_of(&sent.datagrams[2 * GROUP - 1]), 0xfffffff6);
  assert_int_equal(sequence_of(&sent.datagrams[2 * GROUP]), 0);
  assert_false(is_parity(&sent.datagrams[2 * GROUP]));
  // Each group loses three; one of both sides of the wrap comes late.
  for (uint32_t group = 0; group < 4; group++) {
    take_in_between(group * GROUP + 3 + (group == 1), (group + 1) * GROUP);
  }
  assert_int_equal(delivered.recovered, 3 * 3);
  take_in(&sent.datagrams[GROUP + 3]);
  assert_int_equal(delivered.recovered, 4 * 3);
  for (size_t i = 0; i < 4 * DATA; i++) {
    assert_int_equal(delivered.times[i], 1);
  }
}

// With parity given up, too: the numbers of what is not sent are used up across the end.
static void sequence_numbers_wrap_without_parity_too(void **state) {
  (void)state;
  fec_encoder_start_at(encoder, END - GROUP);
  send_one(0, 100);
  fec_encoder_rest(encoder);
  send_group(1, 100);
  assert_int_equal(sent.count, 11);
  assert_int_equal(sequence_of(&sent.datagrams[10]), 0);
}

// --- Receiving -------------------------------------------------------------------------------

static struct {
  size_t count;
  size_t len[KCP_CAPTURE_MAX];
  uint8_t bytes[KCP_CAPTURE_MAX][FEC_DATAGRAM_MAX_BYTES];
} collected;

static void collect(uint8_t *payload, size_t len, bool regular, void *owner) {
  (void)owner;
  if (!regular) {
    collected.len[collected.count] = len;
    memcpy(collected.bytes[collected.count++], payload, len);
  }
}

static void three_of_a_captured_group_are_recovered_byte_for_byte(void **state) {
  const struct kcp_capture *capture = kcp_capture_read("test/kcp/message-5-bytes.txt");
  const struct kcp_capture_datagram *group[GROUP];
  size_t found = 0;
  unsigned tried = 0;
  (void)state;
  for (size_t i = 0; i < capture->count; i++) {
    if (capture->datagrams[i].from == 'C') {
      group[found++] = &capture->datagrams[i];
    }
  }
  assert_int_equal(found, GROUP);
  for (unsigned lost = 0; lost < 1u << DATA; lost++) {
    if (__builtin_popcount(lost) != PARITY) {
      continue;
    }
    use_numbers(DATA, PARITY);
    collected.count = 0;
    for (unsigned i = 0; i < GROUP; i++) {
      uint8_t copy[FEC_DATAGRAM_MAX_BYTES];
      memcpy(copy, group[i]->bytes, group[i]->len);
      if (!(lost >> i & 1)) {
        assert_int_equal(fec_decoder_input(decoder, copy, group[i]->len, collect, NULL), 0);
      }
    }
    assert_int_equal(collected.count, PARITY);
    for (unsigned i = 0, at = 0; i < DATA; i++) {
      if (lost >> i & 1) {
        assert_int_equal(collected.len[at], group[i]->len - FEC_HEADER_BYTES);
        assert_memory_equal(collected.bytes[at], group[i]->bytes + FEC_HEADER_BYTES,
                            collected.len[at]);
        at++;
      }
    }
    tried++;
  }
  assert_int_equal(tried, 120);
}

static void of_a_whole_group_nothing_is_held(void **state) {
  (void)state;
  send_group(0, 1400);
  take_in_between(0, 5);
  assert_true(fec_decoder_held_bytes(decoder) >= 5u * 1402);
  assert_true(fec_decoder_held_bytes(decoder) < 5u * 1440);
  take_in_between(5, DATA);
  assert_int_equal(fec_decoder_held_bytes(decoder), 0);
  take_in_between(DATA, GROUP);
  assert_int_equal(fec_decoder_held_bytes(decoder), 0);
  assert_int_equal(counts()->parity_in, PARITY);
  assert_int_equal(delivered.regular, DATA);
  assert_int_equal(delivered.recovered, 0);
}

static void what_comes_after_its_recovery_is_delivered_again_as_its_own(void **state) {
  (void)state;
  send_group(0, 300);
  take_in_between(1, DATA + 1);
  assert_int_equal(delivered.recovered, 1);
  assert_int_equal(fec_decoder_held_bytes(decoder), 0);
  take_in(&sent.datagrams[0]);
  assert_int_equal(delivered.times[0], 2);
  assert_int_equal(delivered.regular, DATA);
  assert_int_equal(counts()->duplicates, 1);
  assert_int_equal(counts()->recovered, 1);
}

static void a_duplicate_is_delivered_and_counts_once_towards_recovery(void **state) {
  (void)state;
  send_group(0, 300);
  take_in_between(3, GROUP - 1);
  for (unsigned i = 0; i < 5; i++) {
    take_in(&sent.datagrams[4]);
    take_in(&sent.datagrams[GROUP - 2]);
  }
  assert_int_equal(counts()->duplicates, 10);
  assert_int_equal(delivered.times[4], 6);
  assert_int_equal(delivered.recovered, 0);
  take_in(&sent.datagrams[GROUP - 1]);
  assert_int_equal(delivered.recovered, 3);
}

static void parity_may_come_first(void **state) {
  (void)state;
  send_group(0, 300);
  take_in_between(DATA, GROUP);
  take_in_between(0, DATA - PARITY);
  assert_int_equal(delivered.recovered, PARITY);
  for (size_t i = 0; i < DATA; i++) {
    assert_int_equal(delivered.times[i], 1);
  }
}

static void late_datagrams_of_the_last_groups_help(void **state) {
  (void)state;
  for (uint32_t group = 0; group < 5; group++) {
    send_group(group * DATA, 60);
  }
  // Of each of the first four, one less than is needed.
  for (size_t group = 0; group < 4; group++) {
    take_in_between(group * GROUP + 1, group * GROUP + DATA);
  }
  take_in(&sent.datagrams[GROUP - 1]);
  assert_int_equal(delivered.times[0], 1);
  take_in(&sent.datagrams[4 * GROUP]);  // the first group's place is gone
  take_in(&sent.datagrams[GROUP - 2]);
  assert_int_equal(counts()->late, 1);
  for (size_t group = 1; group < 4; group++) {
    take_in(&sent.datagrams[group * GROUP + DATA]);
    assert_int_equal(delivered.times[group * DATA], 1);
  }
  assert_int_equal(delivered.recovered, 4);
  // What is too late is delivered all the same.
  take_in(&sent.datagrams[0]);
  assert_int_equal(delivered.times[0], 2);
  assert_int_equal(counts()->late, 2);
}

static void what_is_held_is_bounded_whatever_comes(void **state) {
  size_t most = 0;
  (void)state;
  for (uint32_t group = 0; group < 1000; group++) {
    forget_sent();
    send_group(0, LEN_MAX);
    take_in_between(0, DATA - 1);
    size_t held = fec_decoder_held_bytes(decoder);
    most = held > most ? held : most;
  }
  assert_true(most >= (size_t)FEC_GROUPS_KEPT * (DATA - 1) * LEN_MAX);
  assert_true(most <= HELD_MAX);
}

// A jump: by one forged datagram, by one that comes twice, and by a peer that really is there.
static void one_datagram_far_away_does_not_end_recovery(void **state) {
  static const uint32_t far[] = {13 * 65, 13 * 1000, 13 * 100000000, END - 13 * 100, END - 13};
  (void)state;
  for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
    forget_sent();
    send_group(0, 100);
    send_group(10, 100);
    take_in(&sent.datagrams[GROUP]);
    uint32_t here = sequence_of(&sent.datagrams[GROUP]);
    set_sequence(&sent.datagrams[0], (uint32_t)(((uint64_t)here + far[i]) % END));
    uint64_t late = counts()->late;
    size_t recovered = delivered.recovered;
    take_in(&sent.datagrams[0]);
    take_in(&sent.datagrams[0]);
    assert_int_equal(counts()->late, late + (far[i] == END - 13 ? 0 : 2));
    take_in_between(GROUP + 4, 2 * GROUP);
    assert_int_equal(delivered.recovered, recovered + 3);
  }
}

// As many as there may be, as long as what comes between them is near.
static void datagrams_far_away_between_others_do_not_end_recovery(void **state) {
  (void)state;
  send_group(0, 100);
  send_group(10, 100);
  take_in(&sent.datagrams[GROUP + PARITY]);
  for (uint32_t i = 0; i < DATA; i++) {
    set_sequence(&sent.datagrams[i], 13 * 5000 + i);
    take_in(&sent.datagrams[i]);
    take_in(&sent.datagrams[GROUP + PARITY + i]);
  }
  assert_int_equal(counts()->late, DATA);
  assert_int_equal(delivered.recovered, PARITY);
}

static void a_sequence_that_goes_on_far_away_is_followed(void **state) {
  static const uint32_t starts[] = {13 * 200000000u, 13 * 1000, 13 * 250000000u, 13 * 8};
  enum { GROUPS = FEC_GROUPS_KEPT + 1 };
  (void)state;
  for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
    forget_sent();
    fec_encoder_start_at(encoder, starts[i]);
    for (uint32_t group = 0; group < GROUPS; group++) {
      send_group(group * DATA, 100);
    }
    take_in(&sent.datagrams[0]);  // not believed yet, unless it is the first
    size_t recovered = delivered.recovered;
    for (size_t group = 0; group < GROUPS; group++) {
      take_in_between(group * GROUP + 2, group * GROUP + DATA);
    }
    for (size_t group = 1; group < GROUPS; group++) {
      take_in_between(group * GROUP + DATA, group * GROUP + DATA + 2);
    }
    assert_int_equal(delivered.recovered, recovered + 2 * FEC_GROUPS_KEPT);
  }
  // Near, but too late for any of those kept.
  size_t recovered = delivered.recovered;
  fec_encoder_start_at(encoder, 0);
  forget_sent();
  send_group(0, 100);
  take_in_between(3, GROUP);
  assert_int_equal(delivered.recovered, recovered);
}

static void a_sequence_number_not_in_use_is_delivered_and_not_kept(void **state) {
  (void)state;
  send_group(0, 100);
  for (uint32_t sequence = END; sequence != 0; sequence++) {
    set_sequence(&sent.datagrams[0], sequence);
    take_in(&sent.datagrams[0]);
    set_sequence(&sent.datagrams[DATA], sequence);
    take_in(&sent.datagrams[DATA]);
  }
  assert_int_equal(delivered.regular, 9);
  assert_int_equal(fec_decoder_held_bytes(decoder), 0);
  assert_int_equal(counts()->late, 18);
}

static void take_anything(uint8_t *payload, size_t len, bool regular, void *owner) {
  struct delivered *to = owner;
  memset(payload, 0x55, len);
  to->regular += regular;
  to->recovered += !regular;
}

static void with_other_numbers_than_the_peers_data_flows_and_parity_is_no_use(void **state) {
  (void)state;
  use_numbers(8, 2);
  for (uint32_t i = 0; i < 800; i++) {
    send_one(i, 24 + random_next() % 1400);
  }
  assert_int_equal(sent.count, 1000);
  struct reed_solomon *ours = reed_solomon_new(DATA, PARITY);
  struct fec_decoder *other = fec_decoder_new(ours);
  for (size_t i = 0; i < sent.count; i++) {
    if (random_next() % 10 != 0) {
      assert_int_equal(fec_decoder_input(other, sent.datagrams[i].bytes, sent.datagrams[i].len,
                                         take_anything, &delivered),
                       0);
    }
  }
  assert_true(delivered.regular > 600);
  assert_true(delivered.regular < 800);
  assert_true(fec_decoder_counts(other)->misplaced > 100);
  assert_true(delivered.recovered < 10);
  assert_int_equal(fec_decoder_counts(other)->recovered, delivered.recovered);
  fec_decoder_free(other);
  reed_solomon_free(ours);
}

static void recovered_sizes_that_can_not_be_are_dropped(void **state) {
  static const unsigned sizes[] = {0, 1, 25, 103, 0x7fff, 0xffff};
  (void)state;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    // The parity of a datagram whose size is not what it should be: the sum of both.
    unsigned change = sizes[i] ^ 102;
    forget_sent();
    send_group(0, 100);
    for (unsigned row = 0; row < PARITY; row++) {
      uint8_t wrong[2] = {(uint8_t)change, (uint8_t)(change >> 8)};
      uint8_t sums[PARITY][2] = {{0}};
      uint8_t *pointers[PARITY] = {sums[0], sums[1], sums[2]};
      reed_solomon_add(code, 0, wrong, 2, pointers);
      sent.datagrams[DATA + row].bytes[6] ^= sums[row][0];
      sent.datagrams[DATA + row].bytes[7] ^= sums[row][1];
    }
    take_in_between(1, GROUP);
    assert_int_equal(counts()->unusable, i + 1);
    assert_int_equal(counts()->recovered, 0);
  }
}

static void datagrams_too_short_or_of_other_kinds_are_refused(void **state) {
  static const struct {
    unsigned kind;
    size_t least;  // of a datagram that is taken in
    size_t payload;
  } kinds[] = {{FEC_DATA, 32, 24}, {FEC_PARITY, 32, 0}, {FEC_OUT_OF_BAND, 1501, 0}, {0x51, 24, 24}};
  (void)state;
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    for (size_t len = 0; len <= FEC_DATAGRAM_MAX_BYTES; len++) {
      uint8_t *datagram = calloc(1, len + (len == 0));
      size_t before = delivered.regular;
      if (len > 4) {
        datagram[4] = (uint8_t)kinds[i].kind;
      }
      int expected = len < kinds[i].least ? ERROR_MALFORMED : 0;
      assert_int_equal(fec_decoder_input(decoder, datagram, len, take_anything, &delivered),
                       expected);
      assert_int_equal(delivered.regular, before + (expected == 0 && kinds[i].payload > 0));
      free(datagram);
    }
  }
}

static void the_size_that_data_tells_of_itself_is_not_asked(void **state) {
  static const uint16_t told[] = {0, 1, 25, 35, 1000, UINT16_MAX};
  (void)state;
  for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
    size_t before = delivered.regular;
    send_one((uint32_t)i, 30);
    sent.datagrams[i].bytes[6] = (uint8_t)told[i];
    sent.datagrams[i].bytes[7] = (uint8_t)(told[i] >> 8);
    take_in(&sent.datagrams[i]);
    assert_int_equal(delivered.regular, before + 1);
  }
}

static void without_a_decoder_data_is_delivered_and_parity_dropped(void **state) {
  uint8_t plain[LEN_MIN] = {0};
  (void)state;
  send_group(0, 100);
  for (size_t i = 0; i < sent.count; i++) {
    assert_int_equal(fec_decoder_input(NULL, sent.datagrams[i].bytes, sent.datagrams[i].len,
                                       check_payload, &delivered),
                     0);
  }
  assert_int_equal(delivered.regular, DATA);
  assert_int_equal(fec_decoder_input(NULL, plain, sizeof plain, take_anything, &delivered), 0);
  assert_int_equal(delivered.regular, DATA + 1);
}

static void a_datagram_larger_than_any_of_ours_is_delivered(void **state) {
  static uint8_t datagram[65507] = {[4] = FEC_DATA};
  (void)state;
  assert_int_equal(fec_decoder_input(decoder, datagram, sizeof datagram, take_anything, &delivered),
                   0);
  assert_int_equal(delivered.regular, 1);
  assert_int_equal(fec_decoder_held_bytes(decoder), 0);
}

// Loss; duplicates, and datagrams held back for up to 20 others, across groups' ends.
static void play_lossy(unsigned loss_percent, unsigned reorder_percent, size_t count) {
  for (uint32_t i = 0; i < count; i++) {
    send_one(i, LEN_MIN + random_next() % (random_next() % 2 ? LEN_MAX - LEN_MIN : 50));
  }
  struct {
    uint64_t due;
    size_t index;
  } held[64];
  size_t held_count = 0;
  for (size_t i = 0; i < sent.count; i++) {
    bool is_lost = random_next() % 100 < loss_percent;
    bool is_held = random_next() % 100 < reorder_percent && held_count < 64;
    for (size_t h = 0; h < held_count;) {
      if (held[h].due <= i) {
        take_in(&sent.datagrams[held[h].index]);
        held[h] = held[--held_count];
      } else {
        h++;
      }
    }
    if (is_lost) {
      continue;
    }
    if (is_held) {
      held[held_count].due = i + 1 + random_next() % 20;
      held[held_count++].index = i;
    } else {
      take_in(&sent.datagrams[i]);
    }
    if (random_next() % 100 < reorder_percent) {
      take_in(&sent.datagrams[i]);
    }
  }
  for (size_t h = 0; h < held_count; h++) {
    take_in(&sent.datagrams[held[h].index]);
  }
}

static size_t missing(size_t count) {
  size_t result = 0;
  for (size_t i = 0; i < count; i++) {
    result += delivered.times[i] == 0;
  }
  return result;
}

static void most_of_what_is_lost_at_random_is_recovered(void **state) {
  (void)state;
  play_lossy(5, 0, 20000);
  // Of 1,000 groups three lose more than three of their 13, and about ten datagrams for good.
  assert_true(missing(20000) < 60);
  assert_true(counts()->recovered > 800);
  assert_int_equal(counts()->late, 0);
  assert_int_equal(counts()->unusable, 0);
  assert_int_equal(counts()->misplaced, 0);
}

static void order_and_duplicates_do_not_keep_it_from_that(void **state) {
  (void)state;
  play_lossy(5, 10, 20000);
  assert_true(missing(20000) < 60);
  assert_true(counts()->recovered > 800);
  assert_int_equal(counts()->late, 0);
  assert_int_equal(counts()->unusable, 0);
  assert_true(counts()->duplicates > 2000);
}

static void it_all_works_with_other_numbers(void **state) {
  static const unsigned numbers[][2] = {{8, 2}, {1, 1}, {2, 1}, {20, 10}, {255, 1}, {128, 128}};
  (void)state;
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    set_up(NULL);
    forget_sent();
    use_numbers(numbers[i][0], numbers[i][1]);
    uint32_t group_size = numbers[i][0] + numbers[i][1];
    fec_encoder_start_at(encoder, UINT32_MAX / group_size * group_size - group_size);
    for (uint32_t group = 0; group < 3; group++) {
      send_group(group * numbers[i][0], 40 + group);
    }
    // The first of D = 1 has none before it, and so no parity.
    for (size_t at = 0; at < sent.count; at++) {
      uint32_t index = sequence_of(&sent.datagrams[at]) % group_size;
      if (index >= numbers[i][1] || (numbers[i][0] == 1 && at == 0)) {
        take_in(&sent.datagrams[at]);
      }
    }
    assert_int_equal(missing(3 * numbers[i][0]), 0);
    assert_int_equal(fec_decoder_held_bytes(decoder), 0);
  }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(a_group_goes_out_as_the_ecosystem_sends_it),
      TEST(large_and_small_datagrams_share_a_group),
      TEST(data_goes_out_at_once_and_parity_behind_the_last),
      TEST(after_a_gap_before_its_last_a_group_gets_no_parity),
      TEST(a_group_that_rested_gets_no_parity_and_the_next_one_does),
      TEST(one_datagram_a_group_gets_parity_when_it_follows_another),
      TEST(a_datagram_too_large_for_parity_is_sent_without),
      TEST(sequence_numbers_wrap_at_a_groups_end),
      TEST(sequence_numbers_wrap_without_parity_too),
      TEST(three_of_a_captured_group_are_recovered_byte_for_byte),
      TEST(of_a_whole_group_nothing_is_held),
      TEST(what_comes_after_its_recovery_is_delivered_again_as_its_own),
      TEST(a_duplicate_is_delivered_and_counts_once_towards_recovery),
      TEST(parity_may_come_first),
      TEST(late_datagrams_of_the_last_groups_help),
      TEST(what_is_held_is_bounded_whatever_comes),
      TEST(one_datagram_far_away_does_not_end_recovery),
      TEST(datagrams_far_away_between_others_do_not_end_recovery),
      TEST(a_sequence_that_goes_on_far_away_is_followed),
      TEST(a_sequence_number_not_in_use_is_delivered_and_not_kept),
      TEST(with_other_numbers_than_the_peers_data_flows_and_parity_is_no_use),
      TEST(recovered_sizes_that_can_not_be_are_dropped),
      TEST(datagrams_too_short_or_of_other_kinds_are_refused),
      TEST(the_size_that_data_tells_of_itself_is_not_asked),
      TEST(without_a_decoder_data_is_delivered_and_parity_dropped),
      TEST(a_datagram_larger_than_any_of_ours_is_delivered),
      TEST(most_of_what_is_lost_at_random_is_recovered),
      TEST(order_and_duplicates_do_not_keep_it_from_that),
      TEST(it_all_works_with_other_numbers),
  };
#undef TEST
  return cmocka_run_group_tests(tests, NULL, NULL);
}
