// Pushes that wait for a client that is behind, in the order in which they came, and what
// gives way when there are too many.
//
// A push is one packet for any number of sessions: counted references, one copy. Loop
// thread only.
#ifndef JANUS_WORKER_PUSH_QUEUE_H
#define JANUS_WORKER_PUSH_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/channel.h"

struct push {
  TAILQ_ENTRY(push) link;  // among the worker's broadcasts
  size_t references;
  int64_t came_us;            // monotonic, where a session is watched; else 0
  size_t addressed;           // of a broadcast: sessions that it has come to
  struct channel_push about;  // receivers are not kept
  uint8_t packet[];           // about.packet_bytes, not yet sealed
};

struct push *push_new(const struct channel_push *about);  // NULL when out of memory
struct push *push_ref(struct push *push);                 // one reference more, returned
void push_unref(struct push *push);                       // one less; the last frees it

struct push_entry;

// Embedded in a session. All zero is an empty queue.
struct push_queue {
  struct push_entry *first;
  struct push_entry *last;
  struct push_entry *newest;  // with conflation: of each mod, seq and obj (uthash)
  bool conflates;
  size_t count;
  size_t bytes;  // of packets, and of what keeping them takes
};

// What a push adds to the bytes.
size_t push_queue_cost(const struct push *push);

// Takes a reference of its own. ERROR_MEMORY. *gave_way is how many were dropped for it,
// which can be one with conflation.
int push_queue_add(struct push_queue *queue, struct push *push, size_t *gave_way) MUST_CHECK;
// The oldest, with its reference for the caller; NULL when there is none.
struct push *push_queue_take(struct push_queue *queue);

// From here on, and among those that wait already, a push with a data_version gives way to
// one of the same mod, seq and obj that came later and has a higher one. Returns how many
// gave way. Ends when the queue is empty.
size_t push_queue_conflate(struct push_queue *queue);
// Told of each push that is dropped, before it is let go of.
typedef void push_on_dropped(const struct push *push, void *owner);
// Drops the oldest until no more than so many bytes are left; returns how many. on_dropped may
// be NULL.
size_t push_queue_drop_oldest(struct push_queue *queue, size_t bytes, push_on_dropped *on_dropped,
                              void *owner);
// Drops all; returns how many.
size_t push_queue_clear(struct push_queue *queue, push_on_dropped *on_dropped, void *owner);

#endif
