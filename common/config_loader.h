// How a configuration is read: what the files config_*.c share, and nobody
// else includes.
#ifndef JANUS_COMMON_CONFIG_LOADER_H
#define JANUS_COMMON_CONFIG_LOADER_H

#include <libconfig.h>

#include "common/config.h"

enum {
  LOADER_VALUE_BYTES = 2048,  // a value as text
  LOADER_NAME_BYTES = 128,    // a key's full path; a longer one is unknown anyway
  LOADER_KEYS_MAX = 224,      // rows of a table, at most
};

enum key_kind {
  KEY_BOOL,
  KEY_INTEGER,    // min to max; int32_t, uint32_t or int64_t by the field's size
  KEY_DURATION,   // "600s", in milliseconds; min to max
  KEY_TEXT,       // min or more bytes
  KEY_ADDRESS,    // host:port, the port being min or more; max 1: may be empty
  KEY_ADDRESSES,  // one or more, separated by commas; in a file also as an array; max 1: may be
                  // URLs
  KEY_PATH,       // of a file or folder, looked for where an @include is; or empty
  KEY_PATHS,      // several, as addresses are listed; or none
  KEY_TEXTS,      // texts without blanks and commas, as addresses are listed; or none
  KEY_METHOD,     // "/package.Service/Method"
  KEY_CHOICE,     // one of `choices`, kept as its number, or not at all (size 0)
  KEY_NETWORKS,   // addresses and networks, as addresses are listed; or none
  KEY_MODULES,    // the modules of a tunnel type
  // Read on their own, after all the above.
  KEY_NODES,
  KEY_TUNNEL_TYPES,
  KEY_LISTENERS,
  KEY_SECRET,
  KEY_ELSEWHERE,  // never here: `choices` says where it belongs
};

struct key {
  const char *path;
  enum key_kind kind;
  size_t offset;  // of the field in its struct
  size_t size;
  const char *initial;  // the default, as text; NULL: must be given, or was filled in before
  int64_t min;
  int64_t max;
  const char *choices;  // separated by '|', in the order of the enum
  bool required;
  enum config_change change;
};

struct key_table {
  const struct key *keys;
  size_t count;
};
#define TABLE(array) \
  { array, sizeof array / sizeof *array }

// config_keys.c: those of the whole, and of one entry of `nodes`, `tunnel.types` and
// `server.listeners`; the last are those that only a listener for WebSocket has, and those that
// one for KCP has not.
extern const struct key_table config_keys, config_node_keys, config_type_keys, config_listener_keys,
    config_websocket_keys, config_stream_keys;

// What the profile sets of those keys of `kcp` that are not given, down to a path of NULL.
struct profile_value {
  const char *path;
  const char *text;
};
const struct profile_value *config_kcp_profile(enum kcp_profile profile);

// A value of its own, no list.
static inline bool key_is_scalar(const struct key *key) { return key->kind < KEY_MODULES; }

// Where a value came from: a setting in a file, a variable of the environment,
// or neither.
struct origin {
  const config_setting_t *setting;
  const char *variable;
};

struct loader {
  struct config *config;
  const char *path;                // of the main file
  char folder[CONFIG_PATH_BYTES];  // what it includes is looked for here
  config_report *report;
  void *context;
  bool saved;  // what is read is what config_save wrote
  size_t faults;
  struct origin origins[LOADER_KEYS_MAX];              // of the values of `keys`
  char variables[LOADER_KEYS_MAX][LOADER_NAME_BYTES];  // that override them
  const config_setting_t *nodes;
  const config_setting_t *types;
  const config_setting_t *listeners;
  const config_setting_t *secret;
};

// The key of that path, or NULL.
const struct key *key_table_find(struct key_table table, const char *path);

// The file that libconfig names, as the user would.
void loader_file(const struct loader *loader, const char *file, char *buffer, size_t size);
// What kind of value it is, in words.
const char *loader_type_text(const config_setting_t *setting);

// Reports one fault of key, at the place its value came from.
void loader_fault(struct loader *loader, struct origin origin, const char *key, const char *format,
                  ...) __attribute__((format(printf, 4, 5)));
// Reports name as unknown, with the one of the table (or the section of one) that
// comes nearest to path.
void loader_fault_unknown(struct loader *loader, struct key_table table,
                          const config_setting_t *setting, const char *name, const char *path);

// config_field.c: one value, from text to its field in the struct at base and back. A bad
// value is reported under name and leaves the field.
void loader_set(struct loader *loader, const struct key *key, void *base, struct origin origin,
                const char *name, const char *text);
// The value as loader_set takes it.
void key_text(const struct key *key, const void *base, char *buffer, size_t size);
// Adds the network that text is to the list, or reports that it is none. False: the list
// is full.
bool loader_add_network(struct loader *loader, struct networks *networks, struct origin origin,
                        const char *name, const char *text, size_t len);

static inline struct origin at(const config_setting_t *setting) {
  return (struct origin){setting, NULL};
}

// config_check.c: what must fit together, once all values are known.
void loader_check_relations(struct loader *loader);
// And in one listener; name is the listener's, as a user reads it. A fault is at origin, unless its
// key was given at a place of its own.
void loader_check_listener(struct loader *loader, const struct config_listener *listener,
                           struct origin origin, const char *name);
// Where the listener of that index is given.
struct origin loader_listener_origin(const struct loader *loader, size_t index);

// config_secrets.c: reads the section `secret` and the files of private keys that the settings
// name.
void loader_read_secrets(struct loader *loader, struct secrets *secrets);
// Overwrites the texts of that section, so that none stays in freed memory; accepts NULL.
void loader_wipe_secrets(const config_setting_t *section);
// Reports each secret that is in the environment.
void loader_check_environment(struct loader *loader);
// The variable that overrides path: server.tcp.addr is JANUS_SERVER_TCP_ADDR.
void loader_variable_name(char *variable, size_t size, const char *path);

#endif
