#include "worker/report.h"

#include <string.h>

#include "common/clock.h"
#include "worker/inbox.h"
#include "worker/player.h"
#include "worker/session.h"

static bool report_session(struct session *session, uint64_t id) {
  int64_t now_ms = clock_monotonic_ms();
  const struct channel_session_report report = {
      .id = id,
      .connection = session->connection,
      .messages_in = session->traffic.messages_in,
      .messages_out = session->traffic.messages_out,
      .bytes_in = session->traffic.bytes_in,
      .bytes_out = session->traffic.bytes_out,
      .recent_messages_in = session->traffic.messages_in - session->look.messages_in,
      .recent_messages_out = session->traffic.messages_out - session->look.messages_out,
      .recent_ms = now_ms - session->look.at_ms,
      .queued_bytes = transport_queued_bytes(session->transport) + session->pushes.bytes,
      .pushes_waiting = session->pushes.count,
      .quiet_ms = session_quiet_ms(session),
      .tunnels = session->player->tunnel_count,
      .input_paused = session->rate_paused || session->held_by,
      .output_paused = session->output_full,
  };
  return inbox_report(session->worker->inbox, CHANNEL_SESSION_REPORT, &report);
}

static bool report_path(const struct session *session, uint64_t id) {
  struct wire_path path;
  if (!transport_describe(session->transport, &path)) {
    return true;
  }
  const struct channel_path_report report = {
      .id = id,
      .segments_in = path.segments_in,
      .segments_out = path.segments_out,
      .retransmits = path.retransmits,
      .recovered = path.recovered,
      .datagrams_in = path.datagrams_in,
      .datagrams_out = path.datagrams_out,
      .srtt_ms = path.srtt_ms,
      .rto_ms = path.rto_ms,
      .client_window = path.client_window,
      .gateway_window = path.gateway_window,
      .in_flight = path.in_flight,
      .stream_window = path.stream_window,
      .streams = path.streams,
  };
  return inbox_report(session->worker->inbox, CHANNEL_PATH_REPORT, &report);
}

static bool report_tunnel(const struct tunnel *tunnel, uint64_t id) {
  struct channel_tunnel_report report = {
      .id = id,
      .oid = tunnel->oid,
      .queued_bytes = tunnel->queue.bytes,
      .queued_messages = (uint32_t)tunnel->queue.count,
      .tunnel_type = (uint32_t)tunnel->type,
  };
  bool placed = tunnel->state == TUNNEL_OPENING || tunnel->state == TUNNEL_OPEN;
  strncpy(report.state, tunnel_state_name(tunnel->state), sizeof report.state - 1);
  memcpy(report.address, placed ? tunnel->address : "", placed ? sizeof report.address : 1);
  return inbox_report(tunnel->worker->inbox, CHANNEL_TUNNEL_REPORT, &report);
}

static bool report_one(struct session *session, uint64_t id) {
  bool complete = report_session(session, id) && report_path(session, id);
  const struct tunnel *tunnel;
  LIST_FOREACH(tunnel, &session->player->tunnels, link) {
    complete = complete && report_tunnel(tunnel, id);
  }
  return complete;
}

// Several may look, each as often as he likes: what is recent begins anew after a second.
static void renew_look(struct session *session) {
  enum { RECENT_MS = 900 };  // he who looks each second may be a little early
  int64_t now_ms = clock_monotonic_ms();
  if (now_ms - session->look.at_ms >= RECENT_MS) {
    session->look = (struct session_look){.messages_in = session->traffic.messages_in,
                                          .messages_out = session->traffic.messages_out,
                                          .at_ms = now_ms};
  }
}

static bool report_all(struct worker *worker, uint64_t id) {
  bool complete = true;
  for (struct session *session = worker->logged_in; session && complete;
       session = session->hh.next) {
    if (session->state == SESSION_PLAYING) {
      complete = report_session(session, id);
      renew_look(session);
    }
  }
  return complete;
}

void report_on_ask(struct worker *worker, const struct channel_report_ask *ask) {
  struct channel_report_end end = {.id = ask->id, .complete = true};
  struct session *session = ask->connection != 0 ? session_find(worker, ask->connection) : NULL;
  if (session && session->state == SESSION_PLAYING) {
    end.complete = report_one(session, ask->id);
  } else if (ask->connection == 0) {
    end.complete = report_all(worker, ask->id);
  }
  inbox_tell(worker->inbox, CHANNEL_REPORT_END, &end);
}
