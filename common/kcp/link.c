#include "common/kcp/link.h"

#include <stdlib.h>
#include <string.h>

#include "common/kcp/little_endian.h"
#include "common/prefetch.h"

// After so long without a datagram the open FEC group is given up, and its memory with it: its
// parity would come too late for anybody. That waits for the next flush, since to wake a connection
// that is idle costs more than the memory, which the group that was given up does without from then
// on.
enum { REST_AFTER_MS = 1000 };

struct link {
  const struct link_settings *settings;
  const struct link_events *events;
  void *owner;
  struct kcp *kcp;
  struct smux *smux;
  struct smux_events stream_events;
  struct fec_encoder *encoder;  // NULL without FEC, as is the decoder
  struct fec_decoder *decoder;
  int64_t now_ms;    // while something is taken in or sent
  int64_t heard_ms;  // when a datagram came last
  int64_t rest_ms;   // from when on the encoder is to rest; LINK_NEVER while it does
  bool dirty;
  int failed;  // of what came with the payloads at hand
  uint64_t datagrams_in;
  uint64_t datagrams_out;
  uint64_t malformed_in;
};

void link_touch(struct link *link) {
  if (!link->dirty) {
    link->dirty = true;
    link->events->on_dirty(link->owner);
  }
}

// --- Downward ------------------------------------------------------------------------------

static void on_datagram(uint8_t *datagram, size_t len, void *owner) {
  struct link *link = owner;
  link->datagrams_out++;
  link->events->output(datagram, len, link->owner);
}

static void on_kcp_output(uint8_t *bytes, size_t len, void *owner) {
  struct link *link = owner;
  if (!link->encoder) {
    on_datagram(bytes, len, link);
    return;
  }
  link->rest_ms = link->now_ms + REST_AFTER_MS;
  fec_encoder_send(link->encoder, bytes - FEC_HEADER_BYTES, len, link->now_ms, on_datagram, link);
}

static bool carrier_takes_more(void *owner) { return kcp_takes_more(((struct link *)owner)->kcp); }

static int carrier_write(const uint8_t *bytes, size_t len, void *owner) {
  return kcp_write(((struct link *)owner)->kcp, bytes, len);
}

// --- Upward ----------------------------------------------------------------------------------

static void *on_open(struct smux_stream *stream, void *owner) {
  struct link *link = owner;
  return link->events->streams.on_open(stream, link->owner);
}

static void on_payload(uint8_t *payload, size_t len, bool regular, void *owner) {
  struct link *link = owner;
  int error = kcp_input(link->kcp, payload, len, regular, link->now_ms);
  if (error == ERROR_MALFORMED) {
    link->malformed_in++;
  } else if (error != 0) {
    link->failed = error;
  }
}

// What has come in order goes to the streams, as far as they hold it.
static int read_all(struct link *link, int64_t now_ms) {
  uint8_t *bytes;
  size_t len;
  while (smux_takes_input(link->smux) && kcp_read(link->kcp, &bytes, &len)) {
    int error = smux_input(link->smux, bytes, len, now_ms);
    kcp_read_done(link->kcp);
    if (error != 0) {
      return error;
    }
  }
  return 0;
}

// What waits for the peer to be there goes on when it is.
static int go_on(struct link *link, int64_t now_ms) {
  if (kcp_peer_is_there(link->kcp)) {
    return smux_release(link->smux, now_ms);
  }
  // Its sign of life was sent again before it was acknowledged, and which of the two arrived can't
  // be told. The next one waits for as long as the path wants it.
  if (link_is_settled(link)) {
    smux_hold(link->smux);
  }
  return 0;
}

static int take_in(struct link *link, int64_t now_ms) {
  int error = smux_is_held(link->smux) ? go_on(link, now_ms) : 0;
  return error != 0 ? error : read_all(link, now_ms);
}

void link_prefetch(const struct link *link) { prefetch(link, sizeof *link); }

void link_prefetch_layers(const struct link *link) {
  kcp_prefetch(link->kcp);
  smux_prefetch(link->smux);
  fec_decoder_prefetch(link->decoder);
  fec_encoder_prefetch(link->encoder);
}

int link_input(struct link *link, uint8_t *datagram, size_t len, int64_t now_ms) {
  link->datagrams_in++;
  link->now_ms = now_ms;
  if (link->decoder && now_ms - link->heard_ms >= REST_AFTER_MS) {
    fec_decoder_rest(link->decoder);
  }
  link->heard_ms = now_ms;
  link->failed = 0;
  if (fec_decoder_input(link->decoder, datagram, len, on_payload, link) != 0) {
    link->malformed_in++;
    return 0;
  }
  int error = link->failed != 0 ? link->failed : take_in(link, now_ms);
  if (kcp_wants(link->kcp) != KCP_NOTHING || smux_has_output(link->smux)) {
    link_touch(link);
  }
  return error;
}

static unsigned kind_of(const uint8_t *datagram, size_t len) {
  return len >= FEC_HEADER_BYTES ? get_u16(datagram + 4) : 0;
}

bool link_glance(const uint8_t *datagram, size_t len, struct kcp_glance *glance) {
  switch (kind_of(datagram, len)) {
    case FEC_DATA: return kcp_glance(datagram + FEC_HEADER_BYTES, len - FEC_HEADER_BYTES, glance);
    case FEC_PARITY:
    case FEC_OUT_OF_BAND: return false;
    default: return kcp_glance(datagram, len, glance);
  }
}

void *link_peek(const struct link *link, const uint8_t *datagram, size_t len,
                uint8_t out[FEC_DATAGRAM_MAX_BYTES], const uint8_t **payload, size_t *payload_len) {
  size_t header = kind_of(datagram, len) == FEC_DATA ? FEC_HEADER_BYTES : 0;
  if (kind_of(datagram, len) == FEC_PARITY || kind_of(datagram, len) == FEC_OUT_OF_BAND) {
    return NULL;
  }
  size_t brought =
      kcp_peek(link->kcp, datagram + header, len - header, out, FEC_DATAGRAM_MAX_BYTES);
  return smux_peek(link->smux, out, brought, payload, payload_len);
}

bool link_is_parity(const uint8_t *datagram, size_t len) {
  return kind_of(datagram, len) == FEC_PARITY;
}

// --- Time --------------------------------------------------------------------------------------

int link_flush(struct link *link, int64_t now_ms) {
  link->now_ms = now_ms;
  if (link->rest_ms <= now_ms) {
    link->rest_ms = LINK_NEVER;
    fec_encoder_rest(link->encoder);
  }
  // First, since what a stream says to what comes may be sent at once.
  int error = read_all(link, now_ms);
  if (error == 0) {
    error = smux_pump(link->smux);
  }
  link->dirty = false;
  switch (kcp_wants(link->kcp)) {
    case KCP_FLUSH: kcp_flush(link->kcp, now_ms); break;
    case KCP_FLUSH_ACKS: kcp_flush_acks(link->kcp, now_ms); break;
    case KCP_NOTHING: break;
  }
  return error;
}

static int64_t earlier(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t link_due(const struct link *link, int64_t now_ms) {
  return earlier(kcp_due(link->kcp, now_ms), smux_due(link->smux));
}

int link_tick(struct link *link, int64_t now_ms) {
  link->now_ms = now_ms;
  if (smux_due(link->smux) <= now_ms && !smux_tick(link->smux, now_ms)) {
    return ERROR_EXPIRED;
  }
  if (kcp_is_dead(link->kcp)) {
    return ERROR_EXPIRED;
  }
  bool kcp_is_due = kcp_due(link->kcp, now_ms) <= now_ms;
  int error = link_flush(link, now_ms);
  if (kcp_is_due) {
    kcp_flush(link->kcp, now_ms);
  }
  return error;
}

// --- The whole ---------------------------------------------------------------------------------

struct smux *link_smux(struct link *link) {
  return link->smux;
}

bool link_is_settled(const struct link *link) {
  struct kcp_state state;
  kcp_describe(link->kcp, &state);
  return state.unacked_bytes == 0 && smux_is_drained(link->smux);
}

void link_describe(const struct link *link, struct link_state *state) {
  memset(state, 0, sizeof *state);
  kcp_describe(link->kcp, &state->kcp);
  state->kcp_counts = *kcp_counts(link->kcp);
  if (link->decoder) {
    state->fec = *fec_decoder_counts(link->decoder);
  }
  state->datagrams_in = link->datagrams_in;
  state->datagrams_out = link->datagrams_out;
  state->malformed_in = link->malformed_in;
  state->streams = smux_stream_count(link->smux);
}

struct link *link_new(uint32_t conv, const struct link_settings *settings,
                      const struct link_events *events, void *owner, int64_t now_ms) {
  static const struct smux_carrier carrier = {carrier_takes_more, carrier_write};
  struct link *link = calloc(1, sizeof *link);
  if (!link) {
    return NULL;
  }
  link->settings = settings;
  link->events = events;
  link->owner = owner;
  link->rest_ms = LINK_NEVER;
  link->heard_ms = now_ms;
  // The streams' events are the owner's own, but for the one that is the link's business.
  link->stream_events = events->streams;
  link->stream_events.on_open = on_open;
  link->kcp =
      kcp_new(conv, &settings->kcp, settings->scratch, FEC_HEADER_BYTES, on_kcp_output, link);
  link->smux = smux_new(&settings->smux, &carrier, &link->stream_events, link, now_ms);
  bool good = link->kcp && link->smux;
  if (good && settings->code) {
    link->encoder = fec_encoder_new(settings->code);
    link->decoder = fec_decoder_new(settings->code);
    good = link->encoder && link->decoder;
  }
  if (!good) {
    link_free(link);
    return NULL;
  }
  return link;
}

void link_start_at(struct link *link, uint32_t sequence, uint32_t send_next,
                   uint32_t receive_next) {
  kcp_start_at(link->kcp, send_next, receive_next);
  if (link->encoder) {
    fec_encoder_start_at(link->encoder, sequence);
  }
}

void link_hide_clock(struct link *link, uint32_t ahead_ms) { kcp_hide_clock(link->kcp, ahead_ms); }

bool link_peer_is_there(const struct link *link) { return kcp_peer_is_there(link->kcp); }

void link_wait_for_peer(struct link *link) {
  if (!link_peer_is_there(link)) {
    smux_hold(link->smux);
  }
}

void link_free(struct link *link) {
  if (!link) {
    return;
  }
  smux_free(link->smux);
  kcp_free(link->kcp);
  fec_encoder_free(link->encoder);
  fec_decoder_free(link->decoder);
  free(link);
}
