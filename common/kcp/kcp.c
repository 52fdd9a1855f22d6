#include "common/kcp/kcp.h"

#include <stdlib.h>
#include <string.h>

#include "common/kcp/little_endian.h"
#include "common/prefetch.h"

enum {
  FIRST_RTO_MS = 200,
  RTO_MIN_MS = 100,
  RTO_MIN_NODELAY_MS = 30,
  RTO_MAX_MS = 60000,
  PROBE_FIRST_MS = 7000,
  PROBE_MAX_MS = 120000,
  CONGESTION_MIN = 2,       // segments, of the threshold where slow start ends
  TELLS_WHEN_REOPENED = 3,  // a word that is lost costs the peer seven seconds
  OUTGOING_MIN_BYTES = 64,
  FLIGHTS_MIN = 4,  // kept while nothing is in flight
  ACKS_MIN = 8,
  SPARES_MAX = 256,
};

// One segment of ours: what it holds, and once it is in flight how it fares there.
struct outgoing {
  struct outgoing *next;  // while it waits
  struct outgoing *previous;
  uint16_t len;
  uint16_t capacity;
  uint8_t bytes[];
};
struct flight {
  struct outgoing *segment;  // NULL: acknowledged, though una has not passed it
  int64_t deadline_ms;
  uint32_t ts;
  uint32_t rto_ms;
  uint32_t fast_acks;  // of segments behind it, since its last transmission
  uint32_t transmissions;
};

// One segment of the peer's that was not read yet.
struct incoming {
  struct incoming *next;  // while it is in order
  size_t len;
  uint8_t bytes[];
};

struct ack {
  uint32_t sn;
  uint32_t ts;
};

// What was written waits in a list, and then is in flight in a ring by sn. What comes in stands in
// `unread` once it is in order, and before that in `ahead`, another ring by sn, which is there
// only while something stands in it.
struct kcp {
  const struct kcp_settings *settings;
  uint8_t *scratch;
  size_t headroom;
  kcp_output *output;
  void *owner;

  struct outgoing *waiting;
  struct outgoing *waiting_last;
  struct flight *flights;
  uint32_t flights_capacity;  // a power of two, or 0
  size_t unacked_bytes;
  uint32_t conv;
  uint32_t send_una;
  uint32_t send_next;
  uint32_t queued;
  uint32_t peer_window;

  uint32_t receive_next;
  struct incoming *unread;
  struct incoming *unread_last;
  struct incoming **ahead;
  uint32_t unread_count;
  uint32_t ahead_count;
  uint32_t announced;  // the window, in what was last sent

  struct ack *acks;  // those before last_ack that una may not cover
  struct ack last_ack;
  uint32_t acks_count;
  uint32_t acks_capacity;

  uint32_t clock_ahead_ms;
  uint32_t first_ts;  // of the very first transmission
  bool peer_is_there;
  bool has_round_trip;  // it has been measured, and may be 0
  int32_t srtt_ms;
  int32_t rtt_variation_ms;
  uint32_t rto_ms;
  uint32_t congestion_window;
  uint32_t congestion_threshold;
  uint32_t congestion_credit;  // segments acknowledged towards the next step
  uint32_t probe_wait_ms;

  bool ack_pending;  // last_ack is to be sent
  bool wants_flush;
  bool shows_loss;  // a segment has resend fast_acks
  bool was_asked;   // for our window
  bool is_dead;
  bool is_stalled;     // by the windows, at the last flush
  uint8_t tells_left;  // of our window, which was closed

  int64_t heard_ms;  // when something sound last came; INT64_MIN: never

  // KCP_NEVER when there is no cause. The first two may be too early, never too late.
  int64_t retransmit_at;
  int64_t early_at;  // when a segment that others overtook is taken as lost
  int64_t flush_by;  // an answer is owed, or memory was short
  int64_t acks_by;
  int64_t probe_at;
  int64_t tell_at;

  struct kcp_counts counts;
};

struct header {
  uint32_t conv;
  uint8_t command;
  uint16_t window;
  uint32_t ts;
  uint32_t sn;
  uint32_t una;
  uint32_t len;
};

// What one flush puts together. All its segments carry the same window and una.
struct datagram {
  struct kcp *kcp;
  int64_t now_ms;
  size_t used;
  uint16_t window;
};

// How far a is ahead of b, both of which wrap around.
static int32_t ahead_of(uint32_t a, uint32_t b) { return (int32_t)(a - b); }

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

static int64_t earlier(int64_t a, int64_t b) { return a < b ? a : b; }

static uint32_t in_flight(const struct kcp *kcp) { return kcp->send_next - kcp->send_una; }

static uint32_t segment_max_bytes(const struct kcp *kcp) {
  return kcp->settings->mtu - KCP_SEGMENT_HEADER_BYTES;
}

static uint32_t windows(const struct kcp *kcp) {
  return smaller(kcp->settings->send_window, kcp->peer_window);
}

static uint32_t send_window(const struct kcp *kcp) {
  uint32_t window = windows(kcp);
  return kcp->settings->congestion_window ? smaller(window, kcp->congestion_window) : window;
}

static uint32_t receive_window_free(const struct kcp *kcp) {
  uint32_t window = kcp->settings->receive_window;
  return window > kcp->unread_count ? window - kcp->unread_count : 0;
}

// --- Coming and going --------------------------------------------------------

struct kcp *kcp_new(uint32_t conv, const struct kcp_settings *settings, uint8_t *scratch,
                    size_t headroom, kcp_output *output, void *owner) {
  struct kcp *kcp = calloc(1, sizeof *kcp);
  if (kcp) {
    kcp->settings = settings;
    kcp->scratch = scratch;
    kcp->headroom = headroom;
    kcp->output = output;
    kcp->owner = owner;
    kcp->conv = conv;
    kcp->peer_window = KCP_FIRST_PEER_WINDOW;
    kcp->announced = settings->receive_window;
    kcp->rto_ms = FIRST_RTO_MS;
    kcp->congestion_window = 1;
    kcp->congestion_threshold = CONGESTION_MIN;
    kcp->heard_ms = INT64_MIN;
    kcp->retransmit_at = KCP_NEVER;
    kcp->early_at = KCP_NEVER;
    kcp->flush_by = KCP_NEVER;
    kcp->acks_by = KCP_NEVER;
    kcp->probe_at = KCP_NEVER;
    kcp->tell_at = KCP_NEVER;
  }
  return kcp;
}

static uint32_t ring_slots(const struct kcp *kcp) {
  uint32_t slots = 1;
  while (slots < kcp->settings->receive_window) {
    slots *= 2;
  }
  return slots;
}

static struct incoming **ring_slot(const struct kcp *kcp, uint32_t sn) {
  return &kcp->ahead[sn & (ring_slots(kcp) - 1)];
}

static struct flight *flight_of(const struct kcp *kcp, uint32_t sn) {
  return &kcp->flights[sn & (kcp->flights_capacity - 1)];
}

static void outgoing_free(const struct kcp *kcp, struct outgoing *segment) {
  struct kcp_spares *spares = kcp->settings->spares;
  if (segment && segment->capacity == OUTGOING_MIN_BYTES && spares && spares->count < SPARES_MAX) {
    segment->next = spares->first;
    spares->first = segment;
    spares->count++;
  } else {
    free(segment);
  }
}

static void free_outgoing(struct outgoing *segment) {
  while (segment) {
    struct outgoing *next = segment->next;
    free(segment);
    segment = next;
  }
}

void kcp_spares_free(struct kcp_spares *spares) {
  free_outgoing(spares->first);
  *spares = (struct kcp_spares){0};
}

void kcp_free(struct kcp *kcp) {
  if (!kcp) {
    return;
  }
  free_outgoing(kcp->waiting);
  for (uint32_t sn = kcp->send_una; sn != kcp->send_next; sn++) {
    free(flight_of(kcp, sn)->segment);
  }
  free(kcp->flights);
  while (kcp->unread) {
    struct incoming *next = kcp->unread->next;
    free(kcp->unread);
    kcp->unread = next;
  }
  for (uint32_t i = 0; kcp->ahead && i < ring_slots(kcp); i++) {
    free(kcp->ahead[i]);
  }
  free((void *)kcp->ahead);
  free(kcp->acks);
  free(kcp);
}

void kcp_start_at(struct kcp *kcp, uint32_t send_next, uint32_t receive_next) {
  kcp->send_una = send_next;
  kcp->send_next = send_next;
  kcp->receive_next = receive_next;
}

void kcp_hide_clock(struct kcp *kcp, uint32_t ahead_ms) { kcp->clock_ahead_ms = ahead_ms; }

bool kcp_peer_is_there(const struct kcp *kcp) { return kcp->peer_is_there; }

// As segments have it.
static uint32_t clock_of(const struct kcp *kcp, int64_t now_ms) {
  return (uint32_t)now_ms + kcp->clock_ahead_ms;
}

// --- What comes in -----------------------------------------------------------

static void read_header(const uint8_t *bytes, struct header *header) {
  header->conv = get_u32(bytes);
  header->command = bytes[4];
  header->window = get_u16(bytes + 6);
  header->ts = get_u32(bytes + 8);
  header->sn = get_u32(bytes + 12);
  header->una = get_u32(bytes + 16);
  header->len = get_u32(bytes + 20);
}

bool kcp_glance(const uint8_t *payload, size_t len, struct kcp_glance *glance) {
  struct header header;
  if (len < KCP_SEGMENT_HEADER_BYTES) {
    return false;
  }
  read_header(payload, &header);
  glance->conv = header.conv;
  glance->sn = header.sn;
  glance->una = header.una;
  glance->command = header.command;
  return true;
}

// `left` bytes are behind the header.
static bool is_sound(const struct kcp *kcp, const struct header *header, size_t left) {
  return header->conv == kcp->conv && header->command >= KCP_PUSH &&
         header->command <= KCP_TELL_WINDOW && header->len <= left &&
         (header->command != KCP_PUSH || header->len > 0);
}

static void take_peer_window(struct kcp *kcp, uint16_t window, int64_t now_ms) {
  if (window > 0) {
    kcp->probe_at = KCP_NEVER;
  } else if (kcp->peer_window > 0) {
    kcp->probe_wait_ms = PROBE_FIRST_MS;
    kcp->probe_at = now_ms + PROBE_FIRST_MS;
  }
  kcp->peer_window = window;
}

static bool is_under_way(const struct kcp *kcp, uint32_t sn) {
  return ahead_of(sn, kcp->send_una) >= 0 && ahead_of(sn, kcp->send_next) < 0 &&
         flight_of(kcp, sn)->segment;
}

// It has arrived, and is not sent again.
static void let_go(struct kcp *kcp, struct flight *flight) {
  if (flight->segment) {
    kcp->unacked_bytes -= flight->segment->len;
    outgoing_free(kcp, flight->segment);
    flight->segment = NULL;
  }
}

// Forgets what the peer has in order. What was never sent it cannot have.
static void take_una(struct kcp *kcp, uint32_t una) {
  if (ahead_of(una, kcp->send_una) <= 0 || ahead_of(una, kcp->send_next) > 0) {
    return;
  }
  for (; kcp->send_una != una; kcp->send_una++) {
    let_go(kcp, flight_of(kcp, kcp->send_una));
  }
  if (in_flight(kcp) > 0) {
    return;
  }
  kcp->retransmit_at = KCP_NEVER;
  kcp->early_at = KCP_NEVER;
  kcp->shows_loss = false;
  if (kcp->flights_capacity > FLIGHTS_MIN) {
    free(kcp->flights);
    kcp->flights = NULL;
    kcp->flights_capacity = 0;
  }
}

// Whether the transmission that an acknowledgement answers came after this segment's last one.
// Within a millisecond that is certain only of first transmissions, which keep the order of sn.
static bool was_overtaken(const struct flight *flight, uint32_t ack_ts) {
  int32_t later = ahead_of(ack_ts, flight->ts);
  return flight->segment && (flight->transmissions == 1 ? later >= 0 : later > 0);
}

// The first acknowledgement of a segment tells that those before it are late; the same one again
// tells nothing. A segment that resend of them passed is lost, and is sent again at once. Fewer
// may be mere reordering, which gets up to an interval to mend itself.
static void take_ack(struct kcp *kcp, uint32_t sn, uint32_t ts, int64_t now_ms) {
  uint32_t resend = kcp->settings->resend;
  if (!is_under_way(kcp, sn)) {
    return;
  }
  let_go(kcp, flight_of(kcp, sn));
  if (resend == 0) {
    return;
  }
  for (uint32_t before = kcp->send_una; before != sn; before++) {
    struct flight *flight = flight_of(kcp, before);
    if (was_overtaken(flight, ts)) {
      flight->fast_acks++;
      kcp->shows_loss |= flight->fast_acks >= resend;
      kcp->early_at = earlier(kcp->early_at, now_ms + kcp->settings->interval_ms);
    }
  }
}

// Appends to those that may have to be named, and forgets on the way those una has come to cover.
static void keep_ack(struct kcp *kcp, struct ack ack) {
  uint32_t kept = 0;
  if (kcp->acks_count == kcp->acks_capacity) {
    for (uint32_t i = 0; i < kcp->acks_count; i++) {
      if (ahead_of(kcp->acks[i].sn, kcp->receive_next) >= 0) {
        kcp->acks[kept++] = kcp->acks[i];
      }
    }
    kcp->acks_count = kept;
  }
  if (kcp->acks_count == kcp->acks_capacity) {
    uint32_t capacity = smaller(larger(2 * kcp->acks_capacity, ACKS_MIN),
                                larger(2 * kcp->settings->receive_window, ACKS_MIN));
    struct ack *acks = NULL;
    if (capacity > kcp->acks_capacity) {
      acks = realloc(kcp->acks, capacity * sizeof *acks);
    }
    if (!acks) {
      return;  // the peer will send that segment once more
    }
    kcp->acks = acks;
    kcp->acks_capacity = capacity;
  }
  kcp->acks[kcp->acks_count++] = ack;
}

// Only the last acknowledgement, and those of what is not in order, are ever sent: una covers the
// others.
static void queue_ack(struct kcp *kcp, uint32_t sn, uint32_t ts, int64_t now_ms) {
  if (!kcp->ack_pending) {
    kcp->acks_by = now_ms + kcp->settings->interval_ms;
  } else if (ahead_of(kcp->last_ack.sn, kcp->receive_next) >= 0) {
    keep_ack(kcp, kcp->last_ack);
  }
  kcp->ack_pending = true;
  kcp->last_ack.sn = sn;
  kcp->last_ack.ts = ts;
}

static void append_unread(struct kcp *kcp, struct incoming *segment) {
  segment->next = NULL;
  *(kcp->unread ? &kcp->unread_last->next : &kcp->unread) = segment;
  kcp->unread_last = segment;
  kcp->unread_count++;
  kcp->receive_next++;
}

// Brings what has come to be in order to the reader, as far as the window reaches.
static void put_in_order(struct kcp *kcp) {
  while (kcp->ahead && kcp->unread_count < kcp->settings->receive_window) {
    struct incoming **slot = ring_slot(kcp, kcp->receive_next);
    if (!*slot) {
      break;
    }
    append_unread(kcp, *slot);
    *slot = NULL;
    kcp->ahead_count--;
    if (kcp->ahead_count == 0) {
      free((void *)kcp->ahead);
      kcp->ahead = NULL;
    }
  }
}

static struct incoming *incoming_new(const uint8_t *bytes, size_t len) {
  struct incoming *segment = malloc(sizeof *segment + len);
  if (segment) {
    segment->next = NULL;
    segment->len = len;
    memcpy(segment->bytes, bytes, len);
  }
  return segment;
}

// A segment within the window that is not there yet.
static int store(struct kcp *kcp, uint32_t sn, const uint8_t *bytes, size_t len) {
  struct incoming *segment;
  bool in_order = sn == kcp->receive_next && kcp->unread_count < kcp->settings->receive_window;
  if (!in_order && !kcp->ahead) {
    kcp->ahead = (struct incoming **)calloc(ring_slots(kcp), sizeof(struct incoming *));
    if (!kcp->ahead) {
      return ERROR_MEMORY;
    }
  }
  segment = incoming_new(bytes, len);
  if (!segment) {
    return ERROR_MEMORY;
  }
  if (in_order) {
    append_unread(kcp, segment);
    put_in_order(kcp);
  } else {
    *ring_slot(kcp, sn) = segment;
    kcp->ahead_count++;
  }
  return 0;
}

static int take_push(struct kcp *kcp, const struct header *header, const uint8_t *bytes,
                     int64_t now_ms) {
  int32_t ahead = ahead_of(header->sn, kcp->receive_next);
  int result = 0;
  kcp->counts.segments_in++;
  if (ahead >= (int32_t)kcp->settings->receive_window) {
    kcp->counts.outside_window_in++;
    return 0;
  }
  kcp->tells_left = 0;  // the peer has understood that the window is open
  kcp->tell_at = KCP_NEVER;
  if (ahead < 0 || (kcp->ahead && *ring_slot(kcp, header->sn))) {
    kcp->counts.duplicates_in++;
  } else {
    result = store(kcp, header->sn, bytes, header->len);
  }
  if (result == 0) {
    queue_ack(kcp, header->sn, header->ts, now_ms);
  }
  return result;
}

static int take_segment(struct kcp *kcp, const struct header *header, const uint8_t *bytes,
                        bool regular, int64_t now_ms) {
  // One that was overtaken by news of its kind would close a window that has been opened since.
  if (regular && ahead_of(header->una, kcp->send_una) >= 0) {
    take_peer_window(kcp, header->window, now_ms);
  }
  take_una(kcp, header->una);
  switch (header->command) {
    case KCP_PUSH: return take_push(kcp, header, bytes, now_ms);
    case KCP_ACK: take_ack(kcp, header->sn, header->ts, now_ms); break;
    case KCP_ASK_WINDOW:
      kcp->was_asked = true;
      kcp->flush_by = earlier(kcp->flush_by, now_ms + kcp->settings->interval_ms);
      break;
    default: break;
  }
  return 0;
}

// One measured round trip. Shifts round downwards, as kcp-go's do.
static void take_round_trip(struct kcp *kcp, int32_t rtt) {
  int32_t difference = rtt - kcp->srtt_ms;
  uint32_t least = kcp->settings->nodelay ? RTO_MIN_NODELAY_MS : RTO_MIN_MS;
  kcp->has_round_trip = true;
  if (kcp->srtt_ms == 0) {
    kcp->srtt_ms = rtt;
    kcp->rtt_variation_ms = rtt >> 1;
  } else {
    kcp->srtt_ms += difference >> 3;
    difference = difference < 0 ? -difference : difference;
    difference -= kcp->rtt_variation_ms;
    kcp->rtt_variation_ms +=
        rtt < kcp->srtt_ms - kcp->rtt_variation_ms ? difference >> 5 : difference >> 2;
  }
  int64_t margin = 4 * (int64_t)kcp->rtt_variation_ms;
  int64_t interval = kcp->settings->interval_ms;
  int64_t rto = kcp->srtt_ms + (margin > interval ? margin : interval);
  kcp->rto_ms = rto < least ? least : rto > RTO_MAX_MS ? RTO_MAX_MS : (uint32_t)rto;
}

static void widen_congestion_window(struct kcp *kcp, uint32_t freed) {
  if (kcp->congestion_window >= windows(kcp)) {
    return;
  }
  if (kcp->congestion_window < kcp->congestion_threshold) {
    kcp->congestion_window++;
    return;
  }
  kcp->congestion_credit += freed;
  if (kcp->congestion_credit >= kcp->congestion_window) {
    kcp->congestion_credit = 0;
    kcp->congestion_window++;
  }
}

// Where the round trip is longer than our first timeout, the first segment has been sent again when
// its first transmission is acknowledged.
static bool is_our_clock(const struct kcp *kcp, uint32_t sn, uint32_t ts) {
  return ts == flight_of(kcp, sn)->ts || ts == kcp->first_ts;
}

int kcp_input(struct kcp *kcp, const uint8_t *payload, size_t len, bool regular, int64_t now_ms) {
  uint32_t una_before = kcp->send_una;
  int32_t round_trip = -1;
  int result = 0;
  while (result == 0 && len >= KCP_SEGMENT_HEADER_BYTES) {
    struct header header;
    read_header(payload, &header);
    payload += KCP_SEGMENT_HEADER_BYTES;
    len -= KCP_SEGMENT_HEADER_BYTES;
    if (!is_sound(kcp, &header, len)) {
      kcp->counts.malformed++;
      result = ERROR_MALFORMED;
      break;
    }
    // One that tells nothing new may answer what FEC recovered long after it was sent: taken for a
    // round trip, it would make the timeout several times as long as the path wants it.
    if (header.command == KCP_ACK && is_under_way(kcp, header.sn)) {
      round_trip = ahead_of(clock_of(kcp, now_ms), header.ts);
      kcp->peer_is_there |= is_our_clock(kcp, header.sn, header.ts);
    }
    kcp->heard_ms = now_ms;
    result = take_segment(kcp, &header, payload, regular, now_ms);
    payload += header.len;
    len -= header.len;
  }
  if (regular && round_trip >= 0) {
    take_round_trip(kcp, round_trip);
  }
  if (kcp->send_una != una_before) {
    widen_congestion_window(kcp, kcp->send_una - una_before);
  }
  if (kcp->shows_loss || (kcp->waiting && in_flight(kcp) < send_window(kcp))) {
    kcp->wants_flush = true;
  }
  return result;
}

size_t kcp_peek(const struct kcp *kcp, const uint8_t *payload, size_t len, uint8_t *out,
                size_t room) {
  uint32_t next = kcp->receive_next;
  size_t used = 0;
  while (!kcp->unread && len >= KCP_SEGMENT_HEADER_BYTES) {
    struct header header;
    read_header(payload, &header);
    payload += KCP_SEGMENT_HEADER_BYTES;
    len -= KCP_SEGMENT_HEADER_BYTES;
    if (!is_sound(kcp, &header, len)) {
      break;
    }
    if (header.command == KCP_PUSH && header.sn == next && header.len <= room - used) {
      memcpy(out + used, payload, header.len);
      used += header.len;
      next++;
    }
    payload += header.len;
    len -= header.len;
  }
  return used;
}

enum kcp_wanted kcp_wants(const struct kcp *kcp) {
  if (kcp->wants_flush) {
    return KCP_FLUSH;
  }
  return kcp->ack_pending && kcp->settings->ack_nodelay ? KCP_FLUSH_ACKS : KCP_NOTHING;
}

// --- What goes out -----------------------------------------------------------

static void emit(struct datagram *datagram) {
  struct kcp *kcp = datagram->kcp;
  if (datagram->used > 0) {
    kcp->output(kcp->scratch + kcp->headroom, datagram->used, kcp->owner);
    datagram->used = 0;
  }
}

// Room for a segment with its header written; its data, len bytes, is the caller's to copy.
static uint8_t *put_segment(struct datagram *datagram, enum kcp_command command, uint32_t ts,
                            uint32_t sn, uint32_t len) {
  struct kcp *kcp = datagram->kcp;
  if (datagram->used + KCP_SEGMENT_HEADER_BYTES + len > kcp->settings->mtu) {
    emit(datagram);
  }
  uint8_t *bytes = kcp->scratch + kcp->headroom + datagram->used;
  put_u32(bytes, kcp->conv);
  bytes[4] = (uint8_t)command;
  bytes[5] = 0;
  put_u16(bytes + 6, datagram->window);
  put_u32(bytes + 8, ts);
  put_u32(bytes + 12, sn);
  put_u32(bytes + 16, kcp->receive_next);
  put_u32(bytes + 20, len);
  datagram->used += KCP_SEGMENT_HEADER_BYTES + len;
  kcp->announced = datagram->window;
  return bytes + KCP_SEGMENT_HEADER_BYTES;
}

static void put_acks(struct datagram *datagram) {
  struct kcp *kcp = datagram->kcp;
  if (!kcp->ack_pending) {
    return;
  }
  for (uint32_t i = 0; i < kcp->acks_count; i++) {
    if (ahead_of(kcp->acks[i].sn, kcp->receive_next) >= 0) {
      put_segment(datagram, KCP_ACK, kcp->acks[i].ts, kcp->acks[i].sn, 0);
    }
  }
  put_segment(datagram, KCP_ACK, kcp->last_ack.ts, kcp->last_ack.sn, 0);
  free(kcp->acks);  // on a path that keeps the order there are none
  kcp->acks = NULL;
  kcp->acks_count = 0;
  kcp->acks_capacity = 0;
  kcp->ack_pending = false;
  kcp->acks_by = KCP_NEVER;
}

static void put_window_words(struct datagram *datagram) {
  struct kcp *kcp = datagram->kcp;
  if (datagram->now_ms >= kcp->probe_at) {
    put_segment(datagram, KCP_ASK_WINDOW, 0, 0, 0);
    kcp->probe_wait_ms = smaller(kcp->probe_wait_ms + kcp->probe_wait_ms / 2, PROBE_MAX_MS);
    kcp->probe_at = datagram->now_ms + kcp->probe_wait_ms;
  }
  bool tells = kcp->tells_left > 0 && datagram->now_ms >= kcp->tell_at;
  if (tells) {
    kcp->tells_left--;
    kcp->tell_at = kcp->tells_left > 0 ? datagram->now_ms + kcp->rto_ms : KCP_NEVER;
  }
  if (tells || kcp->was_asked) {
    put_segment(datagram, KCP_TELL_WINDOW, 0, 0, 0);
  }
  kcp->was_asked = false;
  kcp->flush_by = KCP_NEVER;
}

static bool is_silent(const struct kcp *kcp, int64_t now_ms) {
  return kcp->heard_ms == INT64_MIN || now_ms - kcp->heard_ms >= KCP_DEAD_SILENCE_MS;
}

static void transmit(struct datagram *datagram, uint32_t sn) {
  struct kcp *kcp = datagram->kcp;
  struct flight *flight = flight_of(kcp, sn);
  const struct outgoing *segment = flight->segment;
  flight->ts = clock_of(kcp, datagram->now_ms);
  if (kcp->counts.segments_out == 0) {
    kcp->first_ts = flight->ts;
  }
  flight->deadline_ms = datagram->now_ms + flight->rto_ms;
  flight->fast_acks = 0;
  flight->transmissions++;
  kcp->retransmit_at = earlier(kcp->retransmit_at, flight->deadline_ms);
  kcp->counts.segments_out++;
  if (flight->transmissions >= KCP_DEAD_TRANSMISSIONS && is_silent(kcp, datagram->now_ms)) {
    kcp->is_dead = true;
  }
  memcpy(put_segment(datagram, KCP_PUSH, flight->ts, sn, segment->len), segment->bytes,
         segment->len);
}

enum loss { LOSS_NONE, LOSS_OVERTAKEN, LOSS_EXPIRED };

static enum loss judge(const struct kcp *kcp, const struct flight *flight, bool early,
                       int64_t now_ms) {
  uint32_t resend = kcp->settings->resend;
  if (!flight->segment) {
    return LOSS_NONE;
  }
  if (flight->fast_acks > 0 && resend > 0 && (early || flight->fast_acks >= resend)) {
    return LOSS_OVERTAKEN;
  }
  return now_ms >= flight->deadline_ms ? LOSS_EXPIRED : LOSS_NONE;
}

static void narrow_congestion_window(struct kcp *kcp, bool overtaken, bool expired) {
  uint32_t window = send_window(kcp);
  if (overtaken) {
    kcp->congestion_threshold = larger(in_flight(kcp) / 2, CONGESTION_MIN);
    kcp->congestion_window = kcp->congestion_threshold + kcp->settings->resend;
    kcp->congestion_credit = 0;
  }
  if (expired) {
    kcp->congestion_threshold = larger(window / 2, CONGESTION_MIN);
    kcp->congestion_window = 1;
    kcp->congestion_credit = 0;
  }
}

// Sends again what is taken as lost, and finds when the next one will be.
static void retransmit(struct datagram *datagram, bool early) {
  struct kcp *kcp = datagram->kcp;
  bool overtaken = false;
  bool expired = false;
  kcp->retransmit_at = KCP_NEVER;
  kcp->shows_loss = false;
  for (uint32_t sn = kcp->send_una; sn != kcp->send_next; sn++) {
    struct flight *flight = flight_of(kcp, sn);
    switch (judge(kcp, flight, early, datagram->now_ms)) {
      case LOSS_OVERTAKEN:
        flight->rto_ms = kcp->rto_ms;
        kcp->counts.fast_retransmits++;
        overtaken = true;
        break;
      case LOSS_EXPIRED:
        flight->rto_ms += kcp->settings->nodelay ? kcp->rto_ms / 2 : kcp->rto_ms;
        expired = true;
        break;
      default:
        if (flight->segment) {
          kcp->retransmit_at = earlier(kcp->retransmit_at, flight->deadline_ms);
        }
        continue;
    }
    kcp->counts.retransmits++;
    transmit(datagram, sn);
  }
  narrow_congestion_window(kcp, overtaken, expired);
}

// How many of those that wait may go: what the window lets out, and there is memory for.
static uint32_t reserve_flights(struct kcp *kcp, uint32_t window) {
  uint32_t flying = in_flight(kcp);
  uint32_t more = window > flying ? smaller(window - flying, kcp->queued) : 0;
  uint32_t capacity = larger(kcp->flights_capacity, FLIGHTS_MIN);
  if (more == 0 || flying + more <= kcp->flights_capacity) {
    return more;
  }
  while (capacity < flying + more) {
    capacity *= 2;
  }
  struct flight *flights = malloc(capacity * sizeof *flights);
  if (!flights) {
    return kcp->flights_capacity - flying;
  }
  for (uint32_t sn = kcp->send_una; sn != kcp->send_next; sn++) {
    flights[sn & (capacity - 1)] = *flight_of(kcp, sn);
  }
  free(kcp->flights);
  kcp->flights = flights;
  kcp->flights_capacity = capacity;
  return more;
}

static void send_waiting(struct datagram *datagram, uint32_t window) {
  struct kcp *kcp = datagram->kcp;
  uint32_t count = reserve_flights(kcp, window);
  for (; count > 0 && kcp->waiting; count--) {
    struct outgoing *segment = kcp->waiting;
    struct flight flight = {.segment = segment, .rto_ms = kcp->rto_ms};
    kcp->waiting = segment->next;
    *(kcp->waiting ? &kcp->waiting->previous : &kcp->waiting_last) = NULL;
    kcp->queued--;
    *flight_of(kcp, kcp->send_next++) = flight;
    transmit(datagram, kcp->send_next - 1);
  }
  if (kcp->waiting && in_flight(kcp) < window) {  // memory is short
    kcp->flush_by = datagram->now_ms + kcp->settings->interval_ms;
  }
}

static struct datagram datagram_of(struct kcp *kcp, int64_t now_ms) {
  struct datagram datagram = {.kcp = kcp, .now_ms = now_ms};
  datagram.window = (uint16_t)smaller(receive_window_free(kcp), UINT16_MAX);
  return datagram;
}

void kcp_flush(struct kcp *kcp, int64_t now_ms) {
  struct datagram datagram = datagram_of(kcp, now_ms);
  uint32_t window = send_window(kcp);
  bool early = now_ms >= kcp->early_at;
  kcp->wants_flush = false;
  put_acks(&datagram);
  put_window_words(&datagram);
  if (early) {
    // Where something new follows, its acknowledgement will tell more.
    kcp->early_at = KCP_NEVER;
    early = !(kcp->waiting && in_flight(kcp) < window);
  }
  if (early || kcp->shows_loss || now_ms >= kcp->retransmit_at) {
    retransmit(&datagram, early);
  }
  send_waiting(&datagram, window);
  emit(&datagram);
  bool is_stalled = !kcp_takes_more(kcp);
  kcp->counts.window_stalls += is_stalled && !kcp->is_stalled;
  kcp->is_stalled = is_stalled;
}

void kcp_flush_acks(struct kcp *kcp, int64_t now_ms) {
  struct datagram datagram = datagram_of(kcp, now_ms);
  put_acks(&datagram);
  emit(&datagram);
}

int64_t kcp_due(const struct kcp *kcp, int64_t now_ms) {
  if (kcp->wants_flush) {
    return now_ms;
  }
  int64_t due = earlier(kcp->retransmit_at, kcp->early_at);
  due = earlier(due, earlier(kcp->flush_by, kcp->acks_by));
  due = earlier(due, earlier(kcp->probe_at, kcp->tell_at));
  return due;
}

bool kcp_is_dead(const struct kcp *kcp) { return kcp->is_dead; }

// --- Reading and writing -----------------------------------------------------

bool kcp_read(struct kcp *kcp, uint8_t **bytes, size_t *len) {
  if (!kcp->unread) {
    return false;
  }
  *bytes = kcp->unread->bytes;
  *len = kcp->unread->len;
  return true;
}

void kcp_read_done(struct kcp *kcp) {
  struct incoming *segment = kcp->unread;
  if (!segment) {
    return;
  }
  kcp->unread = segment->next;
  kcp->unread_count--;
  free(segment);
  put_in_order(kcp);
  if (kcp->announced == 0 && kcp->tells_left == 0 && receive_window_free(kcp) > 0) {
    kcp->tells_left = TELLS_WHEN_REOPENED;
    kcp->tell_at = INT64_MIN;
    kcp->wants_flush = true;
  }
}

bool kcp_takes_more(const struct kcp *kcp) {
  return (uint64_t)in_flight(kcp) + kcp->queued < windows(kcp);
}

// Most writes are small and are followed by others before the flush: room doubles up to the
// largest segment.
static uint16_t capacity_for(const struct kcp *kcp, size_t len) {
  size_t most = segment_max_bytes(kcp);
  size_t capacity = OUTGOING_MIN_BYTES;
  while (capacity < len) {
    capacity *= 2;
  }
  return (uint16_t)(capacity < most ? capacity : most);
}

static struct outgoing *outgoing_new(const struct kcp *kcp, size_t len) {
  uint16_t capacity = capacity_for(kcp, len);
  struct kcp_spares *spares = kcp->settings->spares;
  struct outgoing *segment;
  if (capacity == OUTGOING_MIN_BYTES && spares && spares->first) {
    segment = spares->first;
    spares->first = segment->next;
    spares->count--;
  } else {
    segment = malloc(sizeof *segment + capacity);
  }
  if (segment) {
    memset(segment, 0, sizeof *segment);
    segment->capacity = capacity;
  }
  return segment;
}

static void fill(struct outgoing *segment, const uint8_t *bytes, size_t len) {
  memcpy(segment->bytes + segment->len, bytes, len);
  segment->len = (uint16_t)(segment->len + len);
}

// How much of len bytes the last segment may still take.
static size_t room_in_last(const struct kcp *kcp, size_t len) {
  size_t room = kcp->waiting ? segment_max_bytes(kcp) - kcp->waiting_last->len : 0;
  return len < room ? len : room;
}

// Has the last segment hold len bytes more than it does.
static int reserve_in_last(struct kcp *kcp, size_t len) {
  struct outgoing *last = kcp->waiting_last;
  if (last->len + len <= last->capacity) {
    return 0;
  }
  uint16_t capacity = capacity_for(kcp, last->len + len);
  struct outgoing *grown = realloc(last, sizeof *grown + capacity);
  if (!grown) {
    return ERROR_MEMORY;
  }
  grown->capacity = capacity;
  kcp->waiting_last = grown;
  *(grown->previous ? &grown->previous->next : &kcp->waiting) = grown;
  return 0;
}

// Cuts bytes into a list of segments of its own. NULL when out of memory.
static struct outgoing *cut(const struct kcp *kcp, const uint8_t *bytes, size_t len,
                            struct outgoing **last, uint32_t *count) {
  struct outgoing *first = NULL;
  *last = NULL;
  *count = 0;
  while (len > 0) {
    size_t most = segment_max_bytes(kcp);
    size_t part = len < most ? len : most;
    struct outgoing *segment = outgoing_new(kcp, part);
    if (!segment) {
      free_outgoing(first);
      return NULL;
    }
    fill(segment, bytes, part);
    segment->previous = *last;
    *(*last ? &(*last)->next : &first) = segment;
    *last = segment;
    ++*count;
    bytes += part;
    len -= part;
  }
  return first;
}

int kcp_write(struct kcp *kcp, const uint8_t *bytes, size_t len) {
  size_t begun = room_in_last(kcp, len);
  struct outgoing *first = NULL;
  struct outgoing *last = NULL;
  uint32_t count = 0;
  if (len == 0) {
    return 0;
  }
  if (begun > 0 && reserve_in_last(kcp, begun) != 0) {
    return ERROR_MEMORY;
  }
  if (begun < len) {
    first = cut(kcp, bytes + begun, len - begun, &last, &count);
    if (!first) {
      return ERROR_MEMORY;
    }
  }
  if (begun > 0) {
    fill(kcp->waiting_last, bytes, begun);
  }
  if (first) {
    first->previous = kcp->waiting_last;
    *(kcp->waiting_last ? &kcp->waiting_last->next : &kcp->waiting) = first;
    kcp->waiting_last = last;
    kcp->queued += count;
  }
  kcp->unacked_bytes += len;
  kcp->wants_flush = true;
  return 0;
}

// --- What there is to tell ---------------------------------------------------

void kcp_describe(const struct kcp *kcp, struct kcp_state *state) {
  state->conv = kcp->conv;
  state->has_round_trip = kcp->has_round_trip;
  state->srtt_ms = (uint32_t)kcp->srtt_ms;
  state->rto_ms = kcp->rto_ms;
  state->peer_window = kcp->peer_window;
  state->receive_window_free = receive_window_free(kcp);
  state->in_flight = in_flight(kcp);
  state->queued = kcp->queued;
  state->unacked_bytes = kcp->unacked_bytes;
}

const struct kcp_counts *kcp_counts(const struct kcp *kcp) { return &kcp->counts; }

void kcp_prefetch(const struct kcp *kcp) { prefetch(kcp, sizeof *kcp); }
