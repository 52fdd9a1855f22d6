// janusd: reads the command line and the configuration, then runs the master.
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/log_output.h"
#include "common/tls.h"
#include "master/master.h"
#include "master/takeover.h"
#include "master/tls_keys.h"
#include "master/upgrade.h"

static const char default_config[] = "/etc/janus-gate/janus.conf";

static void print_help(void) {
  printf(
      "janusd: the game gateway.\n"
      "\n"
      "Usage: janusd [-c FILE] [-t]\n"
      "\n"
      "  -c, --config FILE   the configuration (default %s)\n"
      "  -t, --test          only check the configuration, say every fault, and exit\n"
      "      --worker PATH   the janus-worker program (default: beside this one, in ../libexec)\n"
      "  -h, --help          this text\n"
      "  -V, --version       the version\n"
      "\n"
      "It runs in the foreground and logs to standard error, or as `log` in the configuration\n"
      "says. SIGTERM tells every client to come back later and ends it; SIGHUP reads the\n"
      "configuration anew, as `janusctl reload` does; SIGUSR1 opens the log's file anew.\n"
      "`janusctl status` shows how it is doing.\n"
      "\n"
      "Exit status: 0 after a stop or a good check, 1 for a faulty configuration or a start\n"
      "that failed, 2 for a wrong command line.\n",
      default_config);
}

static void report_fault(const char *fault, void *context) {
  (void)context;
  fprintf(stderr, "janusd: %s\n", fault);
}

// Where this program lies, or lay: an upgrade takes what is there then.
static void find_self(char *path, size_t size) {
  static const char replaced[] = " (deleted)";
  ssize_t len = readlink("/proc/self/exe", path, size - 1);
  path[len > 0 ? len : 0] = '\0';
  char *end = strstr(path, replaced);
  if (end && end[sizeof replaced - 1] == '\0') {
    *end = '\0';
  }
}

// janus-worker lies in ../libexec as it is built, in ../libexec/janus-gate as it is
// installed.
static void find_worker(const char *self, char *path, size_t size) {
  static const char *const places[] = {"../libexec/janus-worker",
                                       "../libexec/janus-gate/janus-worker"};
  const char *slash = strrchr(self, '/');
  int folder = slash ? (int)(slash - self) : 0;
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    snprintf(path, size, "%.*s/%s", folder, self, places[i]);
    if (access(path, X_OK) == 0) {
      return;
    }
  }
}

// A dump of a worker would have keys in it: those of the sessions, and what OpenSSL and the
// ciphers made of the others. The hard limit stays, for prlimit(1) to allow one.
static void forbid_core_dumps(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_CORE, &limit) == 0) {
    limit.rlim_cur = 0;
    setrlimit(RLIMIT_CORE, &limit);
  }
}

static int go_by_the_settings_before(const json_t *saved, struct config *config,
                                     struct secrets *secrets) {
  int error = takeover_read_settings(saved, config, report_fault, NULL);
  return error != 0 ? error : takeover_read_secrets(saved, secrets) ? 0 : ERROR_INVALID;
}

int main(int argc, char **argv) {
  static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                          {"test", no_argument, NULL, 't'},
                                          {"worker", required_argument, NULL, 'w'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          // Of an upgrade (master/upgrade.h), for janusd alone.
                                          {"trial", no_argument, NULL, 'y'},
                                          {"take-over", required_argument, NULL, 'o'},
                                          {"went-back", required_argument, NULL, 'b'},
                                          {NULL, 0, NULL, 0}};
  static struct config config;
  struct takeover_arguments arguments = {.config_path = default_config};
  char worker[PATH_MAX + 64] = "";
  char program[PATH_MAX];
  const char *went_back = NULL;
  json_t *saved = NULL;
  bool only_test = false;
  bool only_trial = false;
  int option;

  tls_outlive_main();
  while ((option = getopt_long(argc, argv, "c:thV", options, NULL)) != -1) {
    switch (option) {
      case 'c': arguments.config_path = optarg; break;
      case 't': only_test = true; break;
      case 'w': arguments.worker = optarg; break;
      case 'y': only_trial = true; break;
      case 'o':
        if (!(saved = takeover_read(atoi(optarg)))) {
          fprintf(stderr, "janusd: --take-over is not for people\n");
          return 2;
        }
        break;
      case 'b': went_back = optarg; break;
      case 'h': print_help(); return 0;
      case 'V': printf("janusd %s\n", JANUS_VERSION); return 0;
      default: fprintf(stderr, "janusd: try `janusd --help`\n"); return 2;
    }
  }
  if (optind < argc) {
    fprintf(stderr, "janusd: unexpected argument `%s`; try `janusd --help`\n", argv[optind]);
    return 2;
  }
  forbid_core_dumps();
  struct secrets *secrets = sodium_init() >= 0 ? sodium_malloc(sizeof *secrets) : NULL;
  struct tls_material *tls_material = tls_material_new();
  const char *wrong = NULL;
  char why[PATH_MAX + 64];
  if (!secrets || !tls_material) {
    fprintf(stderr, "janusd: no locked memory to be had for the secrets\n");
    wrong = "it has no memory for the secrets";
  } else if ((went_back ? go_by_the_settings_before(saved, &config, secrets)
                        : config_load_file(arguments.config_path, &config, secrets, report_fault,
                                           NULL)) != 0 ||
             (went_back ? takeover_read_tls(saved, tls_material)
                        : tls_keys_read(tls_material, &config, report_fault, NULL)) != 0) {
    wrong = "it does not take the configuration; try janusd -t";
  }
  find_self(program, sizeof program);
  if (arguments.worker) {
    snprintf(worker, sizeof worker, "%s", arguments.worker);
  } else {
    find_worker(program, worker, sizeof worker);
  }
  if (saved) {  // players are here: a log that can't be written must not keep them from being
                // served
    log_output_open_later(config.log.output, config.log.file);
  } else if (!wrong && !only_test && !only_trial &&
             log_output_open(config.log.output, config.log.file) != 0) {
    snprintf(why, sizeof why, "the log can't be opened: %s: %s", config.log.file, strerror(errno));
    fprintf(stderr, "janusd: %s\n", why);
    wrong = why;
  }
  if (wrong || only_test || only_trial) {
    if (wrong && saved && !went_back) {
      takeover_go_back(saved, &arguments, NULL, wrong);
    }
    tls_material_free(tls_material);
    sodium_free(secrets);
    json_decref(saved);
    if (!wrong && only_test) {
      printf("%s: the configuration is good\n", arguments.config_path);
    }
    return wrong ? 1 : only_trial ? upgrade_trial(worker) : 0;
  }
  const struct master_options start = {.arguments = &arguments,
                                       .config = &config,
                                       .secrets = secrets,
                                       .tls_material = tls_material,
                                       .program = program,
                                       .worker_program = worker,
                                       .saved = saved,
                                       .went_back = went_back};
  return master_run(&start);
}
