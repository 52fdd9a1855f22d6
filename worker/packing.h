// Answers that are too long to be compressed in one turn of the loop: they are compressed in
// slices, one after the other. What else is for the same session queues up behind, so that the
// order stays; nothing more is read for it meanwhile, so that this is little.
//
// Loop thread only.
#ifndef JANUS_WORKER_PACKING_H
#define JANUS_WORKER_PACKING_H

#include <stdbool.h>

#include "common/packet.h"

struct packing;
struct session;
struct worker;

// A packet's turn has come: packed is what goes to the client, valid for the call; error is 0 or
// ERROR_MEMORY. It waits no longer. May close sessions.
typedef void packing_done(struct session *session, const struct packet *packet,
                          const struct packet *packed, int error);

struct packing *packing_new(struct worker *worker, packing_done *on_done);  // NULL: out of memory
void packing_free(struct packing *packing);                                 // accepts NULL

// Whether the packet has to wait: it is long, or something before it waits for the session.
bool packing_takes(const struct packing *packing, const struct session *session,
                   const struct packet *packet);
// Copies it. ERROR_MEMORY.
int packing_add(struct packing *packing, struct session *session,
                const struct packet *packet) MUST_CHECK;
// Drops what waits for the session; returns how much it was.
size_t packing_drop(struct packing *packing, struct session *session);

#endif
