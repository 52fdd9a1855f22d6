#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/config_loader.h"

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
};

static const struct key_table secret_table = TABLE(secret_keys);

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

// The setting `secret.<name>`; NULL, and reported, where it is missing, of another
// type, or still what the template has.
static const config_setting_t *secret_find(struct loader *loader, const char *path, int type,
                                           bool required) {
  const config_setting_t *setting =
      config_setting_get_member(loader->secret, strchr(path, '.') + 1);
  if (setting == NULL) {
    if (required) {
      loader_fault(loader, at(loader->secret), path,
                   "is missing; make all the keys with: janus-keys init");
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
static void password_read(struct loader *loader, const char *path, char *password, size_t size) {
  const config_setting_t *setting = secret_find(loader, path, CONFIG_TYPE_STRING, false);
  const char *text = setting != NULL ? config_setting_get_string(setting) : "";
  if (strlen(text) >= size) {
    loader_fault(loader, at(setting), path, "must be shorter than %zu bytes", size);
  } else {
    memcpy(password, text, strlen(text) + 1);
  }
}

// It is shown in a header, which has no other characters and loses blanks at its ends.
static void token_read(struct loader *loader, const char *path, char *token, size_t size) {
  password_read(loader, path, token, size);
  size_t len = strlen(token);
  bool fits = len == 0 || (token[0] != ' ' && token[len - 1] != ' ');
  for (size_t i = 0; i < len; i++) {
    fits = fits && token[i] >= 0x20 && token[i] < 0x7f;
  }
  if (!fits) {
    loader_fault(loader, at(secret_find(loader, path, CONFIG_TYPE_STRING, false)), path,
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

static void section_read(struct loader *loader, struct secrets *secrets) {
  const config_setting_t *section = loader->secret, *setting;
  bool encrypted = loader->config->label.encrypted;
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
  for (int i = 0; i < config_setting_length(section); i++) {
    setting = config_setting_get_elem(section, (unsigned)i);
    char path[LOADER_NAME_BYTES];
    snprintf(path, sizeof path, "secret.%s", config_setting_name(setting));
    if (key_table_find(secret_table, path) == NULL) {
      loader_fault_unknown(loader, secret_table, setting, path, path);
    }
    const char *own_file = config_setting_source_file(setting);
    if (own_file != NULL && file != NULL && strcmp(own_file, file) != 0) {
      secret_check_file(loader, setting);  // an @include inside the section
      file = own_file;
    }
  }

  const char *path = "secret.account_aes_key", *text;
  setting = secret_find(loader, path, CONFIG_TYPE_STRING, true);
  if (setting != NULL) {
    text = config_setting_get_string(setting);
    size_t len = strlen(text);
    if (len == 16 || len == 24 || len == 32) {
      memcpy(secrets->account_aes_key, text, len);
      secrets->account_aes_key_len = len;
    } else {
      loader_fault(loader, at(setting), path, "must have 16, 24 or 32 bytes, and has %zu", len);
    }
  }

  path = "secret.server_cert_version";
  setting = secret_find(loader, path, CONFIG_TYPE_INT, true);
  secrets->server_cert_version = setting != NULL ? config_setting_get_int(setting) : 0;

  path = "secret.server_cert_private_key";
  setting = secret_find(loader, path, CONFIG_TYPE_STRING, true);
  if (setting != NULL) {
    text = config_setting_get_string(setting);
    int result = signing_key_from_pem(&secrets->server_key, text, strlen(text));
    if (result != 0) {
      loader_fault(
          loader, at(setting), path, "%s",
          result == ERROR_CRYPTO ? "is not an Ed25519 key" : "is not a private key in PKCS#8 PEM");
    }
  }

  path = "secret.client_cert_version";
  setting = secret_find(loader, path, CONFIG_TYPE_INT, encrypted);
  secrets->client_cert_version = setting != NULL ? config_setting_get_int(setting) : 0;

  path = "secret.client_cert";
  setting = secret_find(loader, path, CONFIG_TYPE_STRING, encrypted);
  if (setting != NULL) {
    text = config_setting_get_string(setting);
    int result = verify_key_from_certificate(&secrets->client_key, text, strlen(text), time(NULL));
    if (result != 0) {
      loader_fault(loader, at(setting), path, "%s",
                   result == ERROR_EXPIRED  ? "is outside its time of validity; a new one is needed"
                   : result == ERROR_CRYPTO ? "is not a certificate for an Ed25519 key"
                                            : "is not an X.509 certificate in PEM");
    }
  }
  password_read(loader, "secret.redis_password", secrets->redis_password,
                sizeof secrets->redis_password);
  password_read(loader, "secret.redis_sentinel_password", secrets->redis_sentinel_password,
                sizeof secrets->redis_sentinel_password);
  password_read(loader, "secret.etcd_password", secrets->etcd_password,
                sizeof secrets->etcd_password);
  token_read(loader, "secret.push_token", secrets->push_token, sizeof secrets->push_token);
}

// libconfig's copy of what was read; its scanner's buffers are out of our reach.
static void section_wipe(const config_setting_t *section) {
  for (int i = 0; section != NULL && i < config_setting_length(section); i++) {
    const config_setting_t *setting = config_setting_get_elem(section, (unsigned)i);
    if (config_setting_type(setting) == CONFIG_TYPE_STRING) {
      char *text = (char *)(uintptr_t)config_setting_get_string(setting);
      explicit_bzero(text, strlen(text));
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
    section_wipe(loader->secret);
  }
}

void loader_check_environment(struct loader *loader) {
  for (size_t i = 0; i < sizeof secret_keys / sizeof *secret_keys; i++) {
    char variable[LOADER_NAME_BYTES];
    loader_variable_name(variable, sizeof variable, secret_keys[i].path);
    if (getenv(variable) != NULL) {
      loader_fault(loader, (struct origin){NULL, variable}, secret_keys[i].path,
                   "a secret is not taken from the environment, where others can see it; "
                   "put it into secret.conf");
    }
  }
}
