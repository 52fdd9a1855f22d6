#include "worker/takeover.h"

#include <unistd.h>

#include "worker/inbox.h"
#include "worker/login.h"
#include "worker/route_store.h"
#include "worker/session.h"
#include "worker/settings.h"
#include "worker/tunnel.h"
#include "worker/watch.h"
#include "worker/worker.h"

#define LOG_MODULE LOG_MODULE_WORKER

// The tables of the new master; the worker keeps those that can't be had.
static void take_tables(struct worker *worker, const int fds[CHANNEL_FDS]) {
  int error;
  struct route_table *routes = route_table_open(fds[CHANNEL_FD_ROUTES], &error);
  struct node_table *nodes = node_table_open(fds[CHANNEL_FD_NODES], &error);
  struct tls_segment *tls = tls_segment_open(fds[CHANNEL_FD_TLS]);
  if (routes) {
    route_table_free(worker->routes);
    worker->routes = routes;
  }
  if (nodes) {
    node_table_free(worker->nodes);
    worker->nodes = nodes;
    node_picker_forget_table(worker->node_picker);
  }
  if (tls) {
    tls_segment_free(worker->tls);
    worker->tls = tls;
  }
  if (!routes || !nodes || !tls) {
    log_error("tables_not_taken",
              "hint=\"the new master's can't be mapped; those of the one before "
              "are used on, and grow old\"");
  }
}

static void tell_of(struct session *session, struct inbox *inbox) {
  struct channel_session here;
  if (session->state == SESSION_PLAYING) {
    session_describe(session, &here);
    inbox_tell(inbox, CHANNEL_SESSION_HERE, &here);
  } else if (session->state == SESSION_ADMISSION) {
    login_ask_again(session);
  }
}

void takeover_on_take_over(struct worker *worker, const int fds[CHANNEL_FDS]) {
  struct session *session;
  struct session *next;
  size_t sessions = 0;
  take_tables(worker, fds);
  watch_end_all(worker);
  for (session = LIST_FIRST(&worker->sessions); session; session = next) {
    next = LIST_NEXT(session, link);
    tell_of(session, worker->inbox);
    sessions++;
  }
  tunnel_tell_held(worker);
  route_store_new_master(worker->route_store);
  settings_take_keys(worker);
  inbox_tell(worker->inbox, CHANNEL_READY, NULL);
  log_info("master_changed", "sessions=%zu", sessions);
}
