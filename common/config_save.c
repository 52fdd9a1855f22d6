#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_loader.h"

// --- Saving ---------------------------------------------------------------------

// Adds the key's value to parent under name. False: out of memory.
static bool value_add(config_setting_t *parent, const char *name, const struct key *key,
                      const void *base) {
  static const int types[] = {[KEY_BOOL] = CONFIG_TYPE_BOOL, [KEY_INTEGER] = CONFIG_TYPE_INT64};
  int type = key->kind <= KEY_INTEGER ? types[key->kind] : CONFIG_TYPE_STRING;
  char text[LOADER_VALUE_BYTES];
  key_text(key, base, text, sizeof text);
  config_setting_t *setting = config_setting_add(parent, name, type);
  switch (type) {
    case CONFIG_TYPE_BOOL: return config_setting_set_bool(setting, text[0] == 't');
    case CONFIG_TYPE_INT64: return config_setting_set_int64(setting, strtoll(text, NULL, 10));
    default: return config_setting_set_string(setting, text);
  }
}

// Adds the key's value under its path, with the sections that it needs.
static bool value_add_path(config_setting_t *root, const struct key *key, const void *base) {
  config_setting_t *parent = root;
  const char *rest = key->path;
  for (const char *dot; parent != NULL && (dot = strchr(rest, '.')) != NULL; rest = dot + 1) {
    char name[LOADER_NAME_BYTES];
    snprintf(name, sizeof name, "%.*s", (int)(dot - rest), rest);
    config_setting_t *section = config_setting_get_member(parent, name);
    parent = section != NULL ? section : config_setting_add(parent, name, CONFIG_TYPE_GROUP);
  }
  return parent != NULL && value_add(parent, rest, key, base);
}

static bool entry_add(config_setting_t *list, struct key_table table, const void *base) {
  config_setting_t *entry = config_setting_add(list, NULL, CONFIG_TYPE_GROUP);
  bool ok = entry != NULL;
  for (size_t i = 0; ok && i < table.count; i++) {
    const struct key *key = &table.keys[i];
    if (key->kind != KEY_MODULES) {
      ok = value_add_path(entry, key, base);
      continue;
    }
    const struct config_tunnel_type *type = base;
    config_setting_t *modules = config_setting_add(entry, key->path, CONFIG_TYPE_ARRAY);
    for (size_t m = 0; modules != NULL && m < type->module_count; m++) {
      ok = ok && config_setting_set_int_elem(modules, -1, type->modules[m]) != NULL;
    }
    ok = ok && modules != NULL;
  }
  return ok;
}

int config_save(const struct config *config, FILE *out) {
  config_t tree;
  config_init(&tree);
  config_setting_t *root = config_root_setting(&tree);
  bool ok = true;
  for (size_t i = 0; ok && i < config_keys.count; i++) {
    if (key_is_scalar(&config_keys.keys[i])) {
      ok = value_add_path(root, &config_keys.keys[i], config);
    }
  }
  config_setting_t *nodes = config_setting_add(root, "nodes", CONFIG_TYPE_LIST);
  ok = ok && nodes != NULL;
  for (size_t i = 0; ok && i < config->registry.node_count; i++) {
    ok = entry_add(nodes, config_node_keys, &config->registry.nodes[i]);
  }
  config_setting_t *types =
      config_setting_add(config_setting_get_member(root, "tunnel"), "types", CONFIG_TYPE_LIST);
  ok = ok && types != NULL;
  for (size_t i = 0; ok && i < config->tunnel.type_count; i++) {
    ok = entry_add(types, config_type_keys, &config->tunnel.types[i]);
  }
  config_setting_t *listeners =
      config_setting_add(config_setting_get_member(root, "server"), "listeners", CONFIG_TYPE_LIST);
  ok = ok && listeners != NULL;
  for (size_t i = LISTENER_MORE; ok && i < config->server.listener_count; i++) {
    ok = entry_add(listeners, config_listener_keys, &config->server.listeners[i]);
  }
  if (ok) {
    config_write(&tree, out);
  }
  config_destroy(&tree);
  if (!ok) {
    return ERROR_MEMORY;
  }
  return fflush(out) != 0 || ferror(out) ? ERROR_SYSTEM : 0;
}

char *config_text(const struct config *config) {
  char *text = NULL;
  size_t len = 0;
  FILE *file = open_memstream(&text, &len);
  bool good = file != NULL && config_save(config, file) == 0;
  if (file != NULL && fclose(file) != 0) {
    good = false;
  }
  if (!good) {
    free(text);
    return NULL;
  }
  return text;
}
