#include "master/readiness.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *readiness_check_name(enum readiness_check check) {
  static const char *const names[] = {"listening", "workers", "draining", "nodes", "links"};
  return names[check];
}

const char *readiness_state_name(enum readiness_state state) {
  static const char *const names[] = {"not ready", "ready", "draining"};
  return names[state];
}

static void set(struct readiness *readiness, enum readiness_check check, bool ok,
                const char *format, ...) __attribute__((format(printf, 4, 5)));
static void set(struct readiness *readiness, enum readiness_check check, bool ok,
                const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(readiness->checks[check].detail, READINESS_DETAIL_BYTES, format, arguments);
  va_end(arguments);
  readiness->checks[check].ok = ok;
}

static size_t nodes_of(const struct readiness_facts *facts, const char *service) {
  size_t count = 0;
  for (size_t i = 0; i < facts->node_count; i++) {
    count += strcmp(facts->nodes[i].service, service) == 0;
  }
  return count;
}

static void check_nodes(const struct readiness_facts *facts, struct readiness *readiness) {
  char detail[READINESS_DETAIL_BYTES] = "";
  bool ok = true;
  size_t len = 0;
  for (size_t i = 0; i < facts->config->tunnel.type_count && len < sizeof detail; i++) {
    const struct config_tunnel_type *type = &facts->config->tunnel.types[i];
    size_t count = nodes_of(facts, type->service);
    ok = ok && (!type->main || count > 0);
    len += (size_t)snprintf(detail + len, sizeof detail - len, "%s%s%s: %zu", i > 0 ? ", " : "",
                            type->name, type->main ? "" : " (optional)", count);
  }
  set(readiness, READINESS_NODES, ok, "%s", detail);
}

void readiness_evaluate(const struct readiness_facts *facts, struct readiness *readiness) {
  bool ready = true;
  set(readiness, READINESS_LISTENING, facts->listeners > 0 && facts->all_workers_served,
      facts->all_workers_served ? "%zu listeners" : "%zu listeners, workers are starting",
      facts->listeners);
  set(readiness, READINESS_WORKERS, facts->workers_running > 0, "%d of %d running",
      facts->workers_running, facts->workers);
  set(readiness, READINESS_DRAINING, !facts->draining, "%s", facts->draining ? "yes" : "no");
  check_nodes(facts, readiness);
  set(readiness, READINESS_LINKS, true, "etcd %s, redis %s", facts->etcd ? facts->etcd : "not used",
      facts->redis ? facts->redis : "not used");
  for (int i = 0; i < READINESS_CHECKS; i++) {
    ready = ready && readiness->checks[i].ok;
  }
  readiness->state = facts->draining ? READINESS_IS_DRAINING
                     : ready         ? READINESS_READY
                                     : READINESS_NOT_READY;
}
