#include "master/service_manager.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#define LOG_MODULE LOG_MODULE_MASTER

enum { STATUS_BYTES = 256 };

// As the service manager sets them. Everything that a program of ours starts would take
// itself for the service if it had them.
static const char *const variables[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"};
enum { VARIABLE_COUNT = sizeof variables / sizeof variables[0] };

struct service_manager {
  int fd;
  struct sockaddr_un address;
  socklen_t address_len;
  struct event *watchdog;  // NULL when it is not asked for
  bool was_ready;
  bool stopping;
  char status[STATUS_BYTES];
  char *environment[VARIABLE_COUNT];  // NULL: not set
};

// Returns whether it was sent.
static bool tell(const struct service_manager *manager, const char *message) {
  if (sendto(manager->fd, message, strlen(message), MSG_NOSIGNAL | MSG_DONTWAIT,
             (const struct sockaddr *)&manager->address, manager->address_len) < 0) {
    log_limited(LOG_LEVEL_WARN, "service_manager_not_told", "error=\"%s\"", strerror(errno));
    return false;
  }
  return true;
}

static void on_watchdog(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  tell(owner, "WATCHDOG=1");
}

// A leading @ stands for the null byte of an abstract name.
static bool take_address(struct service_manager *manager, const char *path) {
  size_t len = strlen(path);
  if (len < 2 || len >= sizeof manager->address.sun_path || (path[0] != '/' && path[0] != '@')) {
    return false;
  }
  manager->address.sun_family = AF_UNIX;
  memcpy(manager->address.sun_path, path, len);
  if (path[0] == '@') {
    manager->address.sun_path[0] = '\0';
  }
  manager->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
  return true;
}

// Twice in the time that the service manager waits. False: that can't be had.
static bool start_watchdog(struct service_manager *manager, struct event_base *base,
                           const char *usec_text, const char *pid_text) {
  unsigned long long usec = usec_text ? strtoull(usec_text, NULL, 10) : 0;
  if (usec == 0 || (pid_text && strtol(pid_text, NULL, 10) != getpid())) {
    return true;
  }
  const struct timeval half = {.tv_sec = (time_t)(usec / 2 / 1000000),
                               .tv_usec = (suseconds_t)(usec / 2 % 1000000)};
  manager->watchdog = event_new(base, -1, EV_PERSIST, on_watchdog, manager);
  return manager->watchdog && event_add(manager->watchdog, &half) == 0;
}

static void take_environment(struct service_manager *manager) {
  for (int i = 0; i < VARIABLE_COUNT; i++) {
    const char *value = getenv(variables[i]);
    manager->environment[i] = value ? strdup(value) : NULL;
    unsetenv(variables[i]);
  }
}

struct service_manager *service_manager_new(struct event_base *base) {
  if (!getenv(variables[0])) {
    return NULL;
  }
  struct service_manager *manager = calloc(1, sizeof *manager);
  if (!manager) {
    return NULL;
  }
  take_environment(manager);
  manager->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const char *const *taken = (const char *const *)manager->environment;
  if (manager->fd < 0 || !taken[0] || !take_address(manager, taken[0]) ||
      !start_watchdog(manager, base, taken[1], taken[2])) {
    log_warn("service_manager_unreachable",
             "hint=\"NOTIFY_SOCKET is no address, or there is no "
             "memory or descriptor for it\"");
    service_manager_free(manager);
    return NULL;
  }
  return manager;
}

void service_manager_free(struct service_manager *manager) {
  if (!manager) {
    return;
  }
  if (manager->watchdog) {
    event_free(manager->watchdog);
  }
  if (manager->fd >= 0) {
    close(manager->fd);
  }
  for (int i = 0; i < VARIABLE_COUNT; i++) {
    free(manager->environment[i]);
  }
  free(manager);
}

void service_manager_ready(struct service_manager *manager) {
  if (manager && !manager->stopping) {
    manager->was_ready = true;
    tell(manager, "READY=1");
  }
}

void service_manager_reloading(struct service_manager *manager) {
  if (manager && manager->was_ready && !manager->stopping) {
    char message[64];
    snprintf(message, sizeof message, "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)clock_monotonic_us());
    tell(manager, message);
  }
}

void service_manager_reloaded(struct service_manager *manager) {
  if (manager && manager->was_ready) {
    service_manager_ready(manager);
  }
}

void service_manager_stopping(struct service_manager *manager) {
  if (manager && !manager->stopping) {
    manager->stopping = true;
    tell(manager, "STOPPING=1");
  }
}

void service_manager_status(struct service_manager *manager, const char *format, ...) {
  char status[STATUS_BYTES];
  char message[STATUS_BYTES + sizeof "STATUS="];
  va_list arguments;
  if (!manager) {
    return;
  }
  va_start(arguments, format);
  vsnprintf(status, sizeof status, format, arguments);
  va_end(arguments);
  snprintf(message, sizeof message, "STATUS=%s", status);
  if (strcmp(status, manager->status) != 0 && tell(manager, message)) {
    memcpy(manager->status, status, sizeof status);
  }
}

void service_manager_clean_environment(void) {
  for (int i = 0; i < VARIABLE_COUNT; i++) {
    unsetenv(variables[i]);
  }
}

void service_manager_restore_environment(const struct service_manager *manager) {
  for (int i = 0; manager && i < VARIABLE_COUNT; i++) {
    if (manager->environment[i]) {
      setenv(variables[i], manager->environment[i], 1);
    }
  }
}
