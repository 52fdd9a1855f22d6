#include "master/takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/secrets_pipe.h"
#include "master/bans.h"
#include "master/control.h"
#include "master/kcp_mailboxes.h"
#include "master/master.h"
#include "master/operations_grpc.h"
#include "master/operations_http.h"
#include "master/push_hub.h"
#include "master/registry.h"
#include "master/service_manager.h"
#include "master/tls_keys.h"
#include "master/trace_settings.h"

#define LOG_MODULE LOG_MODULE_MASTER

enum {
  ARGUMENTS_MAX = 12,
  SAVED_MAX_BYTES = 64 << 20,
};

// --- Descriptors --------------------------------------------------------------------------

// Notes one that is to stay open.
static void keep(int fd, void *context) {
  if (fd >= 0) {
    json_array_append_new(context, json_integer(fd));
  }
}

static void set_all(const json_t *saved, bool kept) {
  const json_t *fd;
  size_t i;
  json_array_foreach(json_object_get(saved, "fds"), i, fd) {
    fcntl((int)json_integer_value(fd), F_SETFD, kept ? 0 : FD_CLOEXEC);
  }
}

// --- Saving -------------------------------------------------------------------------------

static json_t *save_sockets(const struct listeners *listeners, const char *addr, json_t *fds) {
  json_t *numbers = json_array();
  for (size_t i = 0; i < listeners->count; i++) {
    json_array_append_new(numbers, json_integer(listeners->fds[i]));
    keep(listeners->fds[i], fds);
  }
  return json_pack("{s:s, s:s, s:o, s:b, s:b, s:I}", "addr", addr, "address", listeners->address,
                   "fds", numbers, "datagrams", listeners->type == SOCK_DGRAM, "disordered",
                   listeners->disordered, "preferred", (json_int_t)listeners->preferred);
}

static json_t *save_listeners(const struct master *master, json_t *fds) {
  json_t *list = json_array();
  for (size_t i = 0; i < master->client_listeners; i++) {
    json_array_append_new(list,
                          save_sockets(&master->clients[i], master->client_config[i]->addr, fds));
  }
  const struct listeners *http = operations_http_socket(master->operations_http);
  json_array_append_new(list, save_sockets(http, master->config.server.http.addr, fds));
  return list;
}

// Nothing but numbers, all of them atomic.
_Static_assert(sizeof(struct counters) % sizeof(uint64_t) == 0, "whole numbers");

static json_t *save_counters(const struct counters *counters) {
  const _Atomic uint64_t *cells = (const _Atomic uint64_t *)(const void *)counters;
  json_t *numbers = json_array();
  for (size_t i = 0; i < sizeof *counters / sizeof *cells; i++) {
    uint64_t number = atomic_load_explicit(&cells[i], memory_order_relaxed);
    json_array_append_new(numbers, json_integer((json_int_t)number));
  }
  return numbers;
}

static json_t *save_settings(const struct config *config) {
  char *text = config_text(config);
  json_t *settings = text ? json_string_nocheck(text) : NULL;
  free(text);
  return settings;
}

// Those that a registry which can't be asked would not give again.
static json_t *save_nodes(const struct master *master) {
  json_t *list = json_array();
  struct node *nodes;
  size_t count = master_read_nodes(master, &nodes);
  for (size_t i = 0; i < count; i++) {
    const struct node *node = &nodes[i];
    json_array_append_new(
        list, json_pack("{s:s, s:s, s:s, s:I, s:b, s:I}", "service", node->service, "address",
                        node->address, "color", node->color, "weight", (json_int_t)node->weight,
                        "secure", node->secure, "since_ms", (json_int_t)node->since_ms));
  }
  free(nodes);
  return list;
}

static bool save_ban(const struct ban *ban, void *context) {
  char field[BAN_FIELD_BYTES];
  char *value = ban_value(ban);
  ban_field(&ban->subject, field);
  if (value) {
    json_array_append_new(context, json_pack("[s, s]", field, value));
  }
  free(value);
  return true;
}

// Where Redis does not keep them.
static json_t *save_bans(const struct master *master) {
  json_t *list = json_array();
  if (!master->redis) {
    bans_each(master->bans, clock_wall_ms(), save_ban, list);
  }
  return list;
}

static json_t *save(struct master *master, int asker_fd, int secrets_fd) {
  json_t *fds = json_array();
  int control = control_fd(master->control);
  int program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
  keep(secrets_fd, fds);
  keep(control, fds);
  keep(program, fds);
  keep(asker_fd, fds);
  keep(tls_keys_fd(master->tls_keys), fds);
  keep(kcp_owners_fd(master->kcp_owners), fds);
  json_t *mailboxes = kcp_mailboxes_save(master->kcp_mailboxes, keep, fds);
  json_t *workers = workers_save(master->workers, keep, fds);
  json_t *listeners = save_listeners(master, fds);
  char port[16];
  snprintf(port, sizeof port, "%d", operations_grpc_port(master->operations_grpc));
  return json_pack(
      "{s:s, s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:I, s:o, "
      "s:o, s:o, s:o}",
      "version", JANUS_VERSION, "settings", save_settings(master->loaded), "running",
      save_settings(&master->config), "counters", save_counters(master->counters), "nodes",
      save_nodes(master), "bans", save_bans(master), "grpc_addr", master->loaded->server.grpc.addr,
      "grpc_port", port, "control_path", master->config.control.socket, "secrets_fd", secrets_fd,
      "control_fd", control, "program_fd", program, "asker_fd", asker_fd, "tls_fd",
      tls_keys_fd(master->tls_keys), "kcp_owners_fd", kcp_owners_fd(master->kcp_owners),
      "kcp_mailboxes", mailboxes, "broadcast_serial", (json_int_t)push_hub_serial(master->push_hub),
      "listeners", listeners, "registered", registry_save(master->registry), "workers", workers,
      "fds", fds);
}

// saved as text in a memory file.
static int write_saved(const json_t *saved) {
  char *text = json_dumps(saved, JSON_COMPACT);
  int fd = memfd_create("janus-takeover", MFD_CLOEXEC);
  size_t len = text ? strlen(text) : 0;
  bool written = text && fd >= 0;
  for (size_t at = 0; written && at < len;) {
    ssize_t some = write(fd, text + at, len - at);
    written = some > 0;
    at += written ? (size_t)some : 0;
  }
  free(text);
  if (fd >= 0 && !written) {
    close(fd);
    fd = -1;
  }
  return fd;
}

// --- Going over --------------------------------------------------------------------------------

// exec sets them back to what ends a process; those that come before the new program listens wait.
static void block_signals(int how) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGUSR1);
  pthread_sigmask(how, &signals, NULL);
}

struct argument_list {
  char *list[ARGUMENTS_MAX];
  char number[16];
};

static char **make_arguments(struct argument_list *arguments, const struct takeover_arguments *are,
                             int saved_fd, const char *failure) {
  size_t count = 0;
  snprintf(arguments->number, sizeof arguments->number, "%d", saved_fd);
  arguments->list[count++] = (char *)"janusd";
  arguments->list[count++] = (char *)"--config";
  arguments->list[count++] = (char *)are->config_path;
  if (are->worker) {
    arguments->list[count++] = (char *)"--worker";
    arguments->list[count++] = (char *)are->worker;
  }
  arguments->list[count++] = (char *)"--take-over";
  arguments->list[count++] = arguments->number;
  if (failure) {
    arguments->list[count++] = (char *)"--went-back";
    arguments->list[count++] = (char *)failure;
  }
  arguments->list[count] = NULL;
  return arguments->list;
}

void takeover_exec(struct master *master, const char *program, int asker_fd) {
  struct argument_list arguments;
  int secrets_fd = secrets_pipe_new(master->secrets);
  json_t *saved = secrets_fd >= 0 ? save(master, asker_fd, secrets_fd) : NULL;
  int fd = saved ? write_saved(saved) : -1;
  if (fd >= 0) {
    service_manager_restore_environment(master->service_manager);
    trace_settings_restore_environment(&master->trace_settings);
    set_all(saved, true);
    fcntl(fd, F_SETFD, 0);
    block_signals(SIG_BLOCK);
    execv(program, make_arguments(&arguments, &master->arguments, fd, NULL));
    int error = errno;
    block_signals(SIG_UNBLOCK);
    service_manager_clean_environment();
    trace_settings_clean_environment();
    set_all(saved, false);
    close(fd);
    errno = error;
  }
  int error = errno;
  int program_fd = saved ? takeover_fd(saved, "program_fd") : -1;
  if (program_fd >= 0) {
    close(program_fd);
  }
  if (secrets_fd >= 0) {
    close(secrets_fd);
  }
  json_decref(saved);
  errno = error;
}

// --- After ----------------------------------------------------------------------------

json_t *takeover_read(int fd) {
  struct stat status;
  json_t *saved = NULL;
  if (fstat(fd, &status) == 0 && status.st_size > 0 && status.st_size <= SAVED_MAX_BYTES) {
    void *text = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (text != MAP_FAILED) {
      saved = json_loadb(text, (size_t)status.st_size, 0, NULL);
      munmap(text, (size_t)status.st_size);
    }
  }
  if (saved) {
    json_object_set_new(saved, "saved_fd", json_integer(fd));
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    set_all(saved, false);
  }
  return saved;
}

int takeover_fd(const json_t *saved, const char *name) {
  const json_t *fd = saved ? json_object_get(saved, name) : NULL;
  return json_is_integer(fd) ? (int)json_integer_value(fd) : -1;
}

int takeover_read_settings(const json_t *saved, struct config *config, config_report *report,
                           void *context) {
  const char *text = json_string_value(json_object_get(saved, "settings"));
  return text ? config_load_text(text, config, report, context) : ERROR_INVALID;
}

bool takeover_read_secrets(const json_t *saved, struct secrets *secrets) {
  return secrets_pipe_read(takeover_fd(saved, "secrets_fd"), secrets);
}

static void name_kept_type(const char *name, enum config_change change, void *context) {
  (void)context;
  if (change == CONFIG_RESTART) {
    log_warn("setting_waits", "setting=%s hint=\"a restart takes it over\"", name);
  }
}

static void drop_fault(const char *fault, void *context) {
  (void)fault;
  (void)context;
}

void takeover_keep_types(const json_t *saved, struct config *config) {
  struct config *before = malloc(sizeof *before);
  const char *text = json_string_value(json_object_get(saved, "running"));
  if (before && text && config_load_text(text, before, drop_fault, NULL) == 0) {
    before->registry.source = REGISTRY_STATIC;  // a new service is watched from this start on
    config_take_types(before, config, name_kept_type, NULL);
    memcpy(config->tunnel.types, before->tunnel.types, sizeof config->tunnel.types);
    config->tunnel.type_count = before->tunnel.type_count;
  } else {
    log_error("types_not_kept",
              "hint=\"what the program before says of its tunnel types is not "
              "understood; where their order has changed, restart\"");
  }
  free(before);
}

void takeover_keep_port(const json_t *saved, struct config *config) {
  const char *addr = json_string_value(json_object_get(saved, "grpc_addr"));
  const char *port = json_string_value(json_object_get(saved, "grpc_port"));
  char *own = config->server.grpc.addr;
  size_t len = strlen(own);
  if (addr && port && strcmp(addr, own) == 0 && len > 2 && strcmp(own + len - 2, ":0") == 0) {
    snprintf(own + len - 1, sizeof config->server.grpc.addr - (len - 1), "%s", port);
  }
}

void takeover_keep_counters(const json_t *saved, struct counters *counters) {
  _Atomic uint64_t *cells = (_Atomic uint64_t *)(void *)counters;
  const json_t *numbers = json_object_get(saved, "counters");
  const size_t count = sizeof *counters / sizeof *cells;
  for (size_t i = 0; json_array_size(numbers) == count && i < count; i++) {
    uint64_t number = (uint64_t)json_integer_value(json_array_get(numbers, i));
    atomic_store_explicit(&cells[i], number, memory_order_relaxed);
  }
}

void takeover_keep_nodes(const json_t *saved, struct node_table *table, size_t capacity) {
  const json_t *list = json_object_get(saved, "nodes"), *one;
  size_t count = json_array_size(list);
  size_t i;
  struct node *nodes = count > 0 && count <= capacity ? calloc(count, sizeof *nodes) : NULL;
  if (!nodes) {
    return;
  }
  json_array_foreach(list, i, one) {
    struct node *node = &nodes[i];
    snprintf(node->service, sizeof node->service, "%s",
             json_string_value(json_object_get(one, "service")));
    snprintf(node->address, sizeof node->address, "%s",
             json_string_value(json_object_get(one, "address")));
    snprintf(node->color, sizeof node->color, "%s",
             json_string_value(json_object_get(one, "color")));
    node->weight = (uint32_t)json_integer_value(json_object_get(one, "weight"));
    node->secure = json_is_true(json_object_get(one, "secure"));
    node->since_ms = json_integer_value(json_object_get(one, "since_ms"));
  }
  (void)!node_table_publish(table, nodes, count);
  free(nodes);
}

void takeover_keep_bans(const json_t *saved, struct bans *bans) {
  const json_t *one;
  size_t i;
  json_array_foreach(json_object_get(saved, "bans"), i, one) {
    const char *field = json_string_value(json_array_get(one, 0));
    const char *value = json_string_value(json_array_get(one, 1));
    struct ban ban;
    if (field && value && ban_parse(field, strlen(field), value, strlen(value), &ban) == 0) {
      (void)!bans_add(bans, &ban.subject, ban.until_ms, ban.reason, clock_wall_ms());
    }
  }
}

int takeover_read_tls(const json_t *saved, struct tls_material *material) {
  int fd = fcntl(takeover_fd(saved, "tls_fd"), F_DUPFD_CLOEXEC, 0);
  struct tls_segment *segment = fd >= 0 ? tls_segment_open(fd) : NULL;
  int error = segment ? tls_segment_read(segment, material) : ERROR_INVALID;
  tls_segment_free(segment);
  return error;
}

struct kcp_owners *takeover_kcp_owners(const json_t *saved, int *error) {
  int fd = fcntl(takeover_fd(saved, "kcp_owners_fd"), F_DUPFD_CLOEXEC, 0);
  *error = ERROR_INVALID;
  return fd >= 0 ? kcp_owners_open(fd, error) : NULL;
}

struct kcp_mailboxes *takeover_kcp_mailboxes(const json_t *saved, int *error) {
  return kcp_mailboxes_take(json_object_get(saved, "kcp_mailboxes"), error);
}

void takeover_offer_sockets(const json_t *saved) {
  const json_t *one, *number;
  size_t i, j;
  json_array_foreach(json_object_get(saved, "listeners"), i, one) {
    const json_t *numbers = json_object_get(one, "fds");
    const char *addr = json_string_value(json_object_get(one, "addr"));
    const char *address = json_string_value(json_object_get(one, "address"));
    const size_t preferred = (size_t)json_integer_value(json_object_get(one, "preferred"));
    struct listeners listeners = {
        .type = json_is_true(json_object_get(one, "datagrams")) ? SOCK_DGRAM : SOCK_STREAM,
        .count = json_array_size(numbers),
        .disordered = json_is_true(json_object_get(one, "disordered"))};
    if (!addr || !address || !(listeners.fds = calloc(listeners.count + 1, sizeof(int)))) {
      return;  // they are bound anew
    }
    json_array_foreach(numbers, j, number) { listeners.fds[j] = (int)json_integer_value(number); }
    listeners.preferred =
        preferred > 0 && preferred <= listeners.count ? preferred : listeners.count;
    snprintf(listeners.address, sizeof listeners.address, "%s", address);
    listeners_offer(addr, &listeners);
  }
}

void takeover_end(json_t *saved) {
  static const char *const only_for_the_way_back[] = {"saved_fd", "secrets_fd", "program_fd",
                                                      "tls_fd", "kcp_owners_fd"};
  for (size_t i = 0; i < sizeof only_for_the_way_back / sizeof *only_for_the_way_back; i++) {
    int fd = takeover_fd(saved, only_for_the_way_back[i]);
    if (fd >= 0) {
      close(fd);
    }
  }
  json_decref(saved);
}

void takeover_go_back(const json_t *saved, const struct takeover_arguments *arguments,
                      const struct secrets *secrets, const char *why) {
  struct argument_list list;
  int program = takeover_fd(saved, "program_fd");
  int secrets_fd = secrets ? secrets_pipe_new(secrets) : -1;
  if (program < 0) {
    return;
  }
  if (secrets_fd >= 0) {
    dup2(secrets_fd, takeover_fd(saved, "secrets_fd"));  // in place of those that were read
  }
  log_error("upgrade_failed", "hint=\"going back to the version before\"");
  set_all(saved, true);
  fcntl(takeover_fd(saved, "saved_fd"), F_SETFD, 0);
  block_signals(SIG_BLOCK);
  execveat(program, "", make_arguments(&list, arguments, takeover_fd(saved, "saved_fd"), why),
           environ, AT_EMPTY_PATH);
}
