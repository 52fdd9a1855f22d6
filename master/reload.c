#include "master/reload.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "master/control_answers.h"
#include "master/control_command.h"
#include "master/master.h"
#include "master/tls_keys.h"

static void on_fault(const char *fault, void *context) {
  char quoted[1024];
  log_error("reload_fault", "text=%s", log_quote(quoted, sizeof quoted, fault, strlen(fault)));
  json_array_append_new(context, control_foreign_text(fault));
}

static void on_change(const char *name, void *context) {
  log_warn("reload_waits", "setting=%s hint=\"it is taken over by a restart\"", name);
  json_array_append_new(context, json_string(name));
}

// The listeners that run, with the files that the new configuration has for them.
static void take_tls_files(struct config *running, const struct config *fresh) {
  for (size_t i = 0; i < running->server.listener_count; i++) {
    struct config_listener *listener = &running->server.listeners[i];
    const struct config_listener *other = &fresh->server.listeners[i];
    if (i < fresh->server.listener_count && listener->transport == other->transport &&
        listener->tls.enabled && other->tls.enabled && strcmp(listener->addr, other->addr) == 0) {
      memcpy(listener->tls.cert, other->tls.cert, sizeof listener->tls.cert);
      memcpy(listener->tls.key, other->tls.key, sizeof listener->tls.key);
      // Whether clients are asked at all waits for a restart: never is a listener left open by a
      // reload that says so of half a change.
      if (listener->tls.client_ca[0] != '\0' && other->tls.client_ca[0] != '\0') {
        memcpy(listener->tls.client_ca, other->tls.client_ca, sizeof listener->tls.client_ca);
      }
    }
  }
}

static json_t *names_of_tls_listeners(const struct config *config) {
  json_t *names = json_array();
  for (size_t i = 0; i < config->server.listener_count; i++) {
    const struct config_listener *listener = &config->server.listeners[i];
    char name[64];
    if (listener->addr[0] != '\0' && listener->tls.enabled) {
      json_array_append_new(
          names, json_sprintf("%s.tls", config_listener_path(config, listener, name, sizeof name)));
    }
  }
  return names;
}

// Also the certificates of what waits for a restart: it has to come up with them.
static bool tls_files_are_good(const struct config *fresh, json_t *faults) {
  struct tls_material *tried = tls_material_new();
  bool good = tried && tls_keys_read(tried, fresh, on_fault, faults) == 0;
  tls_material_free(tried);
  return good;
}

// Returns whether it was taken; faults, and what has to wait, come to the lists.
static bool take(struct master *master, struct config *fresh, struct config *next,
                 struct secrets *secrets, json_t *faults, json_t *waiting) {
  if (config_load_file(master->config_path, fresh, secrets, on_fault, faults) != 0 ||
      !tls_files_are_good(fresh, faults)) {
    return false;
  }
  *next = *master->loaded;
  take_tls_files(next, fresh);
  if (tls_keys_reload(master->tls_keys, next, on_fault, faults) != 0) {
    return false;
  }
  *master->loaded = *next;
  config_each_change(next, fresh, on_change, waiting);
  if (memcmp(secrets, master->secrets, sizeof *secrets) != 0) {
    on_change("secret", waiting);
  }
  master_tell_tls_changed(master);
  return true;
}

json_t *reload(struct master *master) {
  struct config *fresh = malloc(sizeof *fresh);
  struct config *next = malloc(sizeof *next);
  struct secrets *secrets = sodium_malloc(sizeof *secrets);
  json_t *faults = json_array();
  json_t *waiting = json_array();
  bool taken = fresh && next && secrets && take(master, fresh, next, secrets, faults, waiting);
  json_t *answer;
  if (taken) {
    log_info("reloaded", "waits_for_restart=%zu", json_array_size(waiting));
    answer = json_pack("{s:b, s:o, s:O}", "ok", 1, "reloaded",
                       names_of_tls_listeners(master->loaded), "waits_for_restart", waiting);
  } else {
    log_error("reload_failed", "faults=%zu hint=\"nothing has changed\"", json_array_size(faults));
    answer = control_error("the configuration has faults, and nothing has changed");
    json_object_set(answer, "faults", faults);
  }
  json_decref(faults);
  json_decref(waiting);
  sodium_free(secrets);
  free(next);
  free(fresh);
  return answer;
}
