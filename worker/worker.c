#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/handover.h"
#include "common/kcp_owners.h"
#include "common/loop.h"
#include "common/loop_lag.h"
#include "common/secrets_pipe.h"
#include "common/stream_tls.h"
#include "worker/acceptor.h"
#include "worker/inbox.h"
#include "worker/newcomers.h"
#include "worker/packing.h"
#include "worker/pushes.h"
#include "worker/route_store.h"
#include "worker/session.h"
#include "worker/session_output.h"
#include "worker/settings.h"
#include "worker/trace.h"
#include "worker/watch.h"

#define LOG_MODULE LOG_MODULE_WORKER

enum { LAST_WORDS_MS = 200 };  // for the master to take them
static const struct timeval second = {.tv_sec = 1};

bool worker_may_log(struct worker *worker, enum worker_log kind, uint64_t *suppressed) {
  if (log_limit_allow(&worker->log_limits[kind], clock_monotonic_ms(), suppressed)) {
    return true;
  }
  counters_add(worker->counters, COUNTER_LOG_SUPPRESSED, log_held_back());
  return false;
}

// --- Stopping ------------------------------------------------------------------

void worker_leave_if_done(struct worker *worker) {
  if (worker->stopping && acceptor_open_connections(worker->acceptor) == 0 &&
      LIST_EMPTY(&worker->draining_tunnels)) {
    event_base_loopbreak(worker->base);
  }
}

void worker_stop(struct worker *worker, enum close_reason reason) {
  if (worker->stopping) {
    return;
  }
  worker->stopping = true;
  log_info("worker_stopping", "reason=%s connections=%zu", close_reason_name(reason),
           acceptor_open_connections(worker->acceptor));
  acceptor_stop(worker->acceptor, reason);
  while (!LIST_EMPTY(&worker->sessions)) {
    session_close(LIST_FIRST(&worker->sessions), reason);
  }
  // Whatever a client does not take by then is given up.
  struct timeval bound = clock_timeval(worker->config.worker.stop_timeout_ms);
  event_base_loopexit(worker->base, &bound);
  worker_leave_if_done(worker);
}

static void on_stop_signal(evutil_socket_t number, short what, void *owner) {
  (void)number;
  (void)what;
  worker_stop(owner, CLOSE_DRAIN);
}

static void on_transport_gone(void *context, void *cookie) {
  struct worker *worker = context;
  acceptor_leave_place(cookie);
  drain_on_connection_gone(worker);
  worker_leave_if_done(worker);
}

static void on_bury(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  session_bury_all(owner);
}

static void beat(struct worker *worker) {
  atomic_store_explicit(&worker->counters->heartbeat_ms, (uint64_t)clock_monotonic_ms(),
                        memory_order_relaxed);
}

static void on_second(evutil_socket_t fd, short what, void *owner) {
  struct worker *worker = owner;
  (void)fd;
  (void)what;
  beat(worker);
  log_limits_tick(clock_monotonic_ms());
  counters_add(worker->counters, COUNTER_LOG_SUPPRESSED, log_held_back());
  counters_add(worker->counters, COUNTER_LOG_LOST, log_output_tick());
  route_store_tick(worker->route_store);
  watch_tick(worker);
  counters_gauge_set(worker->counters, GAUGE_BACKEND_CONNECTIONS,
                     stream_engine_connections(worker->streams));
}

// --- Starting ------------------------------------------------------------------

// Secrets come once, through a pipe, into memory that is locked and left out of
// core dumps.
static struct secrets *take_secrets(int fd) {
  struct secrets *secrets = sodium_malloc(sizeof *secrets);
  if (secrets && !secrets_pipe_read(fd, secrets)) {
    sodium_free(secrets);
    secrets = NULL;
  }
  close(fd);
  return secrets;
}

static int set_up_keys(struct worker *worker) {
  worker->handshake_keys.encrypted = worker->config.label.encrypted;
  worker->handshake_keys.clock_tolerance_s = worker->config.limits.handshake_clock_ms / 1000;
  return handshake_keys_set(&worker->handshake_keys, worker->secrets);
}

// What the master handed over. Returns what is wrong, or NULL.
static const char *take_handover(struct worker *worker) {
  int error;
  // The listening sockets too, however many they are.
  for (int fd = HANDOVER_CHANNEL; fcntl(fd, F_GETFD) >= 0; fd++) {
    fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  if (config_load_fd(HANDOVER_SETTINGS, &worker->config, settings_report_fault, NULL) != 0) {
    return "the settings can't be read";
  }
  worker->kcp_mailboxes_fd = HANDOVER_LISTENERS;
  for (const struct config_listener *listener = NULL;
       (listener = config_listener_next(&worker->config, listener));) {
    worker->kcp_mailboxes_fd++;
  }
  char who[32];
  snprintf(who, sizeof who, "worker=%d", worker->index);
  log_setup(worker->config.log.type, worker->config.log.level, who);
  // One that can't be opened now is tried again; players are served all the same.
  log_output_open_later(worker->config.log.output, worker->config.log.file);
  if (seal_global_init(worker->config.seal.aes_ni) != 0) {
    return "the cryptographic library can't be set up";
  }
  if (!(worker->secrets = take_secrets(HANDOVER_SECRETS)) || set_up_keys(worker) != 0) {
    return "the secrets can't be read";
  }
  if (!(worker->routes = route_table_open(HANDOVER_ROUTE_TABLE, &error))) {
    return "the route table can't be mapped";
  }
  if (!(worker->nodes = node_table_open(HANDOVER_NODE_TABLE, &error))) {
    return "the node table can't be mapped";
  }
  if (!(worker->tls = tls_segment_open(HANDOVER_TLS))) {
    return "the certificates can't be mapped";
  }
  if (!(worker->kcp_owners = kcp_owners_open(HANDOVER_KCP_OWNERS, &error))) {
    return "the table of KCP connections can't be mapped";
  }
  if (shm_map(&worker->counters_segment, HANDOVER_COUNTERS, true) != 0 ||
      worker->counters_segment.size < sizeof(struct counters)) {
    return "the counters can't be mapped";
  }
  worker->counters = worker->counters_segment.base;
  return NULL;
}

// Players come in from here on.
static void on_store_ready(struct worker *worker) {
  if (worker->stopping) {
    return;
  }
  beat(worker);
  if (!worker->drain.on) {
    acceptor_start(worker->acceptor);
  }
  inbox_tell(worker->inbox, CHANNEL_READY, NULL);
}

// Returns what is wrong, or NULL.
static const char *build(struct worker *worker, char *why, size_t why_size) {
  const struct config *config = &worker->config;
  const struct stream_engine_options options = {
      .kind = config->tunnel.engine,
      .open_timeout_ms = config->tunnel.open_timeout_ms,
      .streams_per_connection = (size_t)config->tunnel.streams_per_connection,
      .message_bytes = (size_t)config->tunnel.message_bytes,
  };

  worker->wires = (struct wire_shared){
      .base = worker->base,
      .counters = worker->counters,
  };
  worker->transport_gone = (struct transport_gone){on_transport_gone, worker};
  worker->deflater = deflater_new();
  uint64_t seed;
  randombytes_buf(&seed, sizeof seed);
  worker->node_picker = node_picker_new(seed);
  worker->bury = event_new(worker->base, -1, 0, on_bury, worker);
  if (wire_shared_init(&worker->wires) != 0 || !worker->deflater || !worker->node_picker ||
      !worker->bury || settings_apply(worker) != 0 || !drain_init(worker)) {
    return "out of memory";
  }
  if (!(worker->route_store = route_store_new(worker, on_store_ready, why, why_size))) {
    return why;
  }
  if (!(worker->streams = stream_tls_engine_new(worker->base, &options, &config->tunnel.tls,
                                                worker->secrets->tunnel_tls_key, why, why_size))) {
    return why;
  }
  if (!(worker->inbox = inbox_new(worker, HANDOVER_CHANNEL)) ||
      !(worker->pushes = pushes_new(worker)) ||
      !(worker->packing = packing_new(worker, session_on_packed)) ||
      !(worker->newcomers = newcomers_new(worker->base, worker->counters, worker->inbox)) ||
      !(worker->loop_lag = loop_lag_new(worker->base, worker->counters))) {
    return "out of memory";
  }
  if (TRACE_IS_BUILT && config->trace.endpoint[0] != '\0' && !(worker->trace = trace_new(worker))) {
    return "out of memory";
  }
  worker->acceptor = acceptor_new(worker, HANDOVER_LISTENERS, why, why_size);
  return worker->acceptor ? NULL : why;
}

static void tear_down(struct worker *worker) {
  session_bury_all(worker);
  tunnel_cut_all(worker);
  wire_cut_all(&worker->wires);
  stream_engine_free(worker->streams);
  acceptor_free(worker->acceptor);
  drain_fini(worker);  // which every connection that was cut has told
  loop_lag_free(worker->loop_lag);
  newcomers_free(worker->newcomers);
  packing_free(worker->packing);
  pushes_free(worker->pushes);
  if (worker->trace) {  // the last spans
    trace_flush(worker->trace);
    inbox_send_off(worker->inbox, LAST_WORDS_MS);
    trace_free(worker->trace);
  }
  inbox_free(worker->inbox);
  route_store_free(worker->route_store);
  node_picker_free(worker->node_picker);
  deflater_free(worker->deflater);
  handshake_keys_fini(&worker->handshake_keys);
  sodium_free(worker->secrets);
  route_table_free(worker->routes);
  node_table_free(worker->nodes);
  tls_segment_free(worker->tls);
  kcp_owners_free(worker->kcp_owners);
  shm_unmap(&worker->counters_segment);
  wire_shared_fini(&worker->wires);
  free(worker->send_buffer);
  event_free(worker->bury);
  loop_free(worker->base);
}

// Where the cores are busy, the default policy lets each wake-up of a backend, a client or gRPC's
// thread preempt the worker that has sent to it, and batches shrink to a single event. Under
// SCHED_BATCH the worker goes on to its next wait, and batches grow with the load: a round trip
// costs 4.8 us of CPU then, and 5.2 to 5.8 without; with gRPC C core's thread two to three times
// as much without.
static void let_batches_grow(void) {
  const struct sched_param none = {0};
  if (sched_setscheduler(0, SCHED_BATCH, &none) != 0) {
    log_warn("scheduling_unchanged", "error=\"%s\"", strerror(errno));
  }
}

// A callback that makes itself due again must not keep the loop from its sockets and timers.
static struct event_base *new_base(void) {
  enum { CALLBACKS_AT_ONCE = 256 };
  struct event_config *config = event_config_new();
  struct event_base *base = NULL;
  if (config && event_config_set_max_dispatch_interval(config, NULL, CALLBACKS_AT_ONCE, 0) == 0) {
    base = event_base_new_with_config(config);
  }
  if (config) {
    event_config_free(config);
  }
  return base;
}

int worker_run(int index) {
  struct worker worker = {.index = index};
  char why[512];
  struct event *tick;
  struct event *stop;

  static const char *const kinds[WORKER_LOG_COUNT] = {
      [WORKER_LOG_REFUSED] = "connection_refused",
      [WORKER_LOG_OPENED] = "session_opened",
      [WORKER_LOG_CLOSED] = "session_closed",
      [WORKER_LOG_MESSAGE] = "message_too_large",
      [WORKER_LOG_TUNNEL] = "tunnel",
      [WORKER_LOG_TLS] = "tls_failed",
      [WORKER_LOG_PUSH] = "push_lost",
      [WORKER_LOG_ROAMED] = "client_roamed",
  };
  for (int i = 0; i < WORKER_LOG_COUNT; i++) {
    worker.log_limits[i].kind = kinds[i];
  }
  LIST_INIT(&worker.sessions);
  LIST_INIT(&worker.dead_sessions);
  LIST_INIT(&worker.watched_sessions);
  LIST_INIT(&worker.draining_tunnels);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, SIG_IGN);  // from a terminal it reaches everyone; the master decides
  signal(SIGHUP, SIG_IGN);
  signal(SIGUSR1, SIG_IGN);  // for the master alone, which tells us
  let_batches_grow();        // before any thread is started, so that all have it
  worker.base = new_base();
  const char *wrong = worker.base ? take_handover(&worker) : "no event loop";
  if (!wrong) {
    wrong = build(&worker, why, sizeof why);
  }
  if (wrong) {
    char quoted[sizeof why + 64];
    log_error("worker_start_failed", "why=%s",
              log_quote(quoted, sizeof quoted, wrong, strlen(wrong)));
    return 1;
  }
  stop = evsignal_new(worker.base, SIGTERM, on_stop_signal, &worker);
  tick = event_new(worker.base, -1, EV_PERSIST, on_second, &worker);
  evsignal_add(stop, NULL);
  event_add(tick, &second);
  event_base_dispatch(worker.base);
  log_info("worker_stopped", "connections_left=%zu", acceptor_open_connections(worker.acceptor));
  event_free(stop);
  event_free(tick);
  tear_down(&worker);
  return 0;
}
