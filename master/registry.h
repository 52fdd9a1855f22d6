// Which nodes there are. `registry = "static"`: those of the configuration.
#ifndef JANUS_MASTER_REGISTRY_H
#define JANUS_MASTER_REGISTRY_H

#include "common/config.h"
#include "common/error.h"
#include "common/node_table.h"

// Publishes the configured nodes. ERROR_EXHAUSTED: more than the table takes.
int registry_publish_static(struct node_table *table, const struct config *config) MUST_CHECK;

#endif
