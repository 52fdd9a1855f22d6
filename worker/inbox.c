#include "worker/inbox.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "worker/acceptor.h"
#include "worker/login.h"
#include "worker/pushes.h"
#include "worker/report.h"
#include "worker/route_store.h"
#include "worker/session.h"
#include "worker/settings.h"
#include "worker/takeover.h"
#include "worker/watch.h"
#include "worker/worker.h"

#define LOG_MODULE LOG_MODULE_WORKER

struct inbox {
  struct worker *worker;
  struct channel *channel;  // NULL once the master is gone
  struct event *orphan_tick;
  int64_t orphan_until_ms;
};

static const struct timeval orphan_tick_time = {.tv_sec = 1};

// A new master listens where the old one did.
static bool new_master_is_there(const struct config *config) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t path_len = strlen(config->control.socket);
  if (path_len >= sizeof address.sun_path) {
    return false;
  }
  memcpy(address.sun_path, config->control.socket, path_len);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return false;
  }
  bool there = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
  close(fd);
  return there;
}

static void on_orphan_tick(evutil_socket_t fd, short what, void *owner) {
  struct inbox *inbox = owner;
  (void)fd;
  (void)what;
  const char *why = NULL;
  if (new_master_is_there(&inbox->worker->config)) {
    why = "a new master has taken over";
  } else if (clock_monotonic_ms() >= inbox->orphan_until_ms) {
    why = "worker.orphan_timeout is over";
  }
  if (why) {
    log_warn("orphan_stops", "why=\"%s\"", why);
    event_del(inbox->orphan_tick);
    worker_stop(inbox->worker, CLOSE_DRAIN);
  }
}

static void on_broken(const char *why, void *owner) {
  struct inbox *inbox = owner;
  channel_free(inbox->channel);
  inbox->channel = NULL;
  watch_end_all(inbox->worker);
  if (inbox->worker->stopping) {
    return;
  }
  inbox->orphan_until_ms = clock_monotonic_ms() + inbox->worker->config.worker.orphan_timeout_ms;
  event_add(inbox->orphan_tick, &orphan_tick_time);
  log_error("master_lost", "why=\"%s\" serving_on_for_ms=%lld", why,
            (long long)inbox->worker->config.worker.orphan_timeout_ms);
  login_admit_all(inbox->worker);
}

static void on_hold(struct inbox *inbox) {
  if (channel_hold(inbox->channel) != 0) {
    log_error("not_holding", "error=\"%s\"", error_text(ERROR_MEMORY));  // the master waits in vain
  }
}

static void on_take_over(struct inbox *inbox) {
  int fds[CHANNEL_FDS];
  channel_take_fds(inbox->channel, fds);
  // What it has asked is asked again; all else is told anew.
  channel_resume_sending(inbox->channel, CHANNEL_ROUTE_CLAIM);
  channel_set_unbounded(inbox->channel, true);
  takeover_on_take_over(inbox->worker, fds);
  channel_set_unbounded(inbox->channel, false);
}

static void on_stop(struct worker *worker) {
  acceptor_read_on(worker->acceptor);  // everybody stops
  worker_stop(worker, CLOSE_DRAIN);
}

static void on_message(enum channel_type type, const void *content, void *owner) {
  struct inbox *inbox = owner;
  switch (type) {
    case CHANNEL_LOGIN_ANSWER: login_on_answer(inbox->worker, content); return;
    case CHANNEL_SESSION_CLOSE: session_on_close(inbox->worker, content); return;
    case CHANNEL_PUSH: pushes_on_push(inbox->worker->pushes, content); return;
    case CHANNEL_REPORT_ASK: report_on_ask(inbox->worker, content); return;
    case CHANNEL_WATCH: watch_on_watch(inbox->worker, content); return;
    case CHANNEL_ROUTE_ANSWER: route_store_on_answer(inbox->worker->route_store, content); return;
    case CHANNEL_ROUTE_MOVED: tunnel_on_route_moved(inbox->worker, content); return;
    case CHANNEL_SETTINGS: settings_on_change(inbox->worker, content); return;
    case CHANNEL_TLS_CHANGED: settings_take_keys(inbox->worker); return;
    case CHANNEL_LOG_LEVELS: channel_log_levels_take(content); return;
    case CHANNEL_LOG_REOPEN: (void)!log_output_reopen(); return;  // says itself what is wrong
    case CHANNEL_HOLD: on_hold(inbox); return;
    case CHANNEL_RESUME: channel_resume_sending(inbox->channel, CHANNEL_TYPE_ALL); return;
    case CHANNEL_TAKE_OVER: on_take_over(inbox); return;
    case CHANNEL_DRAIN: drain_on_drain(inbox->worker, content); return;
    case CHANNEL_UNDRAIN: drain_on_undrain(inbox->worker); return;
    case CHANNEL_STOP: on_stop(inbox->worker); return;
    default: log_limited(LOG_LEVEL_ERROR, "channel_unexpected", "type=%d", (int)type); return;
  }
}

struct inbox *inbox_new(struct worker *worker, int fd) {
  static const struct channel_events events = {on_message, on_broken};
  struct inbox *inbox = calloc(1, sizeof *inbox);
  if (!inbox) {
    close(fd);
    return NULL;
  }
  inbox->worker = worker;
  inbox->orphan_tick = event_new(worker->base, -1, EV_PERSIST, on_orphan_tick, inbox);
  inbox->channel = channel_new(worker->base, fd, &events, inbox);
  if (!inbox->channel || !inbox->orphan_tick) {
    inbox_free(inbox);
    return NULL;
  }
  return inbox;
}

void inbox_free(struct inbox *inbox) {
  if (!inbox) {
    return;
  }
  channel_free(inbox->channel);
  if (inbox->orphan_tick) {
    event_free(inbox->orphan_tick);
  }
  free(inbox);
}

bool inbox_has_master(const struct inbox *inbox) { return inbox->channel != NULL; }

int inbox_tell(struct inbox *inbox, enum channel_type type, const void *content) {
  if (!inbox->channel) {
    return ERROR_NOT_FOUND;
  }
  int error = channel_send(inbox->channel, type, content);
  if (error != 0) {
    log_limited(LOG_LEVEL_ERROR, "channel_full", "type=%d error=\"%s\"", (int)type,
                error_text(error));
  }
  return error;
}

bool inbox_report(struct inbox *inbox, enum channel_type type, const void *content) {
  return inbox->channel && channel_room(inbox->channel) > 0 &&
         inbox_tell(inbox, type, content) == 0;
}

bool inbox_hand_spans(struct inbox *inbox, const struct channel_spans *spans,
                      const uint8_t *listed) {
  return inbox->channel && channel_send_spans(inbox->channel, spans, listed) == 0;
}

void inbox_send_off(struct inbox *inbox, int64_t ms) {
  int64_t until_ms = clock_monotonic_ms() + ms;
  struct timeval tick = {.tv_usec = 10000};
  while (inbox->channel && channel_queued_bytes(inbox->channel) > 0 &&
         clock_monotonic_ms() < until_ms) {
    event_base_loopexit(inbox->worker->base, &tick);
    event_base_dispatch(inbox->worker->base);
  }
}

void inbox_gather(struct inbox *inbox) {
  if (inbox->channel) {
    channel_gather(inbox->channel);
  }
}

void inbox_send_gathered(struct inbox *inbox) {
  if (inbox->channel) {
    channel_send_gathered(inbox->channel);
  }
}

void inbox_pause(struct inbox *inbox) {
  if (inbox->channel) {
    channel_pause(inbox->channel);
  }
}

void inbox_resume(struct inbox *inbox) {
  if (inbox->channel) {
    channel_resume(inbox->channel);
  }
}
