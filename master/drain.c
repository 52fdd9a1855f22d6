#include "master/drain.h"

#include "common/clock.h"
#include "common/log.h"
#include "master/master.h"
#include "master/registry.h"
#include "master/upgrade.h"

#define LOG_MODULE LOG_MODULE_MASTER

const char *drain_state_name(enum drain_state state) {
  static const char *const names[] = {"serving", "deregistering", "draining", "sending_away",
                                      "drained"};
  return names[state];
}

static void refuse_clients(struct master *master) {
  struct gateway_drain *drain = &master->drain;
  const struct channel_drain wanted = {.timeout_ms = drain->timeout_ms,
                                       .spread_ms = drain->spread_ms};
  workers_drain(master->workers, &wanted);
  for (size_t i = 0; i < master->client_listeners; i++) {
    listeners_suspend(&master->clients[i]);
  }
  drain->refusing = true;
  drain->send_from_ms = clock_monotonic_ms() + drain->timeout_ms;
}

static void on_deregistered(void *owner) {
  struct master *master = owner;
  struct gateway_drain *drain = &master->drain;
  if (drain->on && !drain->refusing && !master->stopping) {
    refuse_clients(master);
  }
}

void gateway_drain_begin(struct master *master, int64_t timeout_ms, int64_t spread_ms) {
  struct gateway_drain *drain = &master->drain;
  bool under_way = drain->on;
  upgrade_cancel(master, "the gateway is to drain");
  log_info("draining", "sessions=%zu timeout_ms=%lld spread_ms=%lld",
           directory_count(master->directory), (long long)timeout_ms, (long long)spread_ms);
  drain->timeout_ms = timeout_ms;
  drain->spread_ms = spread_ms;
  if (!under_way) {
    drain->on = true;
    drain->since_wall_ms = clock_wall_ms();
    drain->sessions_before = directory_count(master->directory);
    master_look_at_readiness(master);
    registry_withdraw(master->registry, on_deregistered, master);
  } else if (drain->refusing) {
    refuse_clients(master);
  }
}

int gateway_drain_cancel(struct master *master) {
  struct gateway_drain *drain = &master->drain;
  if (master->stopping || (drain->on && !drain->refusing)) {
    return ERROR_BUSY;
  }
  if (!drain->on) {
    return 0;
  }
  for (size_t i = 0; i < master->client_listeners; i++) {
    if (listeners_resume(&master->clients[i]) != 0) {
      return ERROR_SYSTEM;  // it drains on, and can be asked again
    }
  }
  log_info("undrained", "sessions=%zu", directory_count(master->directory));
  workers_undrain(master->workers);
  *drain = (struct gateway_drain){0};
  master_announce(master);
  master_look_at_readiness(master);
  return 0;
}

void gateway_drain_status(const struct master *master, struct drain_status *status) {
  const struct gateway_drain *drain = &master->drain;
  int64_t now_ms = clock_monotonic_ms();
  struct counters_values values;
  *status = (struct drain_status){.sessions = directory_count(master->directory)};
  for (int i = 0; i < workers_count(master->workers); i++) {
    workers_read_counters(master->workers, i, &values);
    status->connections += (int64_t)values.gauge[GAUGE_CONNECTIONS];
  }
  int64_t end_ms =
      (drain->refusing ? drain->send_from_ms : now_ms + drain->timeout_ms) + drain->spread_ms;
  status->left_ms = !drain->on || end_ms <= now_ms ? 0 : end_ms - now_ms;
  status->state = !drain->on                                          ? DRAIN_SERVING
                  : !drain->refusing                                  ? DRAIN_DEREGISTERING
                  : status->sessions == 0 && status->connections == 0 ? DRAIN_DRAINED
                  : now_ms >= drain->send_from_ms                     ? DRAIN_SENDING_AWAY
                                                                      : DRAIN_DRAINING;
}
