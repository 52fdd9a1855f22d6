#include "worker/farewell.h"

#include <stdlib.h>

#include "common/packet.h"
#include "common/stream.h"
#include "worker/session.h"
#include "worker/watch.h"
#include "worker/worker.h"

enum { FAREWELLS_MAX = 8 };  // of one session; a route does not move that often

struct farewell {
  LIST_ENTRY(farewell) link;  // among the session's
  struct session *session;
  int type;  // of its tunnel
  struct stream *stream;
  bool read_wanted;  // the next message was not asked for: the client is slow
  bool unanswered;
};

static void end(struct farewell *farewell) {
  stream_end(farewell->stream, true);
  LIST_REMOVE(farewell, link);
  farewell->session->farewell_count--;
  free(farewell);
}

static void read_on(struct farewell *farewell) {
  farewell->read_wanted = !session_takes_output(farewell->session);
  if (!farewell->read_wanted) {
    stream_read(farewell->stream);
  }
}

static void on_opened(void *owner) { (void)owner; }

static void on_sent(void *owner) { (void)owner; }

static void on_message(void *owner, const uint8_t *bytes, size_t len) {
  struct farewell *farewell = owner;
  struct session *session = farewell->session;
  struct counters *counters = session->worker->counters;
  struct packet packet;
  farewell->unanswered = false;
  counters_split_add(counters, SPLIT_TUNNEL_MESSAGES_IN, (size_t)farewell->type, 1);
  if (tunnel_message_decode(&packet, bytes, len) != 0) {
    counters_add(counters, COUNTER_TUNNEL_MALFORMED, 1);
  } else if (session_is_logout(packet.mod, packet.seq)) {
    counters_add(counters, COUNTER_DROPPED_OUT, 1);  // the player is at the other node now
  } else {
    if (session->watched) {
      watch_from_tunnel(session, NULL, &packet, len);
    }
    session_on_answer(session, &packet);
    watch_done(session);
    counters_record_us(counters, HISTOGRAM_MESSAGE_OUT,
                       clock_monotonic_us() - stream_engine_arrived_us(session->worker->streams));
  }
  if (session->state == SESSION_PLAYING) {  // else it has been ended
    read_on(farewell);
  }
}

static void on_ended(void *owner, int status, const char *detail) {
  struct farewell *farewell = owner;
  bool unsure = farewell->unanswered && status != STREAM_OK;
  (void)detail;
  counters_add(farewell->session->worker->counters, COUNTER_TUNNEL_UNSURE, unsure);
  end(farewell);
}

void farewell_begin(struct session *session, int type, struct stream *stream, bool reading,
                    bool unanswered) {
  static const struct stream_events events = {on_opened, on_sent, on_message, on_ended};
  struct farewell *farewell =
      session->farewell_count < FAREWELLS_MAX ? malloc(sizeof *farewell) : NULL;
  if (!farewell) {
    counters_add(session->worker->counters, COUNTER_TUNNEL_UNSURE, unanswered);
    stream_end(stream, true);
    return;
  }
  *farewell = (struct farewell){
      .session = session, .type = type, .stream = stream, .unanswered = unanswered};
  LIST_INSERT_HEAD(&session->farewells, farewell, link);
  session->farewell_count++;
  stream_finish(stream, &events, farewell);
  if (!reading) {
    read_on(farewell);
  }
}

void farewell_resume_all(struct session *session) {
  struct farewell *farewell;
  LIST_FOREACH(farewell, &session->farewells, link) {
    if (farewell->read_wanted) {
      farewell->read_wanted = false;
      stream_read(farewell->stream);
    }
  }
}

void farewell_end_all(struct session *session) {
  while (!LIST_EMPTY(&session->farewells)) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    end(LIST_FIRST(&session->farewells));
  }
}
