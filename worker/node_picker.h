// Which node serves a route: a worker's own view of the node table, and the
// choices made on it. Only nodes of the service whose color equals the session's
// are ever considered.
//
// A node that failed is under suspicion for a while: this worker passes it over,
// whatever the registry says, as long as another will do. Loop thread only.
#ifndef JANUS_WORKER_NODE_PICKER_H
#define JANUS_WORKER_NODE_PICKER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/node_table.h"

struct node_picker;

// NULL when out of memory. seed says where its rounds begin (node_picker_pick): pickers of
// different seeds begin at different nodes. 0: with the heaviest, and the first of them in order.
struct node_picker *node_picker_new(uint64_t seed);
void node_picker_free(struct node_picker *picker);

// Takes over what the table says, if it has changed; one load if not. A node that
// stays keeps its turn and its suspicion. Nodes returned earlier are invalid then.
void node_picker_refresh(struct node_picker *picker, const struct node_table *table);

// Another table is looked at from now on: what it has is new, whatever its version.
void node_picker_forget_table(struct node_picker *picker);

// All return a node that is valid until the next refresh, or NULL. now_ms is
// monotonic.

// The node at address, whatever its weight; NULL if it is to be passed over.
const struct node *node_picker_find(struct node_picker *picker, const char *service,
                                    const char *color, const char *address, int64_t now_ms);

// Whether a node that a route names, and node_picker_find does not know, is to be waited
// for: another gateway may have heard of it first. Not so for one that was here and has
// left, nor when it has been asked for over grace_ms.
bool node_picker_may_come(struct node_picker *picker, const char *service, const char *color,
                          const char *address, int64_t grace_ms, int64_t now_ms);

// Whether the registry does not have it and it is not to be waited for either. One that is here
// and under suspicion is not gone.
bool node_picker_is_gone(struct node_picker *picker, const char *service, const char *color,
                         const char *address, int64_t grace_ms, int64_t now_ms);

// A node that a route names and the registry, which can't be seen now, has not told of.
// NULL for one that is here, was here and has left, or is under suspicion.
const struct node *node_picker_unseen(struct node_picker *picker, const char *service,
                                      const char *color, const char *address, int64_t now_ms);

// The next one by smooth weighted round-robin. Each worker of each gateway goes its own round
// and may pick but a few times in it, so these must not all begin at the same node.
const struct node *node_picker_pick(struct node_picker *picker, const char *service,
                                    const char *color, int64_t now_ms);

// The one that rendezvous hashing gives an object, weighted: every worker of every
// gateway that knows the same nodes computes the same one.
const struct node *node_picker_fallback(struct node_picker *picker, const char *service,
                                        const char *color, int64_t oid, int64_t now_ms);

// Puts the node under suspicion until then, whether the registry has it or not.
void node_picker_suspect(struct node_picker *picker, const char *service, const char *color,
                         const char *address, int64_t until_ms);

#endif
