// What becomes of login keys that a new configuration replaces: they stay good for a while,
// beside the new ones, so that nobody is cut off who still has them.
//
// The account key is one part of a set of keys and the certificates are another, and each
// stays or goes by itself. All of it is plain memory: no clock, no files, any thread.
#ifndef JANUS_COMMON_SECRETS_ROTATE_H
#define JANUS_COMMON_SECRETS_ROTATE_H

#include "common/config.h"

// Whether they are good at that time.
bool login_keys_valid(const struct login_keys *keys, int64_t now_ms);

// Whether they are the same, and good for the same time.
bool login_keys_equal(const struct login_keys *a, const struct login_keys *b);

// Adds to the previous keys of fresh what running has and fresh has not: its current keys,
// good for overlap_ms from now, and its previous ones, for as long as they were to be but no
// longer than that. Keys that fresh has with a time of their own keep that time, also where it
// is over: this is how a key is revoked. What is no longer good is left out.
//
// Returns how many good ones fell out for want of room, the oldest going first.
size_t secrets_rotate(struct secrets *fresh, const struct secrets *running, int64_t now_ms,
                      int64_t overlap_ms);

#endif
