// Routes in memory (`routes = "memory"`): the master settles who serves what, and
// publishes it in the shared table, which is also where it is kept. Right for one
// gateway whose backends do not renew their routes themselves.
//
// When the table has no room, a claim is answered with no address, and the worker
// falls back on rendezvous hashing.
#ifndef JANUS_MASTER_ROUTES_H
#define JANUS_MASTER_ROUTES_H

#include "common/channel.h"
#include "common/config.h"
#include "common/route_table.h"

// Answers a claim: the route there is, or else (or if it still names claim->dead)
// the candidate, which is then set.
void routes_settle(struct route_table *table, const struct config *config,
                   const struct channel_route_claim *claim, struct channel_route_answer *answer);

// Prolongs a route that names renew->address, or puts it back if it is gone.
void routes_renew(struct route_table *table, const struct config *config,
                  const struct channel_route_renew *renew);

// The gateway tier: this gateway has the player; it no longer has.
void routes_set_gateway(struct route_table *table, const struct config *config, int64_t uid,
                        const char *color);
void routes_remove_gateway(struct route_table *table, const struct config *config, int64_t uid,
                           const char *color);

#endif
