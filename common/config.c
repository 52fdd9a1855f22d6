#include "common/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <libconfig.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/config_loader.h"
#include "common/config_value.h"

enum {
  FAULT_BYTES = 1024,
  SETTINGS_MAX_BYTES = 1 << 20,  // what config_load_fd takes
};

const struct config_listener *config_listener_next(const struct config *config,
                                                   const struct config_listener *listener) {
  const struct config_listener *end = config->server.listeners + config->server.listener_count;
  for (listener = listener ? listener + 1 : config->server.listeners; listener < end; listener++) {
    if (listener->addr[0] != '\0') {
      return listener;
    }
  }
  return NULL;
}

_Static_assert((int)LISTENER_TCP == (int)TRANSPORT_TCP && (int)LISTENER_WS == (int)TRANSPORT_WS &&
                   (int)LISTENER_KCP == (int)TRANSPORT_KCP,
               "a listener that has a name is called as its transport");

const char *config_listener_path(const struct config *config,
                                 const struct config_listener *listener, char *name, size_t size) {
  size_t index = (size_t)(listener - config->server.listeners);
  if (index < LISTENER_MORE) {
    snprintf(name, size, "server.%s", config_transport_name((enum transport_name)index));
  } else {
    snprintf(name, size, "server.listeners[%zu]", index - LISTENER_MORE);
  }
  return name;
}

const char *config_transport_name(enum transport_name transport) {
  static const char *const names[] = {"tcp", "ws", "kcp"};
  return names[transport];
}

enum listener_kind config_listener_kind(const struct config_listener *listener) {
  static const enum listener_kind kinds[][2] = {
      [TRANSPORT_TCP] = {LISTENER_KIND_TCP, LISTENER_KIND_TLS},
      [TRANSPORT_WS] = {LISTENER_KIND_WS, LISTENER_KIND_WSS},
      [TRANSPORT_KCP] = {LISTENER_KIND_KCP, LISTENER_KIND_KCP},
  };
  return kinds[listener->transport][listener->tls.enabled];
}

const char *config_listener_kind_name(enum listener_kind kind) {
  static const char *const names[LISTENER_KIND_COUNT] = {"tcp", "tls", "ws", "wss", "kcp"};
  return names[kind];
}

const char *config_listener_name(const struct config_listener *listener) {
  return config_listener_kind_name(config_listener_kind(listener));
}

// --- Faults -------------------------------------------------------------------

// libconfig names an included file as the directive does.
void loader_file(const struct loader *loader, const char *file, char *buffer, size_t size) {
  if (file == NULL || strcmp(file, loader->path) == 0) {
    snprintf(buffer, size, "%s", loader->path);
  } else {
    snprintf(buffer, size, "%s/%s", loader->folder, file);
  }
}

void loader_fault(struct loader *loader, struct origin origin, const char *key, const char *format,
                  ...) {
  char message[FAULT_BYTES], file[2 * CONFIG_PATH_BYTES], text[sizeof message + sizeof file + 256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (origin.variable != NULL) {
    snprintf(text, sizeof text, "environment: %s (%s): %s", origin.variable, key, message);
  } else if (origin.setting != NULL) {
    loader_file(loader, config_setting_source_file(origin.setting), file, sizeof file);
    snprintf(text, sizeof text, "%s:%u: %s: %s", file,
             (unsigned)config_setting_source_line(origin.setting), key, message);
  } else {
    snprintf(text, sizeof text, "%s: %s: %s", loader->path, key, message);
  }
  loader->faults++;
  loader->report(text, loader->context);
}

// The name in the table, or the section of one, that comes nearest to name.
void loader_fault_unknown(struct loader *loader, struct key_table table,
                          const config_setting_t *setting, const char *name, const char *path) {
  char candidate[LOADER_NAME_BYTES], nearest[LOADER_NAME_BYTES] = "";
  size_t best = 3;  // changes: from here on it is another word
  for (size_t i = 0; i < table.count; i++) {
    for (const char *end = table.keys[i].path; *end != '\0';) {
      end += strcspn(end + 1, ".") + 1;
      snprintf(candidate, sizeof candidate, "%.*s", (int)(end - table.keys[i].path),
               table.keys[i].path);
      size_t distance = config_value_distance(path, candidate);
      if (distance < best) {
        best = distance;
        memcpy(nearest, candidate, sizeof nearest);
      }
    }
  }
  if (nearest[0] != '\0') {
    loader_fault(loader, at(setting), name, "unknown key; did you mean \"%s\"?", nearest);
  } else {
    loader_fault(loader, at(setting), name, "unknown key");
  }
}

// --- From libconfig's tree ----------------------------------------------------

const char *loader_type_text(const config_setting_t *setting) {
  switch (config_setting_type(setting)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64: return "a number";
    case CONFIG_TYPE_FLOAT: return "a number with a fraction";
    case CONFIG_TYPE_STRING: return "a string";
    case CONFIG_TYPE_BOOL: return "true or false";
    case CONFIG_TYPE_ARRAY: return "an array [ ... ]";
    case CONFIG_TYPE_LIST: return "a list ( ... )";
    case CONFIG_TYPE_GROUP: return "a group { ... }";
    default: return "nothing";
  }
}

static bool is_integer(const config_setting_t *setting) {
  return config_setting_type(setting) == CONFIG_TYPE_INT ||
         config_setting_type(setting) == CONFIG_TYPE_INT64;
}

// The number as it stands in the file: libconfig silently cuts one without an L at
// its end to 32 bits. Leaves text as it is where it can't be found, on another line.
static void number_reread(const struct loader *loader, const config_setting_t *setting, char *text,
                          size_t size) {
  char path[2 * CONFIG_PATH_BYTES], line[FAULT_BYTES] = "";
  const char *file_name = config_setting_source_file(setting), *name = config_setting_name(setting);
  if (file_name == NULL) {
    return;
  }
  loader_file(loader, file_name, path, sizeof path);
  FILE *file = fopen(path, "re");
  if (file == NULL) {
    return;
  }
  for (unsigned at_line = 1; fgets(line, sizeof line, file) != NULL;) {
    if (at_line == config_setting_source_line(setting)) {
      break;
    }
    at_line += strchr(line, '\n') != NULL;
  }
  fclose(file);
  for (const char *found = line; (found = strstr(found, name)) != NULL;) {
    found += strlen(name);
    const char *value = found + strspn(found, " \t");
    value += *value == '=' || *value == ':';
    value += strspn(value, " \t");
    size_t len = strspn(value, "-0123456789");
    // Another one of this name may be on the line.
    bool is_it = (int32_t)strtoll(value, NULL, 10) == (int32_t)config_setting_get_int64(setting);
    if (len > 0 && len < size && is_it && strchr("xX", value[len]) == NULL) {
      snprintf(text, size, "%.*s", (int)len, value);
      return;
    }
  }
}

static void modules_read(struct loader *loader, struct config_tunnel_type *type, const char *name,
                         const config_setting_t *setting) {
  if (!config_setting_is_array(setting) && !config_setting_is_list(setting)) {
    loader_fault(loader, at(setting), name, "must be module ids, such as [6, 7], not %s",
                 loader_type_text(setting));
    return;
  }
  int count = config_setting_length(setting);
  if (count > CONFIG_MODULES) {
    loader_fault(loader, at(setting), name, "has more than %d modules", CONFIG_MODULES);
    return;
  }
  for (int i = 0; i < count; i++) {
    const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);
    int64_t module = is_integer(element) ? config_setting_get_int64(element) : -1;
    if (module < 0 || module > INT32_MAX) {
      loader_fault(loader, at(element), name, "a module id must be a whole number from 0 to %d",
                   INT32_MAX);
      continue;
    }
    type->modules[type->module_count++] = (int32_t)module;
  }
}

// A string, or the strings of an array with commas between them; too many are cut to
// what is too long for the field anyway. NULL for anything else.
static const char *texts_join(const config_setting_t *setting, char *joined, size_t size) {
  if (!config_setting_is_array(setting) && !config_setting_is_list(setting)) {
    return config_setting_get_string(setting);
  }
  int count = config_setting_length(setting);
  size_t len = 0;
  joined[0] = '\0';
  for (int i = 0; i < count; i++) {
    const char *one = config_setting_get_string_elem(setting, i);
    if (one == NULL) {
      return NULL;
    }
    int added = snprintf(joined + len, size - len, "%s%s", i > 0 ? "," : "", one);
    len = len + (size_t)added < size ? len + (size_t)added : size - 1;
  }
  return joined;
}

// Whether an entry of an array would be taken for several.
static bool has_commas(const config_setting_t *setting) {
  for (int i = 0; config_setting_is_aggregate(setting) && i < config_setting_length(setting); i++) {
    const char *one = config_setting_get_string_elem(setting, i);
    if (one != NULL && strchr(one, ',') != NULL) {
      return true;
    }
  }
  return false;
}

// An array, each of whose entries is reported at its own line.
static void networks_read(struct loader *loader, struct networks *networks, const char *name,
                          const config_setting_t *setting) {
  memset(networks, 0, sizeof *networks);
  for (int i = 0; i < config_setting_length(setting); i++) {
    const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);
    const char *text = config_setting_get_string(element);
    if (text == NULL) {
      loader_fault(loader, at(element), name, "must be strings in quotes, not %s",
                   loader_type_text(element));
    } else if (!loader_add_network(loader, networks, at(element), name, text, strlen(text))) {
      return;
    }
  }
}

static void key_read(struct loader *loader, const struct key *key, void *base, const char *name,
                     const config_setting_t *setting) {
  char number[32], joined[LOADER_VALUE_BYTES];
  const char *text = NULL, *wanted;
  switch (key->kind) {
    case KEY_BOOL:
      wanted = "true or false";
      if (config_setting_type(setting) == CONFIG_TYPE_BOOL) {
        text = config_setting_get_bool(setting) ? "true" : "false";
      }
      break;
    case KEY_INTEGER:
      wanted = "a whole number";
      if (is_integer(setting)) {
        snprintf(number, sizeof number, "%lld", config_setting_get_int64(setting));
        number_reread(loader, setting, number, sizeof number);
        text = number;
      }
      break;
    case KEY_MODULES: modules_read(loader, base, name, setting); return;
    case KEY_NETWORKS:
      wanted = "an array of addresses and networks, such as [\"192.0.2.7\", \"10.0.0.0/8\"]";
      if (config_setting_is_array(setting) || config_setting_is_list(setting)) {
        networks_read(loader, (void *)((char *)base + key->offset), name, setting);
        return;
      }
      text = config_setting_get_string(setting);
      break;
    case KEY_ADDRESSES:
      wanted = "host:port in quotes, or an array of such, [\"...\", \"...\"]";
      text = texts_join(setting, joined, sizeof joined);
      break;
    case KEY_PATHS:
    case KEY_TEXTS:
      wanted = "a string in quotes, or an array of such without commas, [\"...\", \"...\"]";
      if (has_commas(setting)) {
        break;
      }
      text = texts_join(setting, joined, sizeof joined);
      break;
    default:
      wanted = key->kind == KEY_DURATION  ? "a duration in quotes, such as \"600s\""
               : key->kind == KEY_ADDRESS ? "host:port in quotes"
                                          : "a string in quotes";
      text = config_setting_get_string(setting);
      break;
  }
  if (text == NULL) {
    loader_fault(loader, at(setting), name, "must be %s, not %s", wanted,
                 loader_type_text(setting));
    return;
  }
  loader_set(loader, key, base, at(setting), name, text);
}

static bool is_section(struct key_table table, const char *path) {
  size_t len = strlen(path);
  for (size_t i = 0; i < table.count; i++) {
    if (strncmp(table.keys[i].path, path, len) == 0 && table.keys[i].path[len] == '.') {
      return true;
    }
  }
  return false;
}

// Everything in group, the root or a section of the main table, whose path is
// prefix ("" or "server." and the like).
static void section_read(struct loader *loader, const config_setting_t *group, const char *prefix) {
  for (int i = 0; i < config_setting_length(group); i++) {
    const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
    char path[LOADER_NAME_BYTES];
    snprintf(path, sizeof path, "%s%s", prefix, config_setting_name(setting));
    const struct key *key = key_table_find(config_keys, path);
    if (key != NULL) {
      loader->origins[key - config_keys.keys] = at(setting);
      switch (key->kind) {
        case KEY_NODES: loader->nodes = setting; break;
        case KEY_TUNNEL_TYPES: loader->types = setting; break;
        case KEY_LISTENERS: loader->listeners = setting; break;
        case KEY_SECRET: loader->secret = setting; break;
        case KEY_ELSEWHERE:
          loader_fault(loader, at(setting), path, "is a secret: put it into secret.conf, as %s",
                       key->choices);
          break;
        default: key_read(loader, key, loader->config, path, setting); break;
      }
    } else if (!is_section(config_keys, path)) {
      loader_fault_unknown(loader, config_keys, setting, path, path);
    } else if (!config_setting_is_group(setting)) {
      loader_fault(loader, at(setting), path, "must be a group { ... }, not %s",
                   loader_type_text(setting));
    } else {
      char deeper[LOADER_NAME_BYTES + 1];
      snprintf(deeper, sizeof deeper, "%s.", path);
      section_read(loader, setting, deeper);
    }
  }
}

// Reports what in group, an entry of a list or a section in one, is in no row of the table.
// name is the group's, as a user reads it; prefix, as the table has it.
static void entry_check_unknown(struct loader *loader, struct key_table table,
                                const config_setting_t *group, const char *name,
                                const char *prefix) {
  for (int i = 0; i < config_setting_length(group); i++) {
    const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
    char path[LOADER_NAME_BYTES], whole[2 * LOADER_NAME_BYTES];
    snprintf(path, sizeof path, "%s%s", prefix, config_setting_name(setting));
    snprintf(whole, sizeof whole, "%s.%s", name, path);
    if (key_table_find(table, path) != NULL) {
      continue;
    }
    if (!is_section(table, path)) {
      loader_fault_unknown(loader, table, setting, whole, path);
    } else if (!config_setting_is_group(setting)) {
      loader_fault(loader, at(setting), whole, "must be a group { ... }, not %s",
                   loader_type_text(setting));
    } else {
      char deeper[LOADER_NAME_BYTES + 1];
      snprintf(deeper, sizeof deeper, "%s.", path);
      entry_check_unknown(loader, table, setting, name, deeper);
    }
  }
}

// One entry of a list, { ... }, into the struct at base.
static void entry_read(struct loader *loader, struct key_table table, void *base,
                       const config_setting_t *entry, const char *name) {
  if (!config_setting_is_group(entry)) {
    loader_fault(loader, at(entry), name, "must be a group { ... }, not %s",
                 loader_type_text(entry));
    return;
  }
  for (size_t i = 0; i < table.count; i++) {
    const struct key *key = &table.keys[i];
    char path[2 * LOADER_NAME_BYTES];
    snprintf(path, sizeof path, "%s.%s", name, key->path);
    const config_setting_t *setting =
        config_setting_lookup((config_setting_t *)(uintptr_t)entry, key->path);
    if (key->initial != NULL) {
      loader_set(loader, key, base, at(entry), path, key->initial);
    }
    if (setting != NULL) {
      key_read(loader, key, base, path, setting);
    } else if (key->required) {
      loader_fault(loader, at(entry), path, "is missing");
    }
  }
  entry_check_unknown(loader, table, entry, name, "");
}

static int list_length(struct loader *loader, const config_setting_t *list, const char *name,
                       int most) {
  if (!config_setting_is_list(list)) {
    loader_fault(loader, at(list), name, "must be a list ( { ... }, ... ), not %s",
                 loader_type_text(list));
    return 0;
  }
  if (config_setting_length(list) > most) {
    loader_fault(loader, at(list), name, "has %d entries, %d is the most",
                 config_setting_length(list), most);
    return 0;
  }
  return config_setting_length(list);
}

static void nodes_read(struct loader *loader, const config_setting_t *list) {
  struct config *config = loader->config;
  int count = list_length(loader, list, "nodes", CONFIG_NODES);
  for (int i = 0; i < count; i++) {
    const config_setting_t *entry = config_setting_get_elem(list, (unsigned)i);
    struct node *node = &config->registry.nodes[i];
    char name[32];
    snprintf(name, sizeof name, "nodes[%d]", i);
    memcpy(node->color, config->label.color, sizeof node->color);
    entry_read(loader, config_node_keys, node, entry, name);
    for (int j = 0; j < i; j++) {
      const struct node *other = &config->registry.nodes[j];
      if (node->address[0] != '\0' && node_compare(node, other) == 0) {
        loader_fault(loader, at(entry), name,
                     "is the same service at the same address as nodes[%d]", j);
      }
    }
  }
  config->registry.node_count = (size_t)count;
}

// --- Tunnel types -------------------------------------------------------------

static const struct config_tunnel_type default_types[] = {
    {.name = "player",
     .service = "roma.player.service",
     .method = "/player.intra.v1.TunnelService/Tunnel",
     .default_modules = true,
     .own_object_only = true,
     .tier = ROUTE_PLAYER,
     .main = true},
    {.name = "room",
     .service = "roma.room.service",
     .method = "/room.intra.v1.TunnelService/Tunnel",
     .modules = {6},
     .module_count = 1,
     .fragments = true,
     .tier = ROUTE_OBJECT},
};

static void type_check_modules(struct loader *loader, const config_setting_t *entry,
                               const char *name, int index) {
  const struct config_tunnel_type *types = loader->config->tunnel.types, *type = &types[index];
  for (size_t m = 0; m < type->module_count; m++) {
    for (int other = 0; other <= index; other++) {
      size_t end = other == index ? m : types[other].module_count;
      for (size_t n = 0; n < end; n++) {
        if (types[other].modules[n] == type->modules[m]) {
          loader_fault(loader, at(entry), name,
                       "module %" PRId32 " is named twice, in tunnel.types[%d] too",
                       type->modules[m], other);
        }
      }
    }
  }
}

static void types_read(struct loader *loader, const config_setting_t *list) {
  struct config_tunnel_type *types = loader->config->tunnel.types;
  size_t faults_before = loader->faults;
  int count = list_length(loader, list, "tunnel.types", CONFIG_TUNNEL_TYPES);
  int defaults = 0, mains = 0;
  for (int i = 0; i < count; i++) {
    const config_setting_t *entry = config_setting_get_elem(list, (unsigned)i);
    struct config_tunnel_type *type = &types[i];
    char name[32], path[64];
    snprintf(name, sizeof name, "tunnel.types[%d]", i);
    entry_read(loader, config_type_keys, type, entry, name);
    type->tier = type->main ? ROUTE_PLAYER : ROUTE_OBJECT;
    for (int j = 0; j < i; j++) {
      if (type->name[0] != '\0' && strcmp(type->name, types[j].name) == 0) {
        snprintf(path, sizeof path, "%s.name", name);
        loader_fault(loader, at(entry), path, "tunnel.types[%d] is called \"%s\" already", j,
                     type->name);
      }
    }
    snprintf(path, sizeof path, "%s.modules", name);
    type_check_modules(loader, entry, path, i);
    if (config_setting_is_group(entry) && type->module_count == 0 && !type->default_modules &&
        !type->main && config_setting_get_member(entry, "modules") == NULL) {
      loader_fault(loader, at(entry), path, "is missing: without modules the tunnel is never used");
    }
    if (type->default_modules && defaults++ > 0) {
      snprintf(path, sizeof path, "%s.default", name);
      loader_fault(loader, at(entry), path, "only one type can take all other modules");
    }
    if (type->main && mains++ > 0) {
      snprintf(path, sizeof path, "%s.main", name);
      loader_fault(loader, at(entry), path, "only one type can be the main tunnel");
    }
  }
  if (mains == 0 && loader->faults == faults_before) {
    loader_fault(loader, at(list), "tunnel.types", "one type must have main = true");
  }
  loader->config->tunnel.type_count = (size_t)count;
}

// Reports what of the table stands in the entry.
static void entry_refuse(struct loader *loader, struct key_table table,
                         const config_setting_t *entry, const char *name, const char *fault) {
  for (size_t k = 0; config_setting_is_group(entry) && k < table.count; k++) {
    const config_setting_t *setting =
        config_setting_lookup((config_setting_t *)(uintptr_t)entry, table.keys[k].path);
    char path[2 * LOADER_NAME_BYTES];
    snprintf(path, sizeof path, "%s.%s", name, table.keys[k].path);
    if (setting != NULL) {
      loader_fault(loader, at(setting), path, "%s", fault);
    }
  }
}

static void listeners_read(struct loader *loader, const config_setting_t *list) {
  struct config *config = loader->config;
  int count = list_length(loader, list, "server.listeners", CONFIG_LISTENERS - LISTENER_MORE);
  for (int i = 0; i < count; i++) {
    const config_setting_t *entry = config_setting_get_elem(list, (unsigned)i);
    struct config_listener *listener = &config->server.listeners[LISTENER_MORE + i];
    char name[32], path[64];
    snprintf(name, sizeof name, "server.listeners[%d]", i);
    entry_read(loader, config_listener_keys, listener, entry, name);
    if (config_setting_is_group(entry) && config_setting_get_member(entry, "addr") == NULL) {
      snprintf(path, sizeof path, "%s.addr", name);
      loader_fault(loader, at(entry), path, "is missing");
    }
    if (listener->transport == TRANSPORT_TCP && !loader->saved) {
      entry_refuse(loader, config_websocket_keys, entry, name, "is for transport = \"ws\" only");
    } else if (listener->transport == TRANSPORT_KCP && !loader->saved) {
      entry_refuse(loader, config_stream_keys, entry, name, "is not for transport = \"kcp\"");
    }
    loader_check_listener(loader, listener, at(entry), name);
  }
  config->server.listener_count = LISTENER_MORE + (size_t)count;
}

// --- The environment, the profile, and paths -------------------------------

// The variable that overrides path: server.tcp.addr is JANUS_SERVER_TCP_ADDR.
void loader_variable_name(char *variable, size_t size, const char *path) {
  snprintf(variable, size, "JANUS_%s", path);
  for (char *c = variable; *c != '\0'; c++) {
    *c = *c == '.' ? '_' : (char)toupper((unsigned char)*c);
  }
}

static void environment_apply(struct loader *loader) {
  for (size_t i = 0; i < config_keys.count; i++) {
    char *variable = loader->variables[i];
    loader_variable_name(variable, sizeof loader->variables[i], config_keys.keys[i].path);
    const char *text = key_is_scalar(&config_keys.keys[i]) ? getenv(variable) : NULL;
    if (text != NULL) {
      loader->origins[i] = (struct origin){NULL, variable};
      loader_set(loader, &config_keys.keys[i], loader->config, loader->origins[i],
                 config_keys.keys[i].path, text);
    }
  }
  loader_check_environment(loader);
}

// What the profile says of those keys that nobody has given.
static void profile_apply(struct loader *loader) {
  const struct profile_value *value = config_kcp_profile(loader->config->kcp.profile);
  for (; value->path != NULL; value++) {
    const struct key *key = key_table_find(config_keys, value->path);
    const struct origin *origin = &loader->origins[key - config_keys.keys];
    if (origin->setting == NULL && origin->variable == NULL) {
      loader_set(loader, key, loader->config, *origin, value->path, value->text);
    }
  }
}

// Makes the paths in a field, with commas between them, good from any folder, and checks that
// the files can be read.
static void paths_resolve(struct loader *loader, const struct key *key, void *base,
                          struct origin origin, const char *name) {
  char *field = (char *)base + key->offset, resolved[LOADER_VALUE_BYTES];
  size_t len = 0;
  resolved[0] = '\0';
  if (key->kind == KEY_PATHS && field[0] != '\0' && strchr(loader->folder, ',') != NULL) {
    loader_fault(loader, origin, name, "can't be looked for in %s, which has a comma in its name",
                 loader->folder);
    return;
  }
  for (const char *path = field; *path != '\0'; path += *path == ',') {
    char whole[LOADER_VALUE_BYTES];
    path += key->kind == KEY_PATHS ? strspn(path, " ") : 0;
    int path_len = (int)strcspn(path, key->kind == KEY_PATHS ? "," : "");
    snprintf(whole, sizeof whole, "%s%s%.*s", path[0] == '/' ? "" : loader->folder,
             path[0] == '/' ? "" : "/", path_len, path);
    if (access(whole, R_OK) != 0) {
      loader_fault(loader, origin, name, "%s can't be read: %s", whole, strerror(errno));
      return;
    }
    if (len + strlen(whole) + 2 > sizeof resolved) {
      len = sizeof resolved;
      break;
    }
    len +=
        (size_t)snprintf(resolved + len, sizeof resolved - len, "%s%s", len > 0 ? "," : "", whole);
    path += path_len;
  }
  if (len >= key->size) {
    loader_fault(loader, origin, name, "%s", "the path is too long, with its folder");
  } else {
    memcpy(field, resolved, len + 1);
  }
}

static bool is_paths(const struct key *key) {
  return key->kind == KEY_PATH || key->kind == KEY_PATHS;
}

static void all_paths_resolve(struct loader *loader) {
  struct config *config = loader->config;
  for (size_t i = 0; i < config_keys.count; i++) {
    if (is_paths(&config_keys.keys[i])) {
      paths_resolve(loader, &config_keys.keys[i], config, loader->origins[i],
                    config_keys.keys[i].path);
    }
  }
  for (size_t i = LISTENER_MORE; i < config->server.listener_count; i++) {
    for (size_t k = 0; k < config_listener_keys.count; k++) {
      char name[LOADER_NAME_BYTES];
      snprintf(name, sizeof name, "server.listeners[%zu].%s", i - LISTENER_MORE,
               config_listener_keys.keys[k].path);
      if (is_paths(&config_listener_keys.keys[k])) {
        paths_resolve(loader, &config_listener_keys.keys[k], &config->server.listeners[i],
                      loader_listener_origin(loader, i), name);
      }
    }
  }
}

// --- Loading and saving -------------------------------------------------------

static void fault_parse(struct loader *loader, const config_t *tree) {
  char file[2 * CONFIG_PATH_BYTES], text[sizeof file + 512];
  if (config_error_type(tree) == CONFIG_ERR_FILE_IO) {
    snprintf(text, sizeof text, "%s: can't be read: %s", loader->path, strerror(errno));
  } else {
    const char *message = config_error_text(tree);
    loader_file(loader, config_error_file(tree), file, sizeof file);
    bool include = strstr(message, "include") != NULL;
    snprintf(text, sizeof text, "%s:%d: %s%s%s", file, config_error_line(tree), message,
             include ? "; it is looked for in " : "", include ? loader->folder : "");
  }
  loader->faults++;
  loader->report(text, loader->context);
}

static void loader_defaults(struct loader *loader) {
  struct config *config = loader->config;
  memset(config, 0, sizeof *config);
  for (size_t i = 0; i < config_keys.count; i++) {
    if (config_keys.keys[i].initial != NULL) {
      loader_set(loader, &config_keys.keys[i], config, (struct origin){0}, config_keys.keys[i].path,
                 config_keys.keys[i].initial);
    }
  }
  memcpy(config->tunnel.types, default_types, sizeof default_types);
  config->tunnel.type_count = sizeof default_types / sizeof *default_types;
  config->server.listeners[LISTENER_WS].transport = TRANSPORT_WS;
  config->server.listeners[LISTENER_KCP].transport = TRANSPORT_KCP;
  config->server.listener_count = LISTENER_MORE;
}

// What the tables say has no faults.
static void report_nothing(const char *fault, void *context) {
  (void)fault;
  (void)context;
}

int config_kcp_of_profile(enum kcp_profile profile, struct config_kcp *kcp) {
  struct config *config = malloc(sizeof *config);
  if (config == NULL) {
    return ERROR_MEMORY;
  }
  struct loader loader = {.config = config, .report = report_nothing};
  loader_defaults(&loader);
  config->kcp.profile = profile;
  profile_apply(&loader);
  *kcp = config->kcp;
  free(config);
  return 0;
}

// The lists, once the scalars are known.
static void lists_read(struct loader *loader) {
  if (loader->nodes != NULL) {
    nodes_read(loader, loader->nodes);
  }
  if (loader->types != NULL) {
    memset(loader->config->tunnel.types, 0, sizeof loader->config->tunnel.types);
    types_read(loader, loader->types);
  }
  if (loader->listeners != NULL) {
    listeners_read(loader, loader->listeners);
  }
}

int config_load_file(const char *path, struct config *config, struct secrets *secrets,
                     config_report *report, void *context) {
  struct loader loader = {.config = config, .path = path, .report = report, .context = context};
  const char *slash = strrchr(path, '/');
  int folder_len = slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path);
  snprintf(loader.folder, sizeof loader.folder, "%.*s", folder_len, slash == NULL ? "." : path);
  memset(secrets, 0, sizeof *secrets);
  loader_defaults(&loader);

  config_t tree;
  config_init(&tree);
  config_set_include_dir(&tree, loader.folder);
  struct stat status;
  errno = 0;
  if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {  // libconfig would exit
    loader_fault(&loader, (struct origin){0}, "the file", "is a folder");
  } else if (config_read_file(&tree, path) != CONFIG_TRUE) {
    fault_parse(&loader, &tree);
    loader_wipe_secrets(config_lookup(&tree, "secret"));  // read before the fault
  } else {
    section_read(&loader, config_root_setting(&tree), "");
    environment_apply(&loader);
    profile_apply(&loader);
    lists_read(&loader);
    loader_check_relations(&loader);
    all_paths_resolve(&loader);
    loader_read_secrets(&loader, secrets);
  }
  config_destroy(&tree);
  if (loader.faults > 0) {
    explicit_bzero(secrets, sizeof *secrets);
    return ERROR_INVALID;
  }
  return 0;
}

// All that can be read from fd, from its start where it has one: workers share
// the descriptor's position with the master that wrote it. malloc'd, with a NUL.
static char *descriptor_read(int fd) {
  char *text = malloc(SETTINGS_MAX_BYTES + 1);
  size_t len = 0;
  bool seekable = lseek(fd, 0, SEEK_CUR) >= 0;
  while (text != NULL && len <= SETTINGS_MAX_BYTES) {
    size_t room = SETTINGS_MAX_BYTES + 1 - len;
    ssize_t got = seekable ? pread(fd, text + len, room, (off_t)len) : read(fd, text + len, room);
    if (got == 0) {
      text[len] = '\0';
      return text;
    }
    if (got > 0) {
      len += (size_t)got;
    } else if (errno != EINTR) {
      break;
    }
  }
  free(text);
  return NULL;
}

int config_load_text(const char *text, struct config *config, config_report *report,
                     void *context) {
  struct loader loader = {.config = config,
                          .path = "settings",
                          .folder = ".",
                          .saved = true,
                          .report = report,
                          .context = context};
  loader_defaults(&loader);
  config_t tree;
  config_init(&tree);
  if (config_read_string(&tree, text) != CONFIG_TRUE) {
    fault_parse(&loader, &tree);
  } else {
    section_read(&loader, config_root_setting(&tree), "");
    if (loader.secret != NULL) {
      loader_fault(&loader, at(loader.secret), "secret", "does not belong into the settings");
    }
    profile_apply(&loader);
    lists_read(&loader);
    loader_check_relations(&loader);
  }
  config_destroy(&tree);
  return loader.faults > 0 ? ERROR_INVALID : 0;
}

int config_load_fd(int fd, struct config *config, config_report *report, void *context) {
  char *text = descriptor_read(fd);
  if (text == NULL) {
    report("the settings can't be read, or are too large", context);
    return ERROR_INVALID;
  }
  int error = config_load_text(text, config, report, context);
  free(text);
  return error;
}
