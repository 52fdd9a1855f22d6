// What those who come in ask of the processor before they are players: handshakes, whose
// checks take some 40 us each, of TLS more. Of a burst of them so many are done in each turn
// of the loop as a slice has time for; the others wait, first come, first served, and what the
// master is told (worker/inbox.h) leaves for those of several turns at once.
//
// Loop thread only.
#ifndef JANUS_WORKER_NEWCOMERS_H
#define JANUS_WORKER_NEWCOMERS_H

#include <stdbool.h>
#include <sys/queue.h>

#include "common/counters.h"

struct event_base;
struct inbox;
struct newcomers;

// Within its owner; zeroed at first.
struct newcomer {
  TAILQ_ENTRY(newcomer) link;
  void (*on_turn)(void *owner);  // NULL: it does not wait
  void *owner;
};

struct newcomers *newcomers_new(struct event_base *base, struct counters *counters,
                                struct inbox *inbox);  // or NULL
void newcomers_free(struct newcomers *newcomers);      // nobody may wait; accepts NULL

// Whether there is time for another handshake in this turn, and nobody waits.
bool newcomers_may(struct newcomers *newcomers);
// Else: on_its_turn comes when there is. Then it waits no longer, and may be freed.
void newcomers_wait(struct newcomers *newcomers, struct newcomer *newcomer,
                    void (*on_its_turn)(void *owner), void *owner);
// It waits no longer, if it did.
void newcomers_leave(struct newcomers *newcomers, struct newcomer *newcomer);

#endif
