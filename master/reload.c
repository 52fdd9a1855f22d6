#include "master/reload.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "master/control_answers.h"
#include "master/control_command.h"
#include "master/master.h"
#include "master/service_manager.h"
#include "master/tls_keys.h"

#define LOG_MODULE LOG_MODULE_CONFIG

static void on_fault(const char *fault, void *context) {
  char quoted[1024];
  log_error("reload_fault", "text=%s", log_quote(quoted, sizeof quoted, fault, strlen(fault)));
  json_array_append_new(context, json_foreign_text(fault));
}

static void on_change(const char *name, void *context) {
  log_warn("reload_waits", "setting=%s hint=\"it is taken over by a restart\"", name);
  json_array_append_new(context, json_string(name));
}

// The listener of the new configuration that is this one; NULL: it has none.
static const struct config_listener *same_listener(const struct config *fresh,
                                                   const struct config *running, size_t index) {
  const struct config_listener *listener = &running->server.listeners[index];
  for (size_t i = 0; i < fresh->server.listener_count; i++) {
    // At its own place first: several may have port 0.
    const struct config_listener *other =
        &fresh->server.listeners[(index + i) % fresh->server.listener_count];
    if (listener->transport == other->transport && other->tls.enabled &&
        strcmp(listener->addr, other->addr) == 0) {
      return other;
    }
  }
  return NULL;
}

// Takes over the files that the new configuration has for the listeners that run. One that it has
// no more keeps what it has until the restart: its files may be gone already.
static void take_tls_files(struct config *running, const struct config *fresh, bool *kept) {
  for (size_t i = 0; i < running->server.listener_count; i++) {
    struct config_listener *listener = &running->server.listeners[i];
    const struct config_listener *other =
        listener->tls.enabled ? same_listener(fresh, running, i) : NULL;
    kept[i] = listener->tls.enabled && !other;
    if (!other) {
      continue;
    }
    memcpy(listener->tls.cert, other->tls.cert, sizeof listener->tls.cert);
    memcpy(listener->tls.key, other->tls.key, sizeof listener->tls.key);
    // Whether clients are asked at all waits for a restart: never is a listener left open by a
    // reload that says so of half a change.
    if (listener->tls.client_ca[0] != '\0' && other->tls.client_ca[0] != '\0') {
      memcpy(listener->tls.client_ca, other->tls.client_ca, sizeof listener->tls.client_ca);
    }
  }
}

static void name_reloaded(const struct config *config, const bool *kept, json_t *names) {
  for (size_t i = 0; i < config->server.listener_count; i++) {
    const struct config_listener *listener = &config->server.listeners[i];
    char name[64];
    if (listener->addr[0] != '\0' && listener->tls.enabled && !kept[i]) {
      json_array_append_new(
          names, json_sprintf("%s.tls", config_listener_path(config, listener, name, sizeof name)));
    }
  }
}

// Also the certificates of what waits for a restart: it has to come up with them.
static bool tls_files_are_good(const struct config *fresh, json_t *faults) {
  struct tls_material *tried = tls_material_new();
  bool good = tried && tls_keys_read(tried, fresh, on_fault, faults) == 0;
  tls_material_free(tried);
  return good;
}

// What comes of it, for the answer.
struct outcome {
  json_t *faults;
  json_t *reloaded;
  json_t *waiting;
};

// Returns whether it was taken.
static bool take(struct master *master, struct config *fresh, struct config *next,
                 struct secrets *secrets, const struct outcome *outcome) {
  bool kept[CONFIG_LISTENERS] = {false};
  if (config_load_file(master->config_path, fresh, secrets, on_fault, outcome->faults) != 0 ||
      !tls_files_are_good(fresh, outcome->faults)) {
    return false;
  }
  *next = *master->loaded;
  take_tls_files(next, fresh, kept);
  if (tls_keys_reload(master->tls_keys, next, kept, on_fault, outcome->faults) != 0) {
    return false;
  }
  *master->loaded = *next;
  name_reloaded(next, kept, outcome->reloaded);
  config_each_change(next, fresh, on_change, outcome->waiting);
  if (memcmp(secrets, master->secrets, sizeof *secrets) != 0) {
    on_change("secret", outcome->waiting);
  }
  master_tell_tls_changed(master);
  return true;
}

json_t *reload(struct master *master) {
  struct config *fresh = malloc(sizeof *fresh);
  struct config *next = malloc(sizeof *next);
  struct secrets *secrets = sodium_malloc(sizeof *secrets);
  const struct outcome outcome = {json_array(), json_array(), json_array()};
  json_t *answer;
  service_manager_reloading(master->service_manager);
  if (!fresh || !next || !secrets) {
    on_fault("out of memory", outcome.faults);
    answer = control_error("there is no memory for a reload, and nothing has changed");
  } else if (take(master, fresh, next, secrets, &outcome)) {
    log_info("reloaded", "waits_for_restart=%zu", json_array_size(outcome.waiting));
    answer = json_pack("{s:b, s:O, s:O}", "ok", 1, "reloaded", outcome.reloaded,
                       "waits_for_restart", outcome.waiting);
  } else {
    log_error("reload_failed", "faults=%zu hint=\"nothing has changed\"",
              json_array_size(outcome.faults));
    answer = control_error("the configuration has faults, and nothing has changed");
    json_object_set(answer, "faults", outcome.faults);
  }
  json_decref(outcome.faults);
  json_decref(outcome.reloaded);
  json_decref(outcome.waiting);
  sodium_free(secrets);
  free(next);
  free(fresh);
  service_manager_reloaded(master->service_manager);
  return answer;
}
