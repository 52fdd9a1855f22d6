// Connections over KCP on which nobody has logged in: how many there may be, and which of them
// gives way to another one.
//
// An address in a datagram proves nothing. So those whose client has not shown that it is there are
// bounded for each address too, and a flood in somebody's name keeps him out for a moment only:
// the oldest of the address gives way. And they give way before those that are known to be there.
//
// Loop thread only. Times are monotonic.
#ifndef JANUS_WORKER_KCP_STRANGERS_H
#define JANUS_WORKER_KCP_STRANGERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "common/error.h"

struct kcp_strangers;
struct stranger_address;

// What a connection holds of it. The owner sets owner.
struct kcp_stranger {
  void *owner;
  TAILQ_ENTRY(kcp_stranger) entry;   // of those that are known to be there, or are not
  TAILQ_ENTRY(kcp_stranger) beside;  // of its address
  struct stranger_address *address;  // NULL once its client is known to be there
  int64_t came_ms;
};

// Whoever is to give way is to be ended within on_gives_way, and removed by that. Lets nobody in
// until it is set. NULL when out of memory.
struct kcp_strangers *kcp_strangers_new(void (*on_gives_way)(void *owner, int64_t now_ms));
void kcp_strangers_free(struct kcp_strangers *strangers);  // once all are removed; accepts NULL

// How many there may be at a time, and of one address without a sign that they are there.
void kcp_strangers_set(struct kcp_strangers *strangers, size_t max, size_t max_per_address);

// Whether another one may come, of this address (its port does not matter): by making room for it,
// if need be, at the expense of one that has been there for a while.
bool kcp_strangers_make_room(struct kcp_strangers *strangers, const struct sockaddr *address,
                             int64_t now_ms);
// It has come. ERROR_MEMORY.
int kcp_strangers_add(struct kcp_strangers *strangers, struct kcp_stranger *stranger,
                      const struct sockaddr *address, int64_t now_ms) MUST_CHECK;
// Its client is there.
void kcp_strangers_know(struct kcp_strangers *strangers, struct kcp_stranger *stranger);
// It is none any more.
void kcp_strangers_remove(struct kcp_strangers *strangers, struct kcp_stranger *stranger);

#endif
