#include "master/registry.h"

#include <string.h>

#include "common/clock.h"

int registry_publish_static(struct node_table *table, const struct config *config) {
  struct node nodes[CONFIG_NODES];
  int64_t now_ms = clock_wall_ms();
  memcpy(nodes, config->registry.nodes, sizeof nodes);
  for (size_t i = 0; i < config->registry.node_count; i++) {
    nodes[i].since_ms = now_ms;
  }
  return node_table_publish(table, nodes, config->registry.node_count);
}
