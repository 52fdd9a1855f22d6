// The route of the gateway tier: it says that a player is connected to this gateway.
#ifndef JANUS_MASTER_GATEWAY_ROUTE_H
#define JANUS_MASTER_GATEWAY_ROUTE_H

#include <stdint.h>

#include "common/config.h"
#include "common/route_table.h"
#include "master/directory.h"

// config and color are borrowed for the life of the key.
struct route_key gateway_route_key(const struct config *config, int64_t uid, const char *color);

// It is being written, for a session that the directory has: it is due again when half of its
// time is over.
void gateway_route_renewed(const struct config *config, struct directory *directory,
                           struct directory_session *session);

#endif
