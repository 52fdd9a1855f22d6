#include "master/places.h"

#include <unistd.h>

#include "common/log.h"
#include "master/master.h"

#define LOG_MODULE LOG_MODULE_MASTER

int64_t places_default_count(void) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return cores < 1 ? 1 : cores < CONFIG_WORKERS ? cores : CONFIG_WORKERS;
}

static struct channel_drain configured_drain(const struct master *master) {
  return (struct channel_drain){.timeout_ms = master->config.drain.timeout_ms,
                                .spread_ms = master->config.drain.spread_ms};
}

// --- How many ---------------------------------------------------------------------------

// Those who were on their way to the sockets have arrived by now.
static void on_left(evutil_socket_t fd, short what, void *owner) {
  struct master *master = owner;
  size_t count = (size_t)master->config.worker.count;
  const struct channel_drain drain = configured_drain(master);
  (void)fd;
  (void)what;
  if (master->stopping) {
    return;
  }
  workers_resize(master->workers, (int)count, &drain);
  for (size_t i = 0; i < master->client_listeners; i++) {
    listeners_shrink(&master->clients[i], count);
  }
}

// New clients come to the first count places only.
static void prefer_places(struct master *master, int count) {
  for (size_t i = 0; i < master->client_listeners; i++) {
    if (listeners_prefer(&master->clients[i], (size_t)count) != 0) {
      log_warn("clients_may_be_reset",
               "listener=%s hint=\"the kernel can't be told which workers clients are for\"",
               master->clients[i].address);
    }
  }
}

bool places_open(struct master *master, int count, char *why, size_t why_size) {
  for (size_t i = 0; i < master->client_listeners; i++) {
    if (listeners_grow(&master->clients[i], &master->config, master->client_config[i],
                       (size_t)count, why, why_size) != 0) {
      places_close_unused(master);
      return false;
    }
  }
  return true;
}

void places_close_unused(struct master *master) {
  for (size_t i = 0; i < master->client_listeners; i++) {
    listeners_shrink(&master->clients[i], (size_t)workers_places(master->workers));
  }
}

void places_take(struct master *master) {
  static const struct timeval on_their_way = {.tv_sec = 1};
  const struct channel_drain drain = configured_drain(master);
  int before = workers_places(master->workers);
  int count = (int)master->config.worker.count;
  if (count < before) {
    prefer_places(master, count);
    evtimer_add(master->places.left, &on_their_way);
    return;
  }
  bool was_leaving = evtimer_pending(master->places.left, NULL);
  evtimer_del(master->places.left);
  if (count > before) {
    workers_resize(master->workers, count, &drain);
    places_close_unused(master);  // for which there was no worker to be had
  }
  if (count > before || was_leaving) {
    prefer_places(master, workers_places(master->workers));
  }
}

// --- Others ------------------------------------------------------------------------------

bool places_renew(struct master *master) {
  const struct channel_drain drain = configured_drain(master);
  int error = workers_renew(master->workers, &drain);
  master->places.generation_due = error != 0;
  if (error != 0) {
    log_limited(LOG_LEVEL_WARN, "generation_waits",
                "error=\"%s\" hint=\"workers are being replaced "
                "already, or too many are draining\"",
                error_text(error));
  }
  return error == 0;
}

void places_tick(struct master *master) {
  if (master->places.generation_due && !master->drain.on && !master->stopping && !master->upgrade &&
      master->all_workers_served) {
    (void)places_renew(master);
  }
}

// --- Beginning and end -------------------------------------------------------------------

bool places_init(struct master *master) {
  master->places.left = evtimer_new(master->base, on_left, master);
  return master->places.left != NULL;
}

void places_fini(struct master *master) {
  if (master->places.left) {
    event_free(master->places.left);
  }
}
