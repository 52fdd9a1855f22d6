// What a worker's wires have for their clients, gathered until the end of the loop's turn: all
// messages for one client leave in one call then, and in as few TLS records as they fill.
//
// One arena for all: a wire owns memory of its own only for what its client does not take. Loop
// thread only.
#ifndef JANUS_WORKER_WIRE_GATHER_H
#define JANUS_WORKER_WIRE_GATHER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

enum {
  // For one client; more is sent before the turn ends. A frame of the largest size fits.
  GATHERED_MAX_BYTES = 64 << 10,
};

struct gathered_piece;
struct wire_gather;

// Embedded in a wire. All zero: nothing is gathered for it.
struct gathered {
  TAILQ_ENTRY(gathered) link;  // among those that have something
  struct gathered_piece *first;
  struct gathered_piece *last;
};

// send is called at the end of a turn for each that has something, and takes it. It must not add
// anything, nor free any wire. NULL when out of memory.
struct wire_gather *wire_gather_new(struct event_base *base, void (*send)(struct gathered *));
// Nothing may be gathered any more. Accepts NULL.
void wire_gather_free(struct wire_gather *gather);

// Has all be sent now. What was gathered is where it was, until there is more.
void wire_gather_flush(struct wire_gather *gather);
// Whether so many bytes more find room; there is room for GATHERED_MAX_BYTES after a flush.
bool wire_gather_has_room(const struct wire_gather *gather, size_t len);
// Copies the bytes behind those that are there. They have room, and are no more than
// GATHERED_MAX_BYTES with those.
void wire_gather_add(struct wire_gather *gather, struct gathered *gathered, const uint8_t *bytes,
                     size_t len);
size_t gathered_bytes(const struct gathered *gathered);
// All that is there, in one piece, which is valid until something is gathered; NULL: nothing is.
const uint8_t *wire_gather_take(struct wire_gather *gather, struct gathered *gathered, size_t *len);

#endif
