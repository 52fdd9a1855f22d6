// janus-keys: makes the keys, the client certificate and login tokens that a
// gateway and its clients need.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <libconfig.h>
#include <limits.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/token.h"
#include "tools/keys/make.h"
#include "tools/keys/rotate.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };
enum { DEFAULT_DAYS = 3650, OVERLAP_MAX_S = 3650 * 86400 };

static const char help[] =
    "janus-keys: keys, certificates and login tokens for the gateway.\n"
    "\n"
    "Usage: janus-keys COMMAND [options]\n"
    "\n"
    "  init DIR       a whole set: DIR/secret.conf for the gateway; DIR/client.key (private)\n"
    "                 and DIR/server.pub for the game client\n"
    "                   --bytes 16|24|32   length of the account key (default 32)\n"
    "                   --days N           validity of the client certificate (default 3650)\n"
    "                   --force            write over what is there\n"
    "  rotate DIR     new keys in DIR/secret.conf, whose old ones stay good for a while as\n"
    "                 secret.previous; then it says what to do next. Comments in the file are\n"
    "                 not kept\n"
    "                   --only WHAT        account-key; or certs, the server's key and the client\n"
    "                                      certificate (default both)\n"
    "                   --overlap TIME     how long, as --lifetime below (default 24h)\n"
    "                   --days N           as above\n"
    "  account-key    a new account key, for secret.account_aes_key   [--bytes 16|24|32]\n"
    "  server-key     a new server key, for secret.server_cert_private_key\n"
    "  client-cert    a new client key and its certificate, for secret.client_cert  [--days N]\n"
    "  token          a login token, as the account service makes it\n"
    "                   --secret FILE      the secret.conf that holds the account key, or\n"
    "                   --account-key-file FILE   a file that holds nothing else\n"
    "                   --uid N            the player (required)\n"
    "                   --color TEXT       (default none)\n"
    "                   --sid N            (default 0)\n"
    "                   --status S         gate, dev, admin, svc or a number (default gate)\n"
    "                   --lifetime TIME    30s, 15m, 24h or 7d (default 24h)\n"
    "  show-token T   what is in a token; takes --secret or --account-key-file too\n"
    "  --help, --version\n"
    "\n"
    "Examples:\n"
    "  janus-keys init /etc/janus-gate\n"
    "  janus-keys rotate /etc/janus-gate --only certs --overlap 30d\n"
    "  janus-keys token --secret secret.conf --uid 10001 --color blue --lifetime 1h\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

struct options {
  const char *secret;
  const char *account_key_file;
  const char *color;
  int64_t uid;
  int64_t sid;
  int64_t status;
  int64_t lifetime_s;
  int64_t bytes;
  int64_t days;
  struct rotate_options rotate;
  bool has_uid;
  bool force;
};

static int fail(const char *what, const char *why) {
  fprintf(stderr, "janus-keys: %s: %s\n", what, why);
  return EXIT_FAILED;
}

// --- Files -------------------------------------------------------------------------

static int write_file(const char *folder, const char *name, mode_t mode, bool force,
                      const char *text) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  struct stat before;
  // What everybody could read was never set up so.
  bool replaces =
      force && lstat(path, &before) == 0 && S_ISREG(before.st_mode) && (before.st_mode & 007) == 0;
  if (force) {
    unlink(path);  // so that the mode is the new file's
  }
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0) {
    return fail(path,
                errno == EEXIST ? "is there already; --force writes over it" : strerror(errno));
  }
  // A gateway that does not run as root reads its file by the file's group: it stays so.
  if (replaces && fchown(fd, before.st_uid, before.st_gid) == 0) {
    (void)!fchmod(fd, mode | (before.st_mode & S_IRGRP));
  }
  size_t len = strlen(text);
  bool written = write(fd, text, len) == (ssize_t)len && fsync(fd) == 0;
  if (close(fd) != 0 || !written) {
    return fail(path, strerror(errno));
  }
  printf("%s\n", path);
  return EXIT_OK;
}

// A PEM as a libconfig string: line by line, each line a string of its own.
static void append_pem(char *out, size_t size, const char *key, const char *pem) {
  size_t len = strlen(out);
  len += (size_t)snprintf(out + len, size - len, "  %s =", key);
  while (*pem && len < size) {
    size_t line = strcspn(pem, "\n");
    len += (size_t)snprintf(out + len, size - len, "\n    \"%.*s\\n\"", (int)line, pem);
    pem += line + (pem[line] == '\n');
  }
  if (len < size) {
    snprintf(out + len, size - len, ";\n");
  }
}

static int init(const char *folder, const struct options *options) {
  char account_key[ACCOUNT_KEY_MAX_BYTES + 1];
  struct certs_pem certs;
  char conf[4 * PEM_MAX_BYTES];
  if (!make_certs(&certs, options->days)) {
    return fail("init", "the keys can't be made");
  }
  if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
    return fail(folder, strerror(errno));
  }
  // All or nothing: half an old set beside half a new one fits nobody.
  static const char *const names[] = {"secret.conf", "client.key", "server.pub"};
  for (size_t i = 0; !options->force && i < sizeof names / sizeof names[0]; i++) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
      return fail(path, "is there already; --force writes over it");
    }
  }
  make_account_key(account_key, (size_t)options->bytes);
  snprintf(conf, sizeof conf,
           "# The gateway's secrets, made by janus-keys. Keep this file from others: the gateway\n"
           "# refuses it when they can read it. The account service needs account_aes_key, the\n"
           "# game client the private half of client_cert (client.key) and server.pub.\n"
           "secret = {\n"
           "  account_aes_key = \"%s\";\n"
           "  server_cert_version = 1;\n",
           account_key);
  append_pem(conf, sizeof conf, "server_cert_private_key", certs.server);
  strcat(conf, "  client_cert_version = 1;\n");
  append_pem(conf, sizeof conf, "client_cert", certs.client_cert);
  strcat(conf, "};\n");
  int status = write_file(folder, "secret.conf", 0600, options->force, conf);
  if (status == EXIT_OK) {
    status = write_file(folder, "client.key", 0600, options->force, certs.client);
  }
  if (status == EXIT_OK) {
    status = write_file(folder, "server.pub", 0644, options->force, certs.server_public);
  }
  sodium_memzero(conf, sizeof conf);
  sodium_memzero(&certs, sizeof certs);
  return status;
}

static int print_server_key(void) {
  char text[PEM_MAX_BYTES];
  EVP_PKEY *key = make_key();
  bool made = key && private_pem(key, text);
  EVP_PKEY_free(key);
  if (!made) {
    return fail("server-key", "the key can't be made");
  }
  fputs(text, stdout);
  return EXIT_OK;
}

static int print_client_certificate(const struct options *options) {
  char private[PEM_MAX_BYTES];
  char certificate[PEM_MAX_BYTES];
  EVP_PKEY *key = make_key();
  bool made = key && private_pem(key, private) && certificate_pem(key, options->days, certificate);
  EVP_PKEY_free(key);
  if (!made) {
    return fail("client-cert", "the key can't be made");
  }
  printf("%s%s", private, certificate);
  return EXIT_OK;
}

static int print_account_key(const struct options *options) {
  char key[ACCOUNT_KEY_MAX_BYTES + 1];
  make_account_key(key, (size_t)options->bytes);
  printf("%s\n", key);
  return EXIT_OK;
}

// --- Tokens ------------------------------------------------------------------------

static bool key_from_config(const char *path, char *key, size_t size) {
  config_t config;
  const char *text;
  config_init(&config);
  bool read = config_read_file(&config, path) == CONFIG_TRUE;
  bool found =
      read && config_lookup_string(&config, "secret.account_aes_key", &text) && strlen(text) < size;
  if (found) {
    strcpy(key, text);
  } else {
    fail(path, read ? "holds no secret.account_aes_key" : config_error_text(&config));
  }
  config_destroy(&config);
  return found;
}

static bool key_from_file(const char *path, char *key, size_t size) {
  FILE *file = fopen(path, "r");
  if (!file || !fgets(key, (int)size, file)) {
    fail(path, file ? "is empty" : strerror(errno));
    if (file) {
      fclose(file);
    }
    return false;
  }
  fclose(file);
  key[strcspn(key, "\r\n")] = '\0';
  return true;
}

// A seal under the account key that the options name; NULL after saying why not.
static struct seal *account_seal(const struct options *options) {
  char key[128];
  bool found = false;
  if (options->secret) {
    found = key_from_config(options->secret, key, sizeof key);
  } else if (options->account_key_file) {
    found = key_from_file(options->account_key_file, key, sizeof key);
  } else {
    fail("the account key", "name it with --secret FILE or --account-key-file FILE");
  }
  struct seal *seal = found ? seal_new((const uint8_t *)key, strlen(key)) : NULL;
  if (found && !seal) {
    fail("the account key", "has to have 16, 24 or 32 bytes");
  }
  sodium_memzero(key, sizeof key);
  return seal;
}

static int print_token(const struct options *options) {
  if (!options->has_uid) {
    fprintf(stderr, "janus-keys: token: --uid N is needed\n");
    return EXIT_USAGE;
  }
  if (strlen(options->color) > TOKEN_COLOR_MAX_BYTES) {
    fprintf(stderr, "janus-keys: --color: at most %d bytes\n", TOKEN_COLOR_MAX_BYTES);
    return EXIT_USAGE;
  }
  struct token token = {.account_id = options->uid,
                        .server_id = options->sid,
                        .status = (int32_t)options->status,
                        .timeout = time(NULL) + options->lifetime_s};
  strcpy(token.color, options->color);
  struct seal *seal = account_seal(options);
  char *text = seal ? token_write(seal, &token) : NULL;
  seal_free(seal);
  if (!text) {
    return EXIT_FAILED;
  }
  printf("%s\n", text);
  free(text);
  return EXIT_OK;
}

// By the account keys of secret.previous, one group or a list of them.
static enum token_result read_by_previous(const char *path, const char *text, struct token *token) {
  static const char *const places[] = {"previous", "previous.[0]", "previous.[1]", "previous.[2]"};
  enum token_result result = TOKEN_BAD_SEAL;
  config_t config;
  config_init(&config);
  bool read = config_read_file(&config, path) == CONFIG_TRUE;
  for (size_t i = 0; read && result == TOKEN_BAD_SEAL && i < sizeof places / sizeof *places; i++) {
    char name[64];
    const char *key;
    snprintf(name, sizeof name, "secret.%s.account_aes_key", places[i]);
    bool found = config_lookup_string(&config, name, &key);
    struct seal *seal = found ? seal_new((const uint8_t *)key, strlen(key)) : NULL;
    result = seal ? token_read(seal, text, strlen(text), token) : result;
    seal_free(seal);
  }
  config_destroy(&config);
  return result;
}

static int show_token(const char *text, const struct options *options) {
  struct token token;
  char when[64];
  struct tm tm;
  struct seal *seal = account_seal(options);
  if (!seal) {
    return EXIT_FAILED;
  }
  enum token_result result = token_read(seal, text, strlen(text), &token);
  seal_free(seal);
  bool by_previous = result == TOKEN_BAD_SEAL && options->secret;
  if (by_previous) {
    result = read_by_previous(options->secret, text, &token);
  }
  switch (result) {
    case TOKEN_OK: break;
    case TOKEN_BAD_ENCODING: return fail("the token", "is not padded URL-safe base64");
    case TOKEN_BAD_SEAL: return fail("the token", "was sealed with another account key");
    case TOKEN_BAD_CONTENT: return fail("the token", "holds something else");
  }
  time_t timeout = (time_t)token.timeout;
  if (!gmtime_r(&timeout, &tm) || strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
    snprintf(when, sizeof when, "%" PRId64, token.timeout);
  }
  printf("uid       %" PRId64 "\ncolor     %s\nsid       %" PRId64 "\nstatus    %" PRId32
         "\ntimeout   %s%s\n",
         token.account_id, token.color, token.server_id, token.status, when,
         token.timeout <= time(NULL) ? " (has passed)" : "");
  if (by_previous) {
    printf("key       a previous one\n");
  }
  return EXIT_OK;
}

// --- The command line -----------------------------------------------------------------

static bool read_number(const char *text, int64_t min, int64_t max, int64_t *value) {
  char *end;
  errno = 0;
  *value = strtoll(text, &end, 10);
  return *text != '\0' && *end == '\0' && errno == 0 && *value >= min && *value <= max;
}

static bool read_lifetime(const char *text, int64_t *seconds) {
  static const char units[] = "smhd";
  static const int64_t unit_s[] = {1, 60, 3600, 86400};
  char number[32];
  size_t len = strlen(text);
  const char *unit = len > 1 && len < sizeof number ? strchr(units, text[len - 1]) : NULL;
  if (!unit) {
    return false;
  }
  snprintf(number, sizeof number, "%.*s", (int)(len - 1), text);
  if (!read_number(number, 1, INT32_MAX, seconds)) {
    return false;
  }
  *seconds *= unit_s[unit - units];
  return true;
}

static bool read_status(const char *text, int64_t *status) {
  static const char *const names[] = {"unspecified", "gate", "dev", "admin", "svc"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    if (strcmp(text, names[i]) == 0) {
      *status = (int64_t)i;
      return true;
    }
  }
  return read_number(text, 0, INT32_MAX, status);
}

static bool read_only(const char *text, struct rotate_options *rotate) {
  rotate->account_key = strcmp(text, "account-key") == 0;
  rotate->certs = strcmp(text, "certs") == 0;
  return rotate->account_key || rotate->certs;
}

static bool read_option(int option, struct options *options) {
  switch (option) {
    case 's': options->secret = optarg; return true;
    case 'a': options->account_key_file = optarg; return true;
    case 'c': options->color = optarg; return true;
    case 'u':
      options->has_uid = true;
      return read_number(optarg, INT64_MIN, INT64_MAX, &options->uid);
    case 'i': return read_number(optarg, INT64_MIN, INT64_MAX, &options->sid);
    case 't': return read_status(optarg, &options->status);
    case 'l': return read_lifetime(optarg, &options->lifetime_s);
    case 'b': return read_number(optarg, 16, 32, &options->bytes) && options->bytes % 8 == 0;
    case 'd': return read_number(optarg, 1, 36500, &options->days);
    case 'o': return read_only(optarg, &options->rotate);
    case 'O':
      return read_lifetime(optarg, &options->rotate.overlap_s) &&
             options->rotate.overlap_s <= OVERLAP_MAX_S;
    case 'f': options->force = true; return true;
    default: return false;
  }
}

static int usage(const char *why) {
  fprintf(stderr, "janus-keys: %s (janus-keys --help tells more)\n", why);
  return EXIT_USAGE;
}

// A token is URL-safe base64 and may well begin with '-', where getopt sees an option; no
// option is as long as the shortest token.
static bool is_token_like_an_option(const char *text) {
  enum { SHORTEST = (SEAL_OVERHEAD_BYTES + 2) / 3 * 4 };
  size_t len = strlen(text);
  size_t letters = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
  return *text == '-' && len >= SHORTEST && letters + strspn(text + letters, "=") == len;
}

static const char *take_token(int *argc, char **argv) {
  for (int i = 1; i < *argc; i++) {
    if (is_token_like_an_option(argv[i])) {
      const char *token = argv[i];
      // The NULL at the end moves too.
      memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof *argv);
      (*argc)--;
      return token;
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  static const struct option known[] = {{"secret", required_argument, NULL, 's'},
                                        {"account-key-file", required_argument, NULL, 'a'},
                                        {"color", required_argument, NULL, 'c'},
                                        {"uid", required_argument, NULL, 'u'},
                                        {"sid", required_argument, NULL, 'i'},
                                        {"status", required_argument, NULL, 't'},
                                        {"lifetime", required_argument, NULL, 'l'},
                                        {"bytes", required_argument, NULL, 'b'},
                                        {"days", required_argument, NULL, 'd'},
                                        {"only", required_argument, NULL, 'o'},
                                        {"overlap", required_argument, NULL, 'O'},
                                        {"force", no_argument, NULL, 'f'},
                                        {"help", no_argument, NULL, 'h'},
                                        {"version", no_argument, NULL, 'V'},
                                        {NULL, 0, NULL, 0}};
  struct options options = {.color = "",
                            .status = 1,
                            .lifetime_s = 86400,
                            .rotate = {.account_key = true, .certs = true, .overlap_s = 86400},
                            .bytes = ACCOUNT_KEY_MAX_BYTES,
                            .days = DEFAULT_DAYS};
  int option;
  const char *token = take_token(&argc, argv);
  while ((option = getopt_long(argc, argv, "hV", known, NULL)) != -1) {
    if (option == 'h') {
      fputs(help, stdout);
      return EXIT_OK;
    }
    if (option == 'V') {
      printf("janus-keys %s\n", JANUS_VERSION);
      return EXIT_OK;
    }
    if (!read_option(option, &options)) {
      return usage(option == '?' ? "an option is wrong" : "the value of an option is wrong");
    }
  }
  if (seal_global_init(true) != 0) {
    return fail("libsodium", "can't be set up");
  }
  int words = argc - optind;
  int count = words + (token != NULL);
  const char *command = words > 0 ? argv[optind] : "";
  const char *argument = words > 1 ? argv[optind + 1] : token;
  if (strcmp(command, "init") == 0 && count == 2) {
    return init(argument, &options);
  }
  if (strcmp(command, "rotate") == 0 && count == 2) {
    options.rotate.days = options.days;
    return rotate(argument, &options.rotate) == 0 ? EXIT_OK : EXIT_FAILED;
  }
  if (strcmp(command, "show-token") == 0 && count == 2) {
    return show_token(argument, &options);
  }
  if (count != 1) {
    return usage(count == 0 ? "a command is needed" : "too few or too many arguments");
  }
  if (strcmp(command, "account-key") == 0) {
    return print_account_key(&options);
  }
  if (strcmp(command, "server-key") == 0) {
    return print_server_key();
  }
  if (strcmp(command, "client-cert") == 0) {
    return print_client_certificate(&options);
  }
  if (strcmp(command, "token") == 0) {
    return print_token(&options);
  }
  return usage("there is no such command");
}
