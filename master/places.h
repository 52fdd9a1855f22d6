// How many workers take players, each at a place of its own with a socket of every listener; and
// new workers in place of all. What a reload or a takeover has changed is brought about here.
#ifndef JANUS_MASTER_PLACES_H
#define JANUS_MASTER_PLACES_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct master;

// Part of struct master.
struct places {
  struct event *left;   // sockets of places that are given up are to be closed
  bool generation_due;  // and could not begin yet
};

bool places_init(struct master *master);  // false: out of memory
void places_fini(struct master *master);

// How many there are to be when worker.count is 0.
int64_t places_default_count(void);

// Sockets for as many workers; no client comes to them yet. False with the reason in why, and there
// are as many as before.
bool places_open(struct master *master, int count, char *why, size_t why_size);
// Closes those that no worker has a place for.
void places_close_unused(struct master *master);
// As many workers as worker.count says now, for which sockets are open; those that are too many
// drain.
void places_take(struct master *master);

// New workers in place of all. False: later, by itself.
bool places_renew(struct master *master);
void places_tick(struct master *master);  // each second

#endif
