// Which nodes there are, published in the shared node table: `registry = "static"`, those
// of the configuration; "etcd", those that are registered there, as the ecosystem's
// services do it (kratos): `<namespace>/<service>/<instance id>` holds a JSON object with
// name, metadata and endpoints. The gateway registers itself the same way.
//
// When a session with etcd begins and a service has no node at all there, or etcd has gone
// back behind what it once said, the nodes known before are held for a while
// (etcd.empty_hold): an etcd that was restored empty must not stop a game whose servers are
// well. Each is dropped when its time is over, or when it
// registers anew.
#ifndef JANUS_MASTER_REGISTRY_H
#define JANUS_MASTER_REGISTRY_H

#include <event2/event.h>
#include <jansson.h>

#include "common/config.h"
#include "common/counters.h"
#include "common/node_table.h"
#include "master/etcd.h"

struct registry;

// All is borrowed; counters are the master's. NULL with the reason in why.
struct registry *registry_new(struct event_base *base, const struct config *config,
                              const struct secrets *secrets, struct node_table *table,
                              struct counters *counters, char *why, size_t why_size);
void registry_free(struct registry *registry);

// Where players come in.
struct registry_endpoint {
  const char *scheme;   // "tcp", "wss"
  const char *address;  // host:port
  const char *path;     // behind it; ""
};
// Registers this gateway, unless it is: players may come, to these.
void registry_announce(struct registry *registry, const struct registry_endpoint *endpoints,
                       size_t count);
// What the next program of this process has to know to keep the gateway registered as it is, and
// does before anything else of these.
json_t *registry_save(const struct registry *registry);
void registry_take_over(struct registry *registry, const json_t *saved);
// Takes it out again; on_gone comes once, maybe from inside, when that is done or can't be.
void registry_withdraw(struct registry *registry, void (*on_gone)(void *owner), void *owner);

// With the static registry: the nodes of the configuration, which have changed. They must fit.
void registry_publish_nodes(struct registry *registry);

// Drops nodes whose hold is over; each second.
void registry_tick(struct registry *registry);

// Whether the node is only held, listed no more.
bool registry_is_held(const struct registry *registry, const struct node *node);
// False with the static registry, which has none.
bool registry_health(const struct registry *registry, struct etcd_health *health);

// Reads one instance. service is what its name must be. Returns 0; ERROR_NOT_FOUND: it is
// another service's, whose name begins alike; ERROR_MALFORMED with what is wrong in why.
// Pure.
int registry_parse_instance(const char *service, const uint8_t *json, size_t len, struct node *node,
                            const char **why) MUST_CHECK;

#endif
