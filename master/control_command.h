// What the answers to janusctl's commands have in common (control_answers.h); each takes the
// request and returns its answer, or NULL when that comes later, by question->reply.
#ifndef JANUS_MASTER_CONTROL_COMMAND_H
#define JANUS_MASTER_CONTROL_COMMAND_H

#include <jansson.h>
#include <stddef.h>

#include "common/node_table.h"
#include "master/control_answers.h"
#include "master/json_text.h"
#include "master/master.h"

// Who asked, for an answer that comes later.
struct question {
  control_reply *reply;
  void *context;
  json_t *answer;  // what there is of it
};

typedef json_t *control_command(struct master *master, const json_t *request,
                                struct question *question);

// control_sessions.c
control_command control_sessions, control_session, control_kick;
// control_bans.c
control_command control_ban, control_unban, control_bans;
// control_push.c
control_command control_push;
// control_trace.c
control_command control_trace;
// control_log.c
control_command control_log, control_log_reset, control_log_reopen;
// control_routes.c
control_command control_routes, control_route_stats, control_route_get, control_nodes;

// control_drain.c
control_command control_drain, control_drain_status, control_undrain, control_worker_restart,
    control_upgrade;

// {"ok": true}
json_t *control_ok(void);
// How many rows a list may have, by the request.
size_t control_list_limit(const json_t *request);

#endif
