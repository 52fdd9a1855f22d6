#include "common/kcp/fec.h"

#include <stdlib.h>
#include <string.h>

#include "common/kcp/little_endian.h"
#include "common/prefetch.h"

enum {
  KIND_AT = 4,
  SHARD_AT = 6,  // what the code covers: the size, which counts itself, and the payload
  SIZE_BYTES = FEC_HEADER_BYTES - SHARD_AT,
  SHARD_MAX_BYTES = FEC_DATAGRAM_MAX_BYTES - SHARD_AT,
  PAYLOAD_MIN_BYTES = 24,  // one header of the layer above; what is shorter was never sent
  SHARD_MIN_BYTES = SIZE_BYTES + PAYLOAD_MIN_BYTES,
  SMALL_SHARD_BYTES = 250,  // what a group without large datagrams is given room for
  // A group as far as this from the newest one, ahead or behind, is believed only when a second
  // datagram in a row says the same: one forged must not end all recovery.
  JUMP_GROUPS = 64,
  // For so many datagrams after one that was misplaced nothing is recovered. A peer with other
  // shard numbers misplaces some in nearly every group of ours, and what was made again of its
  // shards would be taken for data: the code makes what all of them have in common, as the
  // header's first bytes, come out right.
  DISTRUSTED_DATAGRAMS = 256,
};

static void put_header(uint8_t *datagram, uint32_t sequence, uint16_t kind) {
  put_u32(datagram, sequence);
  put_u16(datagram + KIND_AT, kind);
}

// The sequence numbers in use are whole groups of them: those from here on are not.
static uint32_t sequence_end(unsigned group_size) { return UINT32_MAX / group_size * group_size; }

// --- Sending ---------------------------------------------------------------------------------

struct fec_encoder {
  const struct reed_solomon *code;
  uint32_t end;
  uint32_t next;
  unsigned count;    // data datagrams of the open group so far
  bool is_given_up;  // it gets no parity
  bool has_sent;
  int64_t last_ms;
  // The parity of what there is so far, each shard behind room for its header; NULL while there
  // is none.
  uint8_t *parity;
  size_t room;     // for each shard
  size_t longest;  // of the group
};

struct fec_encoder *fec_encoder_new(const struct reed_solomon *code) {
  struct fec_encoder *encoder = calloc(1, sizeof *encoder);
  if (encoder) {
    encoder->code = code;
    encoder->end = sequence_end(reed_solomon_data(code) + reed_solomon_parity(code));
  }
  return encoder;
}

static void drop_parity(struct fec_encoder *encoder) {
  free(encoder->parity);
  encoder->parity = NULL;
  encoder->room = 0;
  encoder->longest = 0;
}

void fec_encoder_free(struct fec_encoder *encoder) {
  if (encoder) {
    drop_parity(encoder);
    free(encoder);
  }
}

void fec_encoder_start_at(struct fec_encoder *encoder, uint32_t sequence) {
  encoder->next = sequence;
}

static uint8_t *parity_datagram(const struct fec_encoder *encoder, unsigned index) {
  return encoder->parity + index * (SHARD_AT + encoder->room);
}

// Sees to room for shards of len bytes. Small at first: most groups of a connection that says
// little are acknowledgements alone.
static bool make_room(struct fec_encoder *encoder, size_t len) {
  if (len <= encoder->room) {
    return true;
  }
  struct fec_encoder before = *encoder;
  unsigned count = reed_solomon_parity(encoder->code);
  size_t room = len <= SMALL_SHARD_BYTES ? SMALL_SHARD_BYTES : SHARD_MAX_BYTES;
  uint8_t *parity = calloc(count, SHARD_AT + room);
  if (!parity) {
    return false;
  }
  encoder->parity = parity;
  encoder->room = room;
  for (unsigned i = 0; i < count && before.parity; i++) {
    memcpy(parity_datagram(encoder, i), parity_datagram(&before, i), SHARD_AT + before.longest);
  }
  free(before.parity);
  return true;
}

static void add_to_parity(struct fec_encoder *encoder, const uint8_t *shard, size_t len) {
  uint8_t *parity[REED_SOLOMON_SHARDS_MAX];
  if (len > SHARD_MAX_BYTES || !make_room(encoder, len)) {
    encoder->is_given_up = true;
    drop_parity(encoder);
    return;
  }
  for (unsigned i = 0; i < reed_solomon_parity(encoder->code); i++) {
    parity[i] = parity_datagram(encoder, i) + SHARD_AT;
  }
  reed_solomon_add(encoder->code, encoder->count, shard, len, parity);
  if (len > encoder->longest) {
    encoder->longest = len;
  }
}

static uint32_t take_sequence(struct fec_encoder *encoder) {
  uint32_t sequence = encoder->next;
  encoder->next = sequence + 1 == encoder->end ? 0 : sequence + 1;
  return sequence;
}

// The sequence numbers of a group's parity are used up even if there is none.
static void end_group(struct fec_encoder *encoder, fec_output *output, void *owner) {
  for (unsigned i = 0; i < reed_solomon_parity(encoder->code); i++) {
    uint32_t sequence = take_sequence(encoder);
    if (!encoder->is_given_up) {
      uint8_t *datagram = parity_datagram(encoder, i);
      put_header(datagram, sequence, FEC_PARITY);
      output(datagram, SHARD_AT + encoder->longest, owner);
    }
  }
  drop_parity(encoder);
  encoder->count = 0;
  encoder->is_given_up = false;
}

void fec_encoder_send(struct fec_encoder *encoder, uint8_t *buffer, size_t len, int64_t now_ms,
                      fec_output *output, void *owner) {
  bool is_last = encoder->count + 1 == reed_solomon_data(encoder->code);
  bool in_time = encoder->has_sent && now_ms - encoder->last_ms < FEC_PARITY_GAP_MS;
  put_header(buffer, take_sequence(encoder), FEC_DATA);
  put_u16(buffer + SHARD_AT, (uint16_t)(SIZE_BYTES + len));
  // Only the last gap of a group counts: by then parity would come too late to be of use.
  encoder->is_given_up = encoder->is_given_up || (is_last && !in_time);
  if (!encoder->is_given_up) {
    add_to_parity(encoder, buffer + SHARD_AT, SIZE_BYTES + len);
  }
  encoder->count++;
  encoder->has_sent = true;
  encoder->last_ms = now_ms;
  output(buffer, FEC_HEADER_BYTES + len, owner);
  if (is_last) {
    end_group(encoder, output, owner);
  }
}

void fec_encoder_rest(struct fec_encoder *encoder) {
  if (encoder->count > 0) {
    encoder->is_given_up = true;
    drop_parity(encoder);
  }
}

// --- Receiving -------------------------------------------------------------------------------

struct shard {
  uint16_t len;
  uint8_t bytes[];
};

struct group {
  bool is_used;
  bool is_done;  // nothing is to be recovered any more, or it can't be
  uint32_t number;
  unsigned data_seen;
  unsigned held;          // in shards
  struct shard **shards;  // by index, D + P; NULL before the first and when done
  uint8_t seen[REED_SOLOMON_SHARDS_MAX / 8];
};

// Where a datagram belongs.
struct place {
  uint32_t sequence;
  uint32_t group;
  unsigned index;
};

struct fec_decoder {
  const struct reed_solomon *code;
  unsigned data;
  unsigned group_size;
  uint32_t end;
  bool has_newest;
  uint32_t newest;  // group
  bool has_suspect;
  struct place suspect;  // the last datagram, far from the newest group
  unsigned distrusted;   // datagrams to come from which nothing is recovered
  struct group groups[FEC_GROUPS_KEPT];
  size_t held_bytes;
  struct fec_counts counts;
};

struct fec_decoder *fec_decoder_new(const struct reed_solomon *code) {
  struct fec_decoder *decoder = calloc(1, sizeof *decoder);
  if (decoder) {
    decoder->code = code;
    decoder->data = reed_solomon_data(code);
    decoder->group_size = decoder->data + reed_solomon_parity(code);
    decoder->end = sequence_end(decoder->group_size);
  }
  return decoder;
}

// Gives up what the group holds.
static void finish(struct fec_decoder *decoder, struct group *group) {
  for (unsigned i = 0; i < decoder->group_size && group->shards; i++) {
    if (group->shards[i]) {
      decoder->held_bytes -= sizeof(struct shard) + group->shards[i]->len;
      free(group->shards[i]);
    }
  }
  free(group->shards);
  group->shards = NULL;
  group->is_done = true;
}

void fec_decoder_rest(struct fec_decoder *decoder) {
  for (unsigned i = 0; i < FEC_GROUPS_KEPT; i++) {
    finish(decoder, &decoder->groups[i]);
  }
}

void fec_decoder_free(struct fec_decoder *decoder) {
  if (decoder) {
    fec_decoder_rest(decoder);
    free(decoder);
  }
}

size_t fec_decoder_held_bytes(const struct fec_decoder *decoder) { return decoder->held_bytes; }

const struct fec_counts *fec_decoder_counts(const struct fec_decoder *decoder) {
  return &decoder->counts;
}

// How far group is ahead of other, the shorter way around.
static int64_t distance(const struct fec_decoder *decoder, uint32_t group, uint32_t other) {
  int64_t groups = decoder->end / decoder->group_size;
  int64_t ahead = ((int64_t)group - other + groups) % groups;
  return ahead > groups / 2 ? ahead - groups : ahead;
}

static bool is_far(int64_t groups) { return groups > JUMP_GROUPS || groups < -JUMP_GROUPS; }

// Whether a datagram that is far from the newest group is to be believed.
static bool is_confirmed(struct fec_decoder *decoder, const struct place *place) {
  bool confirmed = decoder->has_suspect && place->sequence != decoder->suspect.sequence &&
                   !is_far(distance(decoder, place->group, decoder->suspect.group));
  decoder->has_suspect = !confirmed;
  decoder->suspect = *place;
  return confirmed;
}

// Makes group the newest, and lets go of those that are then too old, or of another stretch of
// the sequence.
static void move_to(struct fec_decoder *decoder, uint32_t group) {
  decoder->has_newest = true;
  decoder->newest = group;
  for (unsigned i = 0; i < FEC_GROUPS_KEPT; i++) {
    struct group *kept = &decoder->groups[i];
    int64_t ahead = distance(decoder, kept->number, group);
    if (kept->is_used && (ahead > 0 || ahead <= -FEC_GROUPS_KEPT)) {
      finish(decoder, kept);
      *kept = (struct group){0};
    }
  }
}

// The group among those kept; there is room for each of the last FEC_GROUPS_KEPT.
static struct group *find_group(struct fec_decoder *decoder, uint32_t number) {
  struct group *unused = NULL;
  for (unsigned i = 0; i < FEC_GROUPS_KEPT; i++) {
    struct group *group = &decoder->groups[i];
    if (group->is_used && group->number == number) {
      return group;
    }
    unused = group->is_used ? unused : group;
  }
  if (unused) {
    *unused = (struct group){.is_used = true, .number = number};
  }
  return unused;
}

// The group that a datagram is of; NULL when that is not kept, and counted.
static struct group *group_at(struct fec_decoder *decoder, const struct place *place) {
  int64_t ahead = decoder->has_newest ? distance(decoder, place->group, decoder->newest) : 0;
  bool is_believed = place->sequence < decoder->end;
  if (is_believed && is_far(ahead)) {
    is_believed = is_confirmed(decoder, place);
  } else if (is_believed) {
    decoder->has_suspect = false;
    is_believed = ahead > -FEC_GROUPS_KEPT;
  }
  if (!is_believed) {
    decoder->counts.late++;
    return NULL;
  }
  if (!decoder->has_newest || ahead > 0 || is_far(ahead)) {
    move_to(decoder, place->group);
  }
  return find_group(decoder, place->group);
}

// A copy, since the layer above may write to what it is given. False when out of memory.
static bool hold(struct fec_decoder *decoder, struct group *group, unsigned index,
                 const uint8_t *bytes, size_t len) {
  if (!group->shards) {
    size_t table_bytes = decoder->group_size * sizeof(struct shard *);
    group->shards = malloc(table_bytes);  // which is at hand where calloc would look for it
    if (group->shards) {
      memset(group->shards, 0, table_bytes);
    }
  }
  struct shard *shard = group->shards ? malloc(sizeof *shard + len) : NULL;
  if (!shard) {
    return false;
  }
  shard->len = (uint16_t)len;
  memcpy(shard->bytes, bytes, len);
  group->shards[index] = shard;
  group->held++;
  decoder->held_bytes += sizeof *shard + len;
  return true;
}

static void distrust(struct fec_decoder *decoder) {
  decoder->distrusted = DISTRUSTED_DATAGRAMS;
  fec_decoder_rest(decoder);
}

// Takes the datagram to its group; returns that if it is to be recovered now.
static struct group *take(struct fec_decoder *decoder, const uint8_t *datagram, size_t len,
                          bool is_data) {
  uint32_t sequence = get_u32(datagram);
  struct place place = {.sequence = sequence,
                        .group = sequence / decoder->group_size,
                        .index = sequence % decoder->group_size};
  struct group *group = group_at(decoder, &place);
  if (!group) {
    return NULL;
  }
  uint8_t *seen = &group->seen[place.index / 8];
  uint8_t bit = (uint8_t)(1u << place.index % 8);
  if (is_data != (place.index < decoder->data)) {
    decoder->counts.misplaced++;
    distrust(decoder);
    return NULL;
  }
  if (*seen & bit) {
    decoder->counts.duplicates++;
    return NULL;
  }
  *seen |= bit;
  group->data_seen += is_data;
  if (decoder->distrusted > 0) {
    decoder->distrusted--;
    group->is_done = true;
  }
  if (group->is_done) {
    return NULL;
  }
  if (group->data_seen == decoder->data || len > FEC_DATAGRAM_MAX_BYTES ||
      !hold(decoder, group, place.index, datagram + SHARD_AT, len - SHARD_AT)) {
    // A group that is whole has nothing to recover; one with a hole that is ours is left to the
    // layer above, as any other loss.
    finish(decoder, group);
    return NULL;
  }
  return group->held == decoder->data ? group : NULL;
}

// Sets shards to what is there, and out to where what is missing goes, all of len bytes, in one
// piece of memory that the caller frees. NULL when out of memory, or nothing is missing.
static uint8_t *lay_out(const struct fec_decoder *decoder, const struct group *group, size_t len,
                        const uint8_t *shards[], uint8_t *out[]) {
  size_t count = 0;
  for (unsigned i = 0; i < decoder->group_size; i++) {
    const struct shard *shard = group->shards[i];
    count += shard ? shard->len < len : i < decoder->data;
  }
  uint8_t *memory = count > 0 ? calloc(count, len) : NULL;
  uint8_t *at = memory;
  for (unsigned i = 0; i < decoder->group_size && memory; i++) {
    const struct shard *shard = group->shards[i];
    shards[i] = shard ? shard->bytes : NULL;
    if (shard && shard->len < len) {
      memcpy(at, shard->bytes, shard->len);
      shards[i] = at;
      at += len;
    } else if (!shard && i < decoder->data) {
      out[i] = at;
      at += len;
    }
  }
  return memory;
}

// Of a peer with other numbers, or a hostile one, what was recovered may be anything.
static void deliver_recovered(struct fec_decoder *decoder, uint8_t *shard, size_t len,
                              fec_payload *deliver, void *owner) {
  size_t size = get_u16(shard);
  if (size < SHARD_MIN_BYTES || size > len) {
    decoder->counts.unusable++;
    return;
  }
  decoder->counts.recovered++;
  deliver(shard + SIZE_BYTES, size - SIZE_BYTES, false, owner);
}

static void recover(struct fec_decoder *decoder, struct group *group, fec_payload *deliver,
                    void *owner) {
  const uint8_t *shards[REED_SOLOMON_SHARDS_MAX];
  uint8_t *out[REED_SOLOMON_SHARDS_MAX] = {NULL};
  size_t len = SHARD_MIN_BYTES;  // that of the longest, then; none is shorter
  for (unsigned i = 0; i < decoder->group_size; i++) {
    if (group->shards[i] && group->shards[i]->len > len) {
      len = group->shards[i]->len;
    }
  }
  uint8_t *memory = lay_out(decoder, group, len, shards, out);
  bool recovered = memory && reed_solomon_recover(decoder->code, shards, len, out) == 0;
  finish(decoder, group);
  for (unsigned i = 0; i < decoder->data && recovered; i++) {
    if (out[i]) {
      group->seen[i / 8] |= (uint8_t)(1u << i % 8);
      deliver_recovered(decoder, out[i], len, deliver, owner);
    }
  }
  free(memory);
}

int fec_decoder_input(struct fec_decoder *decoder, uint8_t *datagram, size_t len,
                      fec_payload *deliver, void *owner) {
  unsigned kind = len < PAYLOAD_MIN_BYTES ? FEC_OUT_OF_BAND : get_u16(datagram + KIND_AT);
  if (kind != FEC_DATA && kind != FEC_PARITY && kind != FEC_OUT_OF_BAND) {
    deliver(datagram, len, true, owner);
    return 0;
  }
  if (kind == FEC_OUT_OF_BAND || len < SHARD_AT + SHARD_MIN_BYTES) {
    return ERROR_MALFORMED;
  }
  bool is_data = kind == FEC_DATA;
  struct group *group = NULL;
  if (decoder) {
    decoder->counts.parity_in += !is_data;
    group = take(decoder, datagram, len, is_data);
  }
  if (is_data) {
    deliver(datagram + FEC_HEADER_BYTES, len - FEC_HEADER_BYTES, true, owner);
  }
  if (group) {
    recover(decoder, group, deliver, owner);
  }
  return 0;
}

void fec_decoder_prefetch(const struct fec_decoder *decoder) { prefetch(decoder, sizeof *decoder); }

void fec_encoder_prefetch(const struct fec_encoder *encoder) { prefetch(encoder, sizeof *encoder); }
