#include "worker/settings.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/loop.h"
#include "worker/acceptor.h"
#include "worker/session.h"
#include "worker/worker.h"

#define LOG_MODULE LOG_MODULE_CONFIG

// libevent keeps one list of timers for each such time, and has room for a few hundred of them.
static void set_timeout(struct worker *worker, const struct timeval **timeout,
                        struct timeval *without_list, int64_t ms) {
  *without_list = clock_timeval(ms);
  const struct timeval *common = event_base_init_common_timeout(worker->base, without_list);
  *timeout = common ? common : without_list;
}

static void set_rates(struct worker *worker) {
  const struct config *config = &worker->config;
  int64_t now_ms = clock_monotonic_ms();
  struct session *session;
  token_bucket_set(&worker->handshakes, config->limits.handshakes_per_s,
                   config->limits.handshake_burst, now_ms);
  token_bucket_set(&worker->kcp_handshakes, config->limits.handshakes_per_s,
                   config->limits.handshake_burst, now_ms);
  token_bucket_set(&worker->tls_handshakes, config->limits.tls_handshakes_per_s,
                   config->limits.tls_handshake_burst, now_ms);
  const struct client_rates rates = {.messages_per_s = config->limits.messages_per_s,
                                     .messages_burst = config->limits.messages_burst,
                                     .bytes_per_s = config->limits.bytes_per_s,
                                     .bytes_burst = config->limits.bytes_burst};
  const struct client_rates before = worker->client_rates;
  worker->client_rates = rates;
  LIST_FOREACH(session, &worker->sessions, link) {
    client_levels_set(&session->levels, &before, &rates, now_ms);
    session_rates_changed(session);
  }
}

// Those who are there are looked at when the new time is over for them.
static void set_idle_timers(struct worker *worker, int64_t idle_ms) {
  struct session *session;
  LIST_FOREACH(session, &worker->sessions, link) {
    int64_t left_ms = idle_ms - session_quiet_ms(session);
    if (session->state == SESSION_PLAYING) {
      loop_start_timer(&session->timer, left_ms > 0 ? left_ms : 1);
    }
  }
}

static int set_send_buffer(struct worker *worker) {
  size_t bytes = TRANSPORT_HEADROOM_BYTES + SEAL_OVERHEAD_BYTES +
                 (size_t)worker->config.limits.message_to_client_bytes;
  uint8_t *buffer = realloc(worker->send_buffer, bytes);
  if (!buffer) {
    return ERROR_MEMORY;
  }
  worker->send_buffer = buffer;
  worker->send_buffer_bytes = bytes;
  return 0;
}

int settings_apply(struct worker *worker) {
  const struct config *config = &worker->config;
  dispatch_init(&worker->dispatch, config->tunnel.types, config->tunnel.type_count);
  set_rates(worker);
  set_timeout(worker, &worker->handshake_timeout, &worker->handshake_timeout_value,
              config->limits.handshake_timeout_ms);
  const struct timeval idle_before = worker->idle_timeout_value;
  set_timeout(worker, &worker->idle_timeout, &worker->idle_timeout_value,
              config->limits.idle_timeout_ms);
  if (idle_before.tv_sec != worker->idle_timeout_value.tv_sec ||
      idle_before.tv_usec != worker->idle_timeout_value.tv_usec) {
    set_idle_timers(worker, config->limits.idle_timeout_ms);
  }
  worker->wires.low_bytes = (size_t)config->queue.client_low_bytes;
  worker->wires.linger_ms = config->worker.stop_timeout_ms;
  return set_send_buffer(worker);
}

static void take_login_keys(struct worker *worker) {
  struct tls_material *material = tls_material_new();
  // While the master is changing them nothing is had: it tells when it is done.
  if (material && tls_segment_read(worker->tls, material) == 0 &&
      handshake_keys_set(&worker->handshake_keys, &material->secrets) != 0) {
    log_error("login_keys_refused", "error=\"%s\"", error_text(ERROR_MEMORY));
  }
  tls_material_free(material);
}

void settings_take_keys(struct worker *worker) {
  char why[512], quoted[sizeof why + 64];
  const char *wrong = acceptor_load_tls(worker->acceptor, why, sizeof why);
  if (wrong) {
    log_error("tls_keys_refused", "why=%s", log_quote(quoted, sizeof quoted, wrong, strlen(wrong)));
  }
  take_login_keys(worker);
}

void settings_report_fault(const char *fault, void *context) {
  char quoted[1024];
  (void)context;
  log_error("settings_fault", "text=%s", log_quote(quoted, sizeof quoted, fault, strlen(fault)));
}

static void on_change(const char *name, enum config_change change, void *context) {
  (void)context;
  log_debug("setting_changed", "setting=%s how=%s", name, config_change_name(change));
}

static void take(struct worker *worker, struct config *fresh) {
  struct config *old = malloc(sizeof *old);
  if (!old) {
    log_error("settings_not_taken", "error=\"%s\"", error_text(ERROR_MEMORY));
    return;
  }
  *old = worker->config;
  size_t message_bytes = (size_t)old->limits.message_to_client_bytes;
  config_take(&worker->config, old, fresh, on_change, NULL);
  free(old);
  if (settings_apply(worker) != 0) {  // with a send buffer of the size before
    worker->config.limits.message_to_client_bytes = (int64_t)message_bytes;
    log_error("settings_not_taken", "setting=limits.message_to_client_bytes error=\"%s\"",
              error_text(ERROR_MEMORY));
  }
  log_set_type(worker->config.log.type);
  acceptor_apply_settings(worker->acceptor);
}

void settings_on_change(struct worker *worker, const struct channel_settings *settings) {
  struct config *fresh = malloc(sizeof *fresh);
  if (fresh &&
      config_load_text(channel_settings_text(settings), fresh, settings_report_fault, NULL) == 0) {
    take(worker, fresh);
  } else {
    log_error("settings_not_taken", "hint=\"this worker goes on as before\"");
  }
  free(fresh);
}
