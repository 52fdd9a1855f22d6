#include "master/reload.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/secrets_rotate.h"
#include "common/tls.h"
#include "master/control_answers.h"
#include "master/control_command.h"
#include "master/master.h"
#include "master/registry.h"
#include "master/service_manager.h"
#include "master/tls_keys.h"

#define LOG_MODULE LOG_MODULE_CONFIG

// One reload: what is read, what comes of it, and what is said about it.
struct reload {
  struct master *master;
  struct config fresh;
  struct config next;           // as the gateway is to run
  struct config next_loaded;    // and what of fresh it has taken
  struct secrets *secrets;      // in locked memory
  bool kept[CONFIG_LISTENERS];  // whose TLS files stay as they are
  bool tls_changed[CONFIG_LISTENERS];
  bool new_workers;
  bool begun;  // the generation
  json_t *faults;
  json_t *changed;
  json_t *notes;
};

static void on_fault(const char *fault, void *context) {
  char quoted[1024];
  log_error("reload_fault", "text=%s", log_quote(quoted, sizeof quoted, fault, strlen(fault)));
  json_array_append_new(context, json_foreign_text(fault));
}

static void on_change(const char *name, enum config_change change, void *context) {
  struct reload *reload = context;
  reload->new_workers = reload->new_workers || change == CONFIG_NEW_WORKERS;
  json_array_append_new(
      reload->changed, json_pack("{s:s, s:s}", "setting", name, "how", config_change_name(change)));
}

// --- Checks: nothing has changed yet ---------------------------------------------------

// Also the certificates of what waits for a restart: it has to come up with them.
static bool tls_files_are_good(struct reload *reload) {
  struct tls_material *tried = tls_material_new();
  bool good = tried && tls_keys_read(tried, &reload->fresh, on_fault, reload->faults) == 0;
  tls_material_free(tried);
  return good;
}

static bool tunnel_tls_is_good(struct reload *reload) {
  char why[512], fault[600];
  if (tls_client_check(&reload->fresh.tunnel.tls, reload->secrets->tunnel_tls_key, why,
                       sizeof why) == 0) {
    return true;
  }
  snprintf(fault, sizeof fault, "tunnel.tls: %s", why);
  on_fault(fault, reload->faults);
  return false;
}

static bool nodes_fit(struct reload *reload) {
  if (reload->next.registry.source != REGISTRY_STATIC ||
      reload->next.registry.node_count <= (size_t)reload->next.registry.capacity) {
    return true;
  }
  on_fault("nodes: more than node_table.capacity, which waits for a restart", reload->faults);
  return false;
}

// More places need more sockets, which may be refused.
static bool open_sockets(struct reload *reload) {
  char why[512];
  if (places_open(reload->master, (int)reload->next.worker.count, why, sizeof why)) {
    return true;
  }
  on_fault(why, reload->faults);
  return false;
}

// While players have to be verified, there must be something to do it by.
static bool client_cert_is_there(struct reload *reload) {
  static const struct verify_key none;
  const struct login_keys *keys = &reload->secrets->current;
  if (!reload->next.label.encrypted || memcmp(&keys->client_key, &none, sizeof none) != 0) {
    return true;
  }
  on_fault("secret.client_cert: is missing, and label.encrypted = false waits for a restart",
           reload->faults);
  return false;
}

// What waits and what does not have to fit together too: it is by this that workers start.
static bool mix_is_good(struct reload *reload) {
  struct config *tried = malloc(sizeof *tried);
  char *text = config_text(&reload->next);
  bool good = tried && text;
  if (!good) {
    on_fault("out of memory", reload->faults);
  } else if (config_load_text(text, tried, on_fault, reload->faults) != 0) {
    on_fault("this does not fit together with what waits for a restart: change it in two steps",
             reload->faults);
    good = false;
  }
  free(text);
  free(tried);
  return good;
}

static bool is_good(struct reload *reload) {
  struct master *master = reload->master;
  if (config_load_file(master->arguments.config_path, &reload->fresh, reload->secrets, on_fault,
                       reload->faults) != 0 ||
      !tls_files_are_good(reload) || !tunnel_tls_is_good(reload)) {
    return false;
  }
  reload->next = master->config;
  reload->next_loaded = *master->loaded;
  config_take(&reload->next, &reload->next_loaded, &reload->fresh, on_change, reload);
  if (reload->next.worker.count == 0) {
    reload->next.worker.count = places_default_count();
  }
  for (size_t i = 0; i < reload->next.server.listener_count; i++) {
    // Its files may be gone already.
    reload->kept[i] =
        reload->next.server.listeners[i].tls.enabled &&
        config_listener_counterpart(&reload->next_loaded, i, &reload->fresh) == CONFIG_LISTENERS;
  }
  if (!nodes_fit(reload) || !client_cert_is_there(reload) || !mix_is_good(reload) ||
      !open_sockets(reload)) {
    return false;
  }
  if (tls_keys_reload(master->tls_keys, &reload->next, reload->kept, reload->tls_changed, on_fault,
                      reload->faults) != 0) {
    places_close_unused(master);
    return false;
  }
  return true;
}

// --- Taking it over ---------------------------------------------------------------------

static void name_tls_files(struct reload *reload) {
  for (size_t i = 0; i < reload->next.server.listener_count; i++) {
    const struct config_listener *listener = &reload->next.server.listeners[i];
    char name[64], whole[96];
    if (reload->tls_changed[i]) {
      config_listener_path(&reload->next, listener, name, sizeof name);
      snprintf(whole, sizeof whole, "%s.tls", name);
      on_change(whole, CONFIG_IN_PLACE, reload);
    }
  }
}

// Only now is it known that they count.
static void log_changes(const struct reload *reload) {
  const json_t *change;
  size_t i;
  json_array_foreach(reload->changed, i, change) {
    const char *name = json_string_value(json_object_get(change, "setting"));
    const char *how = json_string_value(json_object_get(change, "how"));
    if (strcmp(how, config_change_name(CONFIG_RESTART)) == 0) {
      bool is_type = strncmp(name, "tunnel.types", strlen("tunnel.types")) == 0;
      log_warn("setting_waits", "setting=\"%s\" hint=\"%sa restart takes it over\"", name,
               is_type ? "" : "janusctl upgrade, or ");
    } else {
      log_info("setting_changed", "setting=\"%s\" how=%s", name, how);
    }
  }
}

static void take_text(struct reload *reload, char *running, const char *fresh, size_t size,
                      const char *name, enum config_change change) {
  if (strcmp(running, fresh) == 0) {
    return;
  }
  if (change != CONFIG_RESTART) {
    memcpy(running, fresh, size);
  }
  on_change(name, change, reload);
}

static void take_secrets(struct reload *reload) {
  struct secrets *running = reload->master->secrets;
  const struct secrets *fresh = reload->secrets;
#define TAKE(member, how) \
  take_text(reload, running->member, fresh->member, sizeof running->member, "secret." #member, how)
  TAKE(push_token, CONFIG_IN_PLACE);
  TAKE(tunnel_tls_key, CONFIG_NEW_WORKERS);
  TAKE(redis_password, CONFIG_RESTART);
  TAKE(redis_sentinel_password, CONFIG_RESTART);
  TAKE(redis_tls_key, CONFIG_RESTART);
  TAKE(etcd_password, CONFIG_RESTART);
  TAKE(etcd_tls_key, CONFIG_RESTART);
#undef TAKE
}

// Players whose tokens and certificates are of the keys before come in for a while yet.
static void take_login_keys(struct reload *reload) {
  struct master *master = reload->master;
  struct secrets *running = master->secrets;
  struct secrets *fresh = reload->secrets;
  size_t dropped =
      secrets_rotate(fresh, running, clock_wall_ms(), reload->next.login.key_overlap_ms);
  if (dropped > 0) {
    json_array_append_new(reload->notes,
                          json_sprintf("%zu previous login keys are good no longer: there are too "
                                       "many at a time",
                                       dropped));
  }
  if (!login_keys_equal(&running->current, &fresh->current)) {
    on_change("secret (login keys)", CONFIG_IN_PLACE, reload);
  }
  bool same = running->previous_count == fresh->previous_count;
  for (size_t k = 0; same && k < fresh->previous_count; k++) {
    same = login_keys_equal(&running->previous[k], &fresh->previous[k]);
  }
  if (!same) {
    on_change("secret.previous", CONFIG_IN_PLACE, reload);
  }
  running->current = fresh->current;
  memcpy(running->previous, fresh->previous, sizeof running->previous);
  running->previous_count = fresh->previous_count;
  if (running->previous_count > 0) {
    json_array_append_new(reload->notes,
                          json_sprintf("%zu previous login keys are good beside the current ones",
                                       running->previous_count));
  }
  tls_keys_set_logins(master->tls_keys, running);
}

static void take_levels(struct master *master, enum log_level before) {
  log_set_type(master->config.log.type);
  if (master->config.log.level != before) {
    log_control_configure(&master->log_control, master->config.log.level);
  }
}

static void take_sockets(struct master *master) {
  char why[512], quoted[600];
  for (size_t i = 0; i < master->client_listeners; i++) {
    if (listeners_set_options(&master->clients[i], &master->config, master->client_config[i], why,
                              sizeof why) != 0) {
      log_error("listener_unchanged", "why=%s", log_quote(quoted, sizeof quoted, why, strlen(why)));
    }
  }
}

static void begin_generation(struct reload *reload) {
  reload->begun = places_renew(reload->master);
  if (!reload->begun) {
    json_array_append_new(reload->notes,
                          json_string("the new generation of workers begins as soon as it can: "
                                      "workers are being replaced, or too many are draining"));
  }
}

static void take(struct reload *reload) {
  struct master *master = reload->master;
  enum log_level level = master->config.log.level;
  master->config = reload->next;
  *master->loaded = reload->next_loaded;
  name_tls_files(reload);
  take_secrets(reload);
  take_login_keys(reload);
  take_levels(master, level);
  take_sockets(master);
  if (master->config.registry.source == REGISTRY_STATIC) {
    registry_publish_nodes(master->registry);
  }
  workers_settings_changed(master->workers);
  if (reload->new_workers) {
    begin_generation(reload);
  }
  places_take(master);
  master_look_at_readiness(master);
}

static json_t *answer_of(struct reload *reload) {
  json_t *answer = json_pack("{s:b, s:O}", "ok", 1, "changed", reload->changed);
  if (reload->begun) {
    json_object_set_new(answer, "generation",
                        json_integer((json_int_t)workers_generation(reload->master->workers)));
  }
  json_object_set(answer, "notes", reload->notes);
  return answer;
}

// What keeps it from being done now, or NULL.
static const char *obstacle(const struct master *master) {
  return master->stopping   ? "the gateway is stopping"
         : master->drain.on ? "the gateway is draining; reload when it serves again (undrain)"
         : master->upgrade  ? "an upgrade is under way; try again"
         : master->saved    ? "the gateway is taking over from the program before; try again"
                            : NULL;
}

json_t *reload(struct master *master) {
  struct reload *reload = calloc(1, sizeof *reload);
  struct secrets *secrets = sodium_malloc(sizeof *secrets);
  if (!reload || !secrets) {
    free(reload);
    sodium_free(secrets);
    return control_error("there is no memory for a reload, and nothing has changed");
  }
  reload->master = master;
  reload->secrets = secrets;
  reload->faults = json_array();
  reload->changed = json_array();
  reload->notes = json_array();
  json_t *answer;
  service_manager_reloading(master->service_manager);
  const char *why = obstacle(master);
  if (why) {
    log_warn("reload_refused", "why=\"%s\"", why);
    answer = control_error(why);
  } else if (is_good(reload)) {
    take(reload);
    log_changes(reload);
    log_info("reloaded", "changed=%zu", json_array_size(reload->changed));
    answer = answer_of(reload);
  } else {
    log_error("reload_failed", "faults=%zu hint=\"nothing has changed\"",
              json_array_size(reload->faults));
    answer = control_error("the configuration has faults, and nothing has changed");
    json_object_set(answer, "faults", reload->faults);
  }
  json_decref(reload->faults);
  json_decref(reload->changed);
  json_decref(reload->notes);
  sodium_free(secrets);
  free(reload);
  service_manager_reloaded(master->service_manager);
  return answer;
}
