// What of a new configuration a running gateway can take, and how.
#include <stddef.h>
#include <string.h>

#include "common/config_loader.h"

struct change {
  struct config *running;
  struct config *loaded;
  config_on_change *on_change;
  void *context;
};

const char *config_change_name(enum config_change change) {
  static const char *const names[] = {"in_place", "new_generation", "restart"};
  return names[change];
}

static bool modules_differ(const struct config_tunnel_type *before,
                           const struct config_tunnel_type *after) {
  return before->module_count != after->module_count ||
         memcmp(before->modules, after->modules, sizeof before->modules) != 0;
}

static bool differs(const struct key *key, const void *before, const void *after) {
  if (key->kind == KEY_MODULES) {
    return modules_differ(before, after);
  }
  char texts[2][LOADER_VALUE_BYTES];
  key_text(key, before, texts[0], sizeof texts[0]);
  key_text(key, after, texts[1], sizeof texts[1]);
  return strcmp(texts[0], texts[1]) != 0;
}

static bool any_differs(struct key_table table, const void *before, const void *after) {
  for (size_t i = 0; i < table.count; i++) {
    if (differs(&table.keys[i], before, after)) {
      return true;
    }
  }
  return false;
}

static void copy(const struct key *key, void *to, const void *from) {
  memcpy((char *)to + key->offset, (const char *)from + key->offset, key->size);
}

// --- Lists ------------------------------------------------------------------------

static bool nodes_differ(const struct config *before, const struct config *after) {
  bool differ = before->registry.node_count != after->registry.node_count;
  for (size_t i = 0; !differ && i < after->registry.node_count; i++) {
    differ = any_differs(config_node_keys, &before->registry.nodes[i], &after->registry.nodes[i]);
  }
  return differ;
}

static const struct node *known_node(const struct config *config, const struct node *node) {
  for (size_t i = 0; i < config->registry.node_count; i++) {
    const struct node *known = &config->registry.nodes[i];
    if (node_compare(known, node) == 0) {
      return known;
    }
  }
  return NULL;
}

// A node without a color has the label's, which waits for a restart. One that had the new label's
// before has it by itself.
static void keep_default_color(const struct config *running, const struct config *loaded,
                               struct config *fresh) {
  for (size_t i = 0; i < fresh->registry.node_count; i++) {
    struct node *node = &fresh->registry.nodes[i];
    const struct node *known = known_node(loaded, node);
    if (strcmp(node->color, fresh->label.color) == 0 &&
        !(known && strcmp(known->color, node->color) == 0)) {
      memcpy(node->color, running->label.color, sizeof node->color);
    }
  }
}

static void take_nodes(const struct change *change, struct config *fresh) {
  struct config *const both[] = {change->running, change->loaded};
  if (strcmp(change->running->label.color, fresh->label.color) != 0) {
    keep_default_color(change->running, change->loaded, fresh);
  }
  if (!nodes_differ(change->loaded, fresh)) {
    return;
  }
  for (int i = 0; i < 2; i++) {
    memcpy(both[i]->registry.nodes, fresh->registry.nodes, sizeof fresh->registry.nodes);
    both[i]->registry.node_count = fresh->registry.node_count;
  }
  change->on_change("nodes", CONFIG_IN_PLACE, change->context);
}

static struct config_tunnel_type *type_named(struct config *config, const char *name) {
  for (size_t i = 0; i < config->tunnel.type_count; i++) {
    if (strcmp(config->tunnel.types[i].name, name) == 0) {
      return &config->tunnel.types[i];
    }
  }
  return NULL;
}

// Whether open tunnels of the type can go on as what it is to be.
static bool is_same_tunnel(const struct config_tunnel_type *before,
                           const struct config_tunnel_type *after) {
  return strcmp(before->service, after->service) == 0 &&
         strcmp(before->method, after->method) == 0 && before->fragments == after->fragments &&
         before->main == after->main;
}

static bool is_retired(const struct config_tunnel_type *type) {
  return type->module_count == 0 && !type->default_modules && !type->main;
}

// Whether its nodes can be known: etcd is asked for the services that there were at the start.
static bool service_is_watched(const struct config *running, const char *service) {
  bool watched = running->registry.source == REGISTRY_STATIC;
  for (size_t i = 0; !watched && i < running->tunnel.type_count; i++) {
    watched = strcmp(running->tunnel.types[i].service, service) == 0;
  }
  return watched;
}

// Whether running can have that type as it is to be.
static bool can_take_type(struct config *running, const struct config_tunnel_type *wanted) {
  const struct config_tunnel_type *type = type_named(running, wanted->name);
  return type ? is_same_tunnel(type, wanted)
              : !wanted->main && service_is_watched(running, wanted->service);
}

// Half of a table would be another table: two types with one module, or a module with none.
static bool can_take_types(struct config *running, struct config *fresh) {
  size_t count = running->tunnel.type_count;
  for (size_t i = 0; i < fresh->tunnel.type_count; i++) {
    const struct config_tunnel_type *wanted = &fresh->tunnel.types[i];
    count += !type_named(running, wanted->name);
    if (!can_take_type(running, wanted)) {
      return false;
    }
  }
  for (size_t i = 0; i < running->tunnel.type_count; i++) {
    const struct config_tunnel_type *type = &running->tunnel.types[i];
    if (type->main && !type_named(fresh, type->name)) {
      return false;
    }
  }
  return count <= CONFIG_TUNNEL_TYPES;
}

static void name_type(const struct change *change, const char *type, bool taken) {
  char name[64];
  snprintf(name, sizeof name, "tunnel.types.%s", type);
  change->on_change(name, taken ? CONFIG_IN_PLACE : CONFIG_RESTART, change->context);
}

static void retire(struct config_tunnel_type *type) {
  memset(type->modules, 0, sizeof type->modules);
  type->module_count = 0;
  type->default_modules = false;
}

// Open tunnels, counters and routes know a type by its place. So one keeps it for as long as the
// gateway runs; one that there is no more gets no modules, and new ones come at the end.
static void take_types(const struct change *change, struct config *fresh) {
  struct config *running = change->running;
  bool taken = can_take_types(running, fresh);
  for (size_t i = 0; i < running->tunnel.type_count; i++) {
    struct config_tunnel_type *type = &running->tunnel.types[i];
    if (!type_named(fresh, type->name) && !is_retired(type)) {
      name_type(change, type->name, taken);
      if (taken) {
        retire(type);
      }
    }
  }
  for (size_t i = 0; i < fresh->tunnel.type_count; i++) {
    const struct config_tunnel_type *wanted = &fresh->tunnel.types[i];
    struct config_tunnel_type *type = type_named(running, wanted->name);
    if (type && !any_differs(config_type_keys, type, wanted)) {
      continue;
    }
    name_type(change, wanted->name, taken);
    if (taken && type) {
      *type = *wanted;
    } else if (taken) {
      running->tunnel.types[running->tunnel.type_count++] = *wanted;
    }
  }
}

void config_take_types(struct config *running, struct config *fresh, config_on_change *on_change,
                       void *context) {
  take_types(&(struct change){running, NULL, on_change, context}, fresh);
}

// --- Listeners --------------------------------------------------------------------------

size_t config_listener_counterpart(const struct config *running, size_t index,
                                   const struct config *fresh) {
  const struct config_listener *listener = &running->server.listeners[index];
  size_t more = fresh->server.listener_count - LISTENER_MORE;
  if (index < LISTENER_MORE) {
    bool same = strcmp(listener->addr, fresh->server.listeners[index].addr) == 0 &&
                listener->tls.enabled == fresh->server.listeners[index].tls.enabled;
    return same ? index : CONFIG_LISTENERS;
  }
  for (size_t i = 0; i < more; i++) {
    // At its own place first: several may have port 0.
    size_t at = LISTENER_MORE + (index - LISTENER_MORE + i) % more;
    const struct config_listener *other = &fresh->server.listeners[at];
    if (listener->transport == other->transport && listener->tls.enabled == other->tls.enabled &&
        strcmp(listener->addr, other->addr) == 0) {
      return at;
    }
  }
  return CONFIG_LISTENERS;
}

static void take_listener(const struct change *change, size_t index,
                          const struct config_listener *wanted) {
  struct config_listener *loaded = &change->loaded->server.listeners[index];
  for (size_t i = 0; i < config_listener_keys.count; i++) {
    const struct key *key = &config_listener_keys.keys[i];
    char name[LOADER_NAME_BYTES], whole[2 * LOADER_NAME_BYTES];
    if (!differs(key, loaded, wanted)) {
      continue;
    }
    if (key->change != CONFIG_RESTART) {
      copy(key, loaded, wanted);
      copy(key, &change->running->server.listeners[index], wanted);
    }
    config_listener_path(change->loaded, loaded, name, sizeof name);
    snprintf(whole, sizeof whole, "%s.%s", name, key->path);
    change->on_change(whole, key->change, change->context);
  }
}

static void take_listeners(const struct change *change, const struct config *fresh) {
  struct config *loaded = change->loaded;
  bool found[CONFIG_LISTENERS] = {false};
  bool all = true;
  for (size_t i = LISTENER_MORE; i < loaded->server.listener_count; i++) {
    size_t at = config_listener_counterpart(loaded, i, fresh);
    if (at == CONFIG_LISTENERS) {
      all = false;
    } else {
      found[at] = true;
      take_listener(change, i, &fresh->server.listeners[at]);
    }
  }
  for (size_t i = LISTENER_MORE; i < fresh->server.listener_count; i++) {
    all = all && found[i];
  }
  if (!all) {
    change->on_change("server.listeners", CONFIG_RESTART, change->context);
  }
}

// What is said of a listener that waits as a whole waits with it: the one that runs must not become
// something between the two.
static enum config_change change_of(const struct key *key, const struct config *loaded,
                                    const struct config *fresh) {
  size_t first = offsetof(struct config, server.listeners);
  size_t index =
      key->offset < first ? LISTENER_MORE : (key->offset - first) / sizeof(struct config_listener);
  return index < LISTENER_MORE &&
                 config_listener_counterpart(loaded, index, fresh) == CONFIG_LISTENERS
             ? CONFIG_RESTART
             : key->change;
}

// --- All -----------------------------------------------------------------------------

void config_take(struct config *running, struct config *loaded, struct config *fresh,
                 config_on_change *on_change, void *context) {
  const struct change change = {running, loaded, on_change, context};
  for (size_t i = 0; i < config_keys.count; i++) {
    const struct key *key = &config_keys.keys[i];
    if (!key_is_scalar(key) || !differs(key, loaded, fresh)) {
      continue;
    }
    enum config_change how = change_of(key, loaded, fresh);
    if (how != CONFIG_RESTART) {
      copy(key, running, fresh);
      copy(key, loaded, fresh);
    }
    on_change(key->path, how, context);
  }
  take_nodes(&change, fresh);
  take_types(&change, fresh);
  take_listeners(&change, fresh);
}
