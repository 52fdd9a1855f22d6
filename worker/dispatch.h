// Which tunnel type a module's messages go to.
#ifndef JANUS_WORKER_DISPATCH_H
#define JANUS_WORKER_DISPATCH_H

#include <stdint.h>

#include "common/config.h"

enum { DISPATCH_NONE = -1, DISPATCH_DIRECT_MODULES = 256 };

struct dispatch {
  const struct config_tunnel_type *types;
  size_t type_count;
  int8_t direct[DISPATCH_DIRECT_MODULES];  // for the low module ids, which are all in use today
};

// Keeps a pointer to types.
void dispatch_init(struct dispatch *dispatch, const struct config_tunnel_type *types,
                   size_t type_count);

// The index of the tunnel type, or DISPATCH_NONE.
int dispatch_find(const struct dispatch *dispatch, int32_t module);

#endif
