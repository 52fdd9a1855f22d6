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
#include "master/master.h"
#include "master/tls_keys.h"

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
      "says. SIGTERM closes every session and ends it; SIGUSR1 opens the log's file anew; SIGHUP "
      "reads the certificates anew, as `janusctl reload` does. `janusctl "
      "status` shows how it is doing.\n"
      "\n"
      "Exit status: 0 after a stop or a good check, 1 for a faulty configuration or a start\n"
      "that failed, 2 for a wrong command line.\n",
      default_config);
}

static void report_fault(const char *fault, void *context) {
  (void)context;
  fprintf(stderr, "janusd: %s\n", fault);
}

// janus-worker lies in ../libexec as it is built, in ../libexec/janus-gate as it is
// installed.
static void find_worker(char *path, size_t size) {
  static const char *const places[] = {"../libexec/janus-worker",
                                       "../libexec/janus-gate/janus-worker"};
  char self[PATH_MAX];
  ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
  self[len > 0 ? len : 0] = '\0';
  char *slash = strrchr(self, '/');
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

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"config", required_argument, NULL, 'c'}, {"test", no_argument, NULL, 't'},
      {"worker", required_argument, NULL, 'w'}, {"help", no_argument, NULL, 'h'},
      {"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0}};
  static struct config config;
  const char *config_path = default_config;
  char worker[PATH_MAX + 64] = "";
  bool only_test = false;
  int option;

  while ((option = getopt_long(argc, argv, "c:thV", options, NULL)) != -1) {
    switch (option) {
      case 'c': config_path = optarg; break;
      case 't': only_test = true; break;
      case 'w': snprintf(worker, sizeof worker, "%s", optarg); break;
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
  if (!secrets) {
    fprintf(stderr, "janusd: no locked memory to be had for the secrets\n");
    return 1;
  }
  struct tls_material *tls_material = tls_material_new();
  if (!tls_material || config_load_file(config_path, &config, secrets, report_fault, NULL) != 0 ||
      tls_keys_read(tls_material, &config, report_fault, NULL) != 0) {
    tls_material_free(tls_material);
    sodium_free(secrets);
    return 1;
  }
  if (only_test) {
    tls_material_free(tls_material);
    sodium_free(secrets);
    printf("%s: the configuration is good\n", config_path);
    return 0;
  }
  if (worker[0] == '\0') {
    find_worker(worker, sizeof worker);
  }
  if (log_output_open(config.log.output, config.log.file) != 0) {
    fprintf(stderr, "janusd: the log can't be opened: %s: %s\n", config.log.file, strerror(errno));
    tls_material_free(tls_material);
    sodium_free(secrets);
    return 1;
  }
  const struct master_options start = {.config_path = config_path,
                                       .config = &config,
                                       .secrets = secrets,
                                       .tls_material = tls_material,
                                       .worker_program = worker};
  return master_run(&start);
}
