// What the workers know of their sessions, gathered when somebody asks: traffic, queues,
// tunnels. Loop thread only.
#ifndef JANUS_MASTER_SESSION_REPORTS_H
#define JANUS_MASTER_SESSION_REPORTS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/channel.h"
#include "master/workers.h"

struct session_reports;

struct session_reports_answer {
  struct channel_session_report *sessions;
  size_t session_count;
  // When one session was asked for:
  struct channel_path_report path;  // id 0: its transport knows nothing of its path
  struct channel_tunnel_report *tunnels;
  size_t tunnel_count;
  bool complete;  // false: a worker did not answer in time, or memory ran out
};
// answer is valid for the call, and may be sorted.
typedef void session_reports_on_answer(struct session_reports_answer *answer, void *context);

struct session_reports *session_reports_new(struct event_base *base, struct workers *workers);
// Questions that are open are answered with what there is. Accepts NULL.
void session_reports_free(struct session_reports *reports);

// Asks one worker for one session, or (connection 0) all for all. on_answer comes once, maybe
// from inside; no error here means that it will.
int session_reports_ask(struct session_reports *reports, int worker, uint64_t connection,
                        session_reports_on_answer *on_answer, void *context) MUST_CHECK;

// From a worker: one of its CHANNEL_..._REPORT messages and the end; it is gone.
void session_reports_on_message(struct session_reports *reports, int worker, enum channel_type type,
                                const void *content);
void session_reports_worker_gone(struct session_reports *reports, int worker);

#endif
