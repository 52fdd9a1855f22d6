#include "tools/keys/rotate.h"

#include <errno.h>
#include <fcntl.h>
#include <libconfig.h>
#include <limits.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/config.h"
#include "common/config_value.h"
#include "tools/keys/make.h"

static const char header[] =
    "# The gateway's secrets, made by janus-keys. Keep this file from others: the gateway\n"
    "# refuses it when they can read it.\n";

// A file that is written under a name of its own, and takes its place when all are.
struct fresh_file {
  char path[PATH_MAX];
  char temporary[PATH_MAX + 8];
  char kept[PATH_MAX + 16];  // where the old one stays; "": nowhere
};

struct rotation {
  const struct rotate_options *options;
  const char *folder;
  char secret_path[PATH_MAX];  // of the file itself, where secret.conf is a link
  config_t before;
  config_t after;
  const config_setting_t *old;  // the group `secret` of before
  char account_key[ACCOUNT_KEY_MAX_BYTES + 1];
  struct certs_pem certs;
  int client_version;  // the old ones
  int server_version;
  char until[32];
  struct fresh_file files[3];
  size_t file_count;
};

static int fail(const char *what, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int fail(const char *what, const char *format, ...) {
  va_list arguments;
  fprintf(stderr, "janus-keys: %s: ", what);
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  return ERROR_INVALID;
}

// --- The old secrets ---------------------------------------------------------------

static bool is_of_one_file(const config_setting_t *setting, const char *file) {
  const char *own = config_setting_source_file(setting);
  bool is_one = !own || strcmp(own, file) == 0;
  for (int i = 0; is_one && i < config_setting_length(setting); i++) {
    is_one = is_of_one_file(config_setting_get_elem(setting, (unsigned)i), file);
  }
  return is_one;
}

static const char *old_text(const struct rotation *rotation, const char *name) {
  const char *text = NULL;
  config_setting_lookup_string(rotation->old, name, &text);
  return text && strncmp(text, "REPLACE", strlen("REPLACE")) != 0 ? text : NULL;
}

static int read_old(struct rotation *rotation) {
  const char *path = rotation->secret_path;
  char given[PATH_MAX];
  snprintf(given, sizeof given, "%s/secret.conf", rotation->folder);
  if (!realpath(given, rotation->secret_path)) {
    return fail(given, "%s", strerror(errno));
  }
  config_set_include_dir(&rotation->before, rotation->folder);
  if (config_read_file(&rotation->before, path) != CONFIG_TRUE) {
    return fail(path, "line %d: %s", config_error_line(&rotation->before),
                config_error_text(&rotation->before));
  }
  rotation->old = config_lookup(&rotation->before, "secret");
  if (!rotation->old || !config_setting_is_group(rotation->old)) {
    return fail(path, "holds no group `secret`");
  }
  if (!is_of_one_file(config_root_setting(&rotation->before), path)) {
    return fail(path, "is put together from several files, and can't be rotated by this tool");
  }
  return 0;
}

// Whether there is all that is to be replaced.
static int check_old(struct rotation *rotation) {
  const char *path = rotation->secret_path;
  const char *account_key = old_text(rotation, "account_aes_key");
  size_t len = account_key ? strlen(account_key) : 0;
  if (rotation->options->account_key && len != 16 && len != 24 && len != 32) {
    return fail(path, "holds no good secret.account_aes_key; make all the keys with: init");
  }
  if (rotation->options->certs &&
      (!old_text(rotation, "server_cert_private_key") || !old_text(rotation, "client_cert") ||
       !config_setting_lookup_int(rotation->old, "server_cert_version",
                                  &rotation->server_version) ||
       !config_setting_lookup_int(rotation->old, "client_cert_version",
                                  &rotation->client_version) ||
       rotation->server_version == INT_MAX || rotation->client_version == INT_MAX)) {
    return fail(path, "lacks a certificate, a key or its version; make all the keys with: init");
  }
  return 0;
}

// --- The new ones ------------------------------------------------------------------

static bool copy(config_setting_t *parent, const config_setting_t *setting);

static bool copy_members(config_setting_t *parent, const config_setting_t *setting) {
  bool copied = parent != NULL;
  for (int i = 0; copied && i < config_setting_length(setting); i++) {
    copied = copy(parent, config_setting_get_elem(setting, (unsigned)i));
  }
  return copied;
}

static bool copy(config_setting_t *parent, const config_setting_t *setting) {
  int type = config_setting_type(setting);
  config_setting_t *made = config_setting_add(parent, config_setting_name(setting), type);
  if (!made) {
    return false;
  }
  config_setting_set_format(made, config_setting_get_format(setting));
  switch (type) {
    case CONFIG_TYPE_INT: return config_setting_set_int(made, config_setting_get_int(setting));
    case CONFIG_TYPE_INT64:
      return config_setting_set_int64(made, config_setting_get_int64(setting));
    case CONFIG_TYPE_FLOAT:
      return config_setting_set_float(made, config_setting_get_float(setting));
    case CONFIG_TYPE_BOOL: return config_setting_set_bool(made, config_setting_get_bool(setting));
    case CONFIG_TYPE_STRING:
      return config_setting_set_string(made, config_setting_get_string(setting));
    default: return copy_members(made, setting);
  }
}

static bool set_text(config_setting_t *group, const char *name, const char *text) {
  config_setting_t *setting = config_setting_get_member(group, name);
  setting = setting ? setting : config_setting_add(group, name, CONFIG_TYPE_STRING);
  return setting && config_setting_set_string(setting, text);
}

static bool copy_named(config_setting_t *parent, const config_setting_t *group, const char *name) {
  const config_setting_t *setting = config_setting_get_member(group, name);
  return setting && copy(parent, setting);
}

// A group of secret.previous with what is replaced now.
static bool add_replaced(const struct rotation *rotation, config_setting_t *list) {
  config_setting_t *group = config_setting_add(list, NULL, CONFIG_TYPE_GROUP);
  const config_setting_t *old = rotation->old;
  return group && (!rotation->options->account_key || copy_named(group, old, "account_aes_key")) &&
         (!rotation->options->certs || (copy_named(group, old, "server_cert_version") &&
                                        copy_named(group, old, "server_cert_private_key") &&
                                        copy_named(group, old, "client_cert_version") &&
                                        copy_named(group, old, "client_cert"))) &&
         set_text(group, "until", rotation->until);
}

static bool is_over(const config_setting_t *group) {
  const char *until;
  int64_t ms;
  return config_setting_is_group(group) && config_setting_lookup_string(group, "until", &until) &&
         config_value_parse_moment(until, &ms) && ms <= (int64_t)time(NULL) * 1000;
}

// What was left out of an earlier group because it did not change then is about to.
static bool fill_in(const struct rotation *rotation, config_setting_t *group) {
  static const char *const names[] = {"server_cert_version", "server_cert_private_key",
                                      "client_cert_version", "client_cert"};
  bool has_some = false;
  bool filled = true;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    has_some = has_some || config_setting_get_member(group, names[i]);
  }
  for (size_t i = 0; has_some && i < sizeof names / sizeof *names; i++) {
    filled = filled && (config_setting_get_member(group, names[i]) ||
                        copy_named(group, rotation->old, names[i]));
  }
  return filled;
}

// The groups that were there already, one or a list of them, as far as they are good.
static bool add_earlier(const struct rotation *rotation, config_setting_t *list) {
  const config_setting_t *earlier = config_setting_get_member(rotation->old, "previous");
  bool is_list = earlier && config_setting_is_list(earlier);
  int count = !earlier ? 0 : is_list ? config_setting_length(earlier) : 1;
  bool added = true;
  for (int i = 0; added && i < count; i++) {
    const config_setting_t *one = is_list ? config_setting_get_elem(earlier, (unsigned)i) : earlier;
    if (!config_setting_is_group(one)) {
      return false;
    }
    if (!is_over(one)) {
      config_setting_t *group = config_setting_add(list, NULL, CONFIG_TYPE_GROUP);
      added = copy_members(group, one) && (!rotation->options->certs || fill_in(rotation, group));
    }
  }
  return added;
}

static bool put_new_keys(struct rotation *rotation, config_setting_t *secret) {
  if (rotation->options->account_key) {
    make_account_key(rotation->account_key, strlen(old_text(rotation, "account_aes_key")));
    if (!set_text(secret, "account_aes_key", rotation->account_key)) {
      return false;
    }
  }
  if (!rotation->options->certs) {
    return true;
  }
  return make_certs(&rotation->certs, rotation->options->days) &&
         set_text(secret, "server_cert_private_key", rotation->certs.server) &&
         set_text(secret, "client_cert", rotation->certs.client_cert) &&
         config_setting_set_int(config_setting_get_member(secret, "server_cert_version"),
                                rotation->server_version + 1) &&
         config_setting_set_int(config_setting_get_member(secret, "client_cert_version"),
                                rotation->client_version + 1);
}

static int make_new(struct rotation *rotation) {
  const char *path = rotation->secret_path;
  time_t until = time(NULL) + rotation->options->overlap_s;
  struct tm tm;
  if (!gmtime_r(&until, &tm) ||
      strftime(rotation->until, sizeof rotation->until, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
    return fail(path, "there is no such time");
  }
  if (!copy_members(config_root_setting(&rotation->after),
                    config_root_setting(&rotation->before))) {
    return fail(path, "out of memory");
  }
  config_setting_t *secret = config_lookup(&rotation->after, "secret");
  config_setting_remove(secret, "previous");
  config_setting_t *list = config_setting_add(secret, "previous", CONFIG_TYPE_LIST);
  if (!list || !add_replaced(rotation, list) || !add_earlier(rotation, list)) {
    return fail(path, "secret.previous can't be made of what is there");
  }
  if (config_setting_length(list) > LOGIN_KEYS_PREVIOUS) {
    return fail(path,
                "has %d previous keys that are good still, and there is no room for more; "
                "take one out, or wait until its time is over",
                LOGIN_KEYS_PREVIOUS);
  }
  return put_new_keys(rotation, secret) ? 0 : fail(path, "the keys can't be made");
}

// --- Files -------------------------------------------------------------------------

// A file with what `write` puts into it, of the same owner and mode as the one that is there,
// or else of that mode.
static int write_fresh(struct rotation *rotation, const char *path, mode_t mode, const char *text,
                       const config_t *config) {
  struct fresh_file *file = &rotation->files[rotation->file_count];
  struct stat status;
  snprintf(file->path, sizeof file->path, "%s", path);
  snprintf(file->temporary, sizeof file->temporary, "%s.XXXXXX", path);
  int fd = mkostemp(file->temporary, O_CLOEXEC);
  if (fd < 0) {
    return fail(path, "%s", strerror(errno));
  }
  rotation->file_count++;
  bool there = stat(path, &status) == 0;
  bool owned = !there || fchown(fd, status.st_uid, status.st_gid) == 0;
  bool good = owned && fchmod(fd, there ? status.st_mode & 07777 : mode) == 0;
  FILE *out = fdopen(fd, "w");
  if (!out) {
    close(fd);
    return fail(path, "%s", strerror(errno));
  }
  good = good && fputs(text, out) >= 0;
  if (good && config) {
    config_write(config, out);
  }
  good = good && !ferror(out) && fflush(out) == 0 && fsync(fd) == 0;
  int error = errno;
  good = fclose(out) == 0 && good;
  return good ? 0 : fail(path, "%s", strerror(error));
}

// One of the files for clients, whose old one stays under its version.
static int write_for_clients(struct rotation *rotation, const char *name, mode_t mode,
                             const char *text, int version) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", rotation->folder, name);
  int error = write_fresh(rotation, path, mode, text, NULL);
  if (error == 0 && access(path, F_OK) == 0) {
    struct fresh_file *file = &rotation->files[rotation->file_count - 1];
    snprintf(file->kept, sizeof file->kept, "%s.%d", path, version);
  }
  return error;
}

static int write_all(struct rotation *rotation) {
  int error = write_fresh(rotation, rotation->secret_path, 0600, header, &rotation->after);
  if (error == 0 && rotation->options->certs) {
    error = write_for_clients(rotation, "client.key", 0600, rotation->certs.client,
                              rotation->client_version);
  }
  if (error == 0 && rotation->options->certs) {
    error = write_for_clients(rotation, "server.pub", 0644, rotation->certs.server_public,
                              rotation->server_version);
  }
  for (size_t i = 0; error == 0 && i < rotation->file_count; i++) {
    struct fresh_file *file = &rotation->files[i];
    if (file->kept[0] != '\0' && link(file->path, file->kept) != 0) {
      error = fail(file->kept, "%s", strerror(errno));
      file->kept[0] = '\0';
    }
  }
  return error;
}

// So that a crash later on finds the new names.
static void sync_folder(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    fsync(fd);
    close(fd);
  }
}

// secret.conf goes first: from there on the new keys are the keys.
static int put_in_place(struct rotation *rotation) {
  int error = 0;
  for (size_t i = 0; i < rotation->file_count; i++) {
    struct fresh_file *file = &rotation->files[i];
    if (rename(file->temporary, file->path) == 0) {
      file->temporary[0] = '\0';
      continue;
    }
    error = fail(file->path, "%s", strerror(errno));
    if (i == 0) {
      return error;
    }
    fprintf(stderr, "janus-keys: what should be there is in %s\n", file->temporary);
    file->temporary[0] = '\0';
  }
  sync_folder(rotation->folder);
  return error;
}

// What is left of a rotation that did not come off.
static void clean_up(struct rotation *rotation, bool undo) {
  for (size_t i = 0; i < rotation->file_count; i++) {
    if (rotation->files[i].temporary[0] != '\0') {
      unlink(rotation->files[i].temporary);
    }
    if (undo && rotation->files[i].kept[0] != '\0') {
      unlink(rotation->files[i].kept);
    }
  }
  config_destroy(&rotation->before);
  config_destroy(&rotation->after);
  sodium_memzero(&rotation->certs, sizeof rotation->certs);
  sodium_memzero(rotation->account_key, sizeof rotation->account_key);
}

// --- What to do next ---------------------------------------------------------------

static void say_what_is_next(const struct rotation *rotation) {
  const struct rotate_options *options = rotation->options;
  int step = 1;
  for (size_t i = 0; i < rotation->file_count; i++) {
    printf("%s\n", rotation->files[i].path);
    if (rotation->files[i].kept[0] != '\0') {
      printf("%s is the old one\n", rotation->files[i].kept);
    }
  }
  printf("\nThe old keys stay good until %s. What is next, in this order:\n", rotation->until);
  printf("  %d. Put secret.conf on every gateway, then on each: janusctl reload\n", step++);
  if (options->account_key) {
    printf("  %d. Give the account service the new account_aes_key.\n", step++);
  }
  if (options->certs) {
    printf(
        "  %d. Build the game client with the new client.key and server.pub, and %d as its\n"
        "     cert_version, and bring it to the players.\n",
        step++, rotation->client_version + 1);
  }
  printf(
      "  %d. Look at janusctl stats: when %s%s%s\n"
      "     rest%s, nobody has the old keys any more.\n",
      step, options->account_key ? "logins_by_previous_account_key" : "",
      options->account_key && options->certs ? " and " : "",
      options->certs ? "logins_by_previous_certs" : "",
      options->account_key && options->certs ? "" : "s");
}

int rotate(const char *folder, const struct rotate_options *options) {
  struct rotation *rotation = calloc(1, sizeof *rotation);
  if (!rotation) {
    return fail(folder, "out of memory");
  }
  rotation->folder = folder;
  rotation->options = options;
  config_init(&rotation->before);
  config_init(&rotation->after);
  int error = read_old(rotation);
  error = error == 0 ? check_old(rotation) : error;
  error = error == 0 ? make_new(rotation) : error;
  error = error == 0 ? write_all(rotation) : error;
  bool is_written = error == 0;
  error = error == 0 ? put_in_place(rotation) : error;
  if (error == 0) {
    say_what_is_next(rotation);
  }
  // The first of the files in its place makes the rotation.
  clean_up(rotation, !is_written || rotation->files[0].temporary[0] != '\0');
  free(rotation);
  return error;
}
