#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/config_loader.h"
#include "common/config_value.h"

static const struct key secret_keys[] = {
    {.path = "secret.account_aes_key", .kind = KEY_TEXT},
    {.path = "secret.server_cert_version", .kind = KEY_INTEGER},
    {.path = "secret.server_cert_private_key", .kind = KEY_TEXT},
    {.path = "secret.client_cert_version", .kind = KEY_INTEGER},
    {.path = "secret.client_cert", .kind = KEY_TEXT},
    {.path = "secret.redis_password", .kind = KEY_TEXT},
    {.path = "secret.redis_sentinel_password", .kind = KEY_TEXT},
    {.path = "secret.etcd_password", .kind = KEY_TEXT},
    {.path = "secret.push_token", .kind = KEY_TEXT},
    {.path = "secret.previous", .kind = KEY_SECRET},
};
static const struct key previous_keys[] = {
    {.path = "secret.previous.account_aes_key", .kind = KEY_TEXT},
    {.path = "secret.previous.server_cert_version", .kind = KEY_INTEGER},
    {.path = "secret.previous.server_cert_private_key", .kind = KEY_TEXT},
    {.path = "secret.previous.client_cert_version", .kind = KEY_INTEGER},
    {.path = "secret.previous.client_cert", .kind = KEY_TEXT},
    {.path = "secret.previous.until", .kind = KEY_TEXT},
};

static const struct key_table secret_table = TABLE(secret_keys);
static const struct key_table previous_table = TABLE(previous_keys);

// A group of secrets, and how it is called: "secret", "secret.previous[1]".
struct group {
  const config_setting_t *setting;
  const char *name;
};

// A file with a secret must be closed to others.
static void check_mode(struct loader *loader, struct origin origin, const char *key,
                       const char *file) {
  struct stat status;
  if (stat(file, &status) != 0) {
    loader_fault(loader, origin, key, "can't tell who may read %s: %s", file, strerror(errno));
  } else if ((status.st_mode & 007) != 0) {
    loader_fault(loader, origin, key,
                 "everybody on this machine can get at the file (mode %04o); run: chmod o-rwx %s",
                 (unsigned)status.st_mode & 07777, file);
  }
}

static void secret_check_file(struct loader *loader, const config_setting_t *setting) {
  char file[2 * CONFIG_PATH_BYTES];
  loader_file(loader, config_setting_source_file(setting), file, sizeof file);
  check_mode(loader, at(setting), "secret", file);
}

// The setting of that name; NULL, and reported, where it is of another type, still what the
// template has, or missing, which is a fault where there is something to say of it. *path is
// how it is called in full.
static const config_setting_t *secret_find(struct loader *loader, const struct group *group,
                                           const char *name, int type, const char *if_missing,
                                           char path[LOADER_NAME_BYTES]) {
  const config_setting_t *setting = config_setting_get_member(group->setting, name);
  snprintf(path, LOADER_NAME_BYTES, "%s.%s", group->name, name);
  if (setting == NULL) {
    if (if_missing != NULL) {
      loader_fault(loader, at(group->setting), path, "is missing; %s", if_missing);
    }
    return NULL;
  }
  if (config_setting_type(setting) != type) {
    loader_fault(loader, at(setting), path, "must be %s, not %s",
                 type == CONFIG_TYPE_INT ? "a whole number" : "a string in quotes",
                 loader_type_text(setting));
    return NULL;
  }
  if (type == CONFIG_TYPE_STRING &&
      strncmp(config_setting_get_string(setting), "REPLACE", strlen("REPLACE")) == 0) {
    loader_fault(loader, at(setting), path,
                 "is still the template's; make real keys with: janus-keys init");
    return NULL;
  }
  return setting;
}

// A password is optional: an absent one is empty.
static const config_setting_t *password_read(struct loader *loader, const char *name,
                                             char *password, size_t size) {
  const struct group secret = {loader->secret, "secret"};
  char path[LOADER_NAME_BYTES];
  const config_setting_t *setting =
      secret_find(loader, &secret, name, CONFIG_TYPE_STRING, NULL, path);
  const char *text = setting != NULL ? config_setting_get_string(setting) : "";
  if (strlen(text) >= size) {
    loader_fault(loader, at(setting), path, "must be shorter than %zu bytes", size);
  } else {
    memcpy(password, text, strlen(text) + 1);
  }
  return setting;
}

// It is shown in a header, which has no other characters and loses blanks at its ends.
static void push_token_read(struct loader *loader, char *token, size_t size) {
  const config_setting_t *setting = password_read(loader, "push_token", token, size);
  size_t len = strlen(token);
  bool fits = len == 0 || (token[0] != ' ' && token[len - 1] != ' ');
  for (size_t i = 0; i < len; i++) {
    fits = fits && token[i] >= 0x20 && token[i] < 0x7f;
  }
  if (!fits) {
    loader_fault(loader, at(setting), "secret.push_token",
                 "must be printable ASCII, without a blank at either end");
  }
}

// The private key of a TLS client certificate, from the file that the settings name.
static void key_file_read(struct loader *loader, const char *path, const char *file, char *pem,
                          size_t size) {
  if (file[0] == '\0') {
    return;
  }
  check_mode(loader, (struct origin){0}, path, file);
  FILE *in = fopen(file, "re");
  size_t len = in != NULL ? fread(pem, 1, size, in) : 0;
  if (in == NULL) {
    return;  // reported with the other files
  }
  fclose(in);
  if (len == 0 || len >= size) {
    loader_fault(loader, (struct origin){0}, path, "%s is %s", file,
                 len == 0 ? "empty" : "too large");
    len = 0;
  }
  pem[len] = '\0';
}

// --- Login keys ---------------------------------------------------------------

// Of the current keys each must be there; of previous ones what is left out is as it was filled
// in before, but a key comes with its version.
#define MAKE_THEM "make all the keys with: janus-keys init"
#define OF_WHICH  "of which version is the key beside it?"

static void account_key_read(struct loader *loader, const struct group *group,
                             const char *if_missing, struct login_keys *keys) {
  char path[LOADER_NAME_BYTES];
  const config_setting_t *setting =
      secret_find(loader, group, "account_aes_key", CONFIG_TYPE_STRING, if_missing, path);
  const char *text = setting != NULL ? config_setting_get_string(setting) : "";
  size_t len = strlen(text);
  if (len == 16 || len == 24 || len == 32) {
    memcpy(keys->account_aes_key, text, len);
    keys->account_aes_key_len = len;
  } else if (setting != NULL) {
    loader_fault(loader, at(setting), path, "must have 16, 24 or 32 bytes, and has %zu", len);
  }
}

// Returns whether it is there.
static bool version_read(struct loader *loader, const struct group *group, const char *name,
                         const char *if_missing, int32_t *version) {
  char path[LOADER_NAME_BYTES];
  const config_setting_t *setting =
      secret_find(loader, group, name, CONFIG_TYPE_INT, if_missing, path);
  if (setting != NULL) {
    *version = config_setting_get_int(setting);
  }
  return setting != NULL;
}

static bool server_key_read(struct loader *loader, const struct group *group,
                            const char *if_missing, struct login_keys *keys) {
  char path[LOADER_NAME_BYTES];
  const config_setting_t *setting =
      secret_find(loader, group, "server_cert_private_key", CONFIG_TYPE_STRING, if_missing, path);
  const char *text = setting != NULL ? config_setting_get_string(setting) : NULL;
  int result = text != NULL ? signing_key_from_pem(&keys->server_key, text, strlen(text)) : 0;
  if (result != 0) {
    loader_fault(
        loader, at(setting), path, "%s",
        result == ERROR_CRYPTO ? "is not an Ed25519 key" : "is not a private key in PKCS#8 PEM");
  }
  return setting != NULL;
}

static void client_cert_fault(struct loader *loader, const config_setting_t *setting,
                              const char *path, int error) {
  loader_fault(loader, at(setting), path, "%s",
               error == ERROR_EXPIRED  ? "is outside its time of validity; a new one is needed"
               : error == ERROR_CRYPTO ? "is not a certificate for an Ed25519 key"
                                       : "is not an X.509 certificate in PEM");
}

// *is_stale: it is a good one outside its time of validity, which is a fault only where that
// is not asked for.
static bool client_cert_read(struct loader *loader, const struct group *group,
                             const char *if_missing, struct login_keys *keys, bool *is_stale) {
  char path[LOADER_NAME_BYTES];
  const config_setting_t *setting =
      secret_find(loader, group, "client_cert", CONFIG_TYPE_STRING, if_missing, path);
  const char *text = setting != NULL ? config_setting_get_string(setting) : NULL;
  int result = text != NULL
                   ? verify_key_from_certificate(&keys->client_key, text, strlen(text), time(NULL))
                   : 0;
  if (is_stale != NULL && result == ERROR_EXPIRED) {
    *is_stale = true;
  } else if (result != 0) {
    client_cert_fault(loader, setting, path, result);
  }
  return setting != NULL;
}

static void current_read(struct loader *loader, struct login_keys *keys) {
  const struct group secret = {loader->secret, "secret"};
  const char *if_no_client = loader->config->label.encrypted ? MAKE_THEM : NULL;
  account_key_read(loader, &secret, MAKE_THEM, keys);
  version_read(loader, &secret, "server_cert_version", MAKE_THEM, &keys->server_cert_version);
  server_key_read(loader, &secret, MAKE_THEM, keys);
  version_read(loader, &secret, "client_cert_version", if_no_client, &keys->client_cert_version);
  client_cert_read(loader, &secret, if_no_client, keys, NULL);
  keys->has_certs = true;
}

static void until_read(struct loader *loader, const struct group *group, struct login_keys *keys) {
  char path[LOADER_NAME_BYTES];
  const config_setting_t *setting =
      secret_find(loader, group, "until", CONFIG_TYPE_STRING, NULL, path);
  if (setting == NULL) {
    return;
  }
  if (!config_value_parse_moment(config_setting_get_string(setting), &keys->until_ms)) {
    loader_fault(loader, at(setting), path, "must be a time such as \"2026-12-01T12:00:00Z\"");
  } else if (keys->until_ms < 1) {
    keys->until_ms = 1;  // 0 is for good
  }
}

// A certificate that has run out meanwhile must not keep the gateway from starting; nobody is
// let in by it.
static void previous_read(struct loader *loader, const struct group *group,
                          const struct login_keys *current, struct login_keys *keys) {
  bool is_stale = false;
  account_key_read(loader, group, NULL, keys);
  keys->server_key = current->server_key;
  keys->server_cert_version = current->server_cert_version;
  keys->client_key = current->client_key;
  keys->client_cert_version = current->client_cert_version;
  bool has_server = server_key_read(loader, group, NULL, keys);
  bool has_client = client_cert_read(loader, group, NULL, keys, &is_stale);
  has_server |= version_read(loader, group, "server_cert_version", has_server ? OF_WHICH : NULL,
                             &keys->server_cert_version);
  has_client |= version_read(loader, group, "client_cert_version", has_client ? OF_WHICH : NULL,
                             &keys->client_cert_version);
  keys->has_certs = (has_server || has_client) && !is_stale;
  until_read(loader, group, keys);
  int others = config_setting_get_member(group->setting, "until") != NULL;
  if (config_setting_length(group->setting) == others) {
    loader_fault(loader, at(group->setting), group->name, "has no key in it");
  }
}

// What stands in a group, at any depth: whether its keys are known, and whether the file of
// each is closed to others, where a part of it was included. *file: the one seen last.
static void members_check(struct loader *loader, const struct group *group, struct key_table table,
                          const char *table_name, const char **file) {
  for (int i = 0; i < config_setting_length(group->setting); i++) {
    const config_setting_t *setting = config_setting_get_elem(group->setting, (unsigned)i);
    char name[LOADER_NAME_BYTES], path[LOADER_NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", group->name, config_setting_name(setting));
    snprintf(path, sizeof path, "%s.%s", table_name, config_setting_name(setting));
    if (key_table_find(table, path) == NULL) {
      loader_fault_unknown(loader, table, setting, name, path);
    }
    const char *own_file = config_setting_source_file(setting);
    if (own_file != NULL && *file != NULL && strcmp(own_file, *file) != 0) {
      secret_check_file(loader, setting);  // an @include inside the section
      *file = own_file;
    }
  }
}

// One group, or a list of them.
static void all_previous_read(struct loader *loader, struct secrets *secrets, const char *file) {
  const config_setting_t *all = config_setting_get_member(loader->secret, "previous");
  bool is_list = all != NULL && config_setting_is_list(all);
  int count = all == NULL ? 0 : is_list ? config_setting_length(all) : 1;
  if (count > LOGIN_KEYS_PREVIOUS) {
    loader_fault(loader, at(all), "secret.previous", "has %d groups, and may have %d", count,
                 LOGIN_KEYS_PREVIOUS);
    return;
  }
  for (int i = 0; i < count; i++) {
    char name[LOADER_NAME_BYTES] = "secret.previous";
    const struct group group = {is_list ? config_setting_get_elem(all, (unsigned)i) : all, name};
    if (is_list) {
      snprintf(name, sizeof name, "secret.previous[%d]", i);
    }
    if (!config_setting_is_group(group.setting)) {
      loader_fault(loader, at(group.setting), name, "must be a group { ... }%s, not %s",
                   is_list ? "" : " or a list of them", loader_type_text(group.setting));
      continue;
    }
    members_check(loader, &group, previous_table, "secret.previous", &file);
    previous_read(loader, &group, &secrets->current, &secrets->previous[secrets->previous_count++]);
  }
}

static void section_read(struct loader *loader, struct secrets *secrets) {
  const config_setting_t *section = loader->secret;
  const struct group secret = {section, "secret"};
  if (section == NULL) {
    loader_fault(loader, (struct origin){0}, "secret",
                 "is missing; make the keys with: janus-keys init, and @include \"secret.conf\"");
    return;
  }
  if (!config_setting_is_group(section)) {
    loader_fault(loader, at(section), "secret", "must be a group { ... }, not %s",
                 loader_type_text(section));
    return;
  }
  secret_check_file(loader, section);
  const char *file = config_setting_source_file(section);
  members_check(loader, &secret, secret_table, "secret", &file);
  current_read(loader, &secrets->current);
  all_previous_read(loader, secrets, file);
  password_read(loader, "redis_password", secrets->redis_password, sizeof secrets->redis_password);
  password_read(loader, "redis_sentinel_password", secrets->redis_sentinel_password,
                sizeof secrets->redis_sentinel_password);
  password_read(loader, "etcd_password", secrets->etcd_password, sizeof secrets->etcd_password);
  push_token_read(loader, secrets->push_token, sizeof secrets->push_token);
}

// libconfig's copy of what was read, at any depth; its scanner's buffers are out of our reach.
void loader_wipe_secrets(const config_setting_t *section) {
  for (int i = 0; section != NULL && i < config_setting_length(section); i++) {
    const config_setting_t *setting = config_setting_get_elem(section, (unsigned)i);
    if (config_setting_type(setting) == CONFIG_TYPE_STRING) {
      char *text = (char *)(uintptr_t)config_setting_get_string(setting);
      explicit_bzero(text, strlen(text));
    } else if (config_setting_is_aggregate(setting)) {
      loader_wipe_secrets(setting);
    }
  }
}

void loader_read_secrets(struct loader *loader, struct secrets *secrets) {
  const struct config *config = loader->config;
  section_read(loader, secrets);
  key_file_read(loader, "data.redis.tls.key", config->data.redis.tls.key, secrets->redis_tls_key,
                sizeof secrets->redis_tls_key);
  key_file_read(loader, "etcd.tls.key", config->etcd.tls.key, secrets->etcd_tls_key,
                sizeof secrets->etcd_tls_key);
  key_file_read(loader, "tunnel.tls.key", config->tunnel.tls.key, secrets->tunnel_tls_key,
                sizeof secrets->tunnel_tls_key);
  if (loader->secret != NULL && config_setting_is_group(loader->secret)) {
    loader_wipe_secrets(loader->secret);
  }
}

static void table_check_environment(struct loader *loader, struct key_table table) {
  for (size_t i = 0; i < table.count; i++) {
    char variable[LOADER_NAME_BYTES];
    loader_variable_name(variable, sizeof variable, table.keys[i].path);
    if (getenv(variable) != NULL) {
      loader_fault(loader, (struct origin){NULL, variable}, table.keys[i].path,
                   "a secret is not taken from the environment, where others can see it; "
                   "put it into secret.conf");
    }
  }
}

void loader_check_environment(struct loader *loader) {
  table_check_environment(loader, secret_table);
  table_check_environment(loader, previous_table);
}
