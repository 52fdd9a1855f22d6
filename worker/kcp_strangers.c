#include "worker/kcp_strangers.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "common/networks.h"

// Who means to log in does so at once. The one that has not for so long gives way when there are
// too many, so that a flood of first datagrams, with anybody's addresses, does not keep out those
// who come meanwhile.
enum { PATIENCE_MS = 1000 };

TAILQ_HEAD(stranger_queue, kcp_stranger);

// An address (what counts as one) of which there are some whose client has not shown that it is
// there.
struct stranger_address {
  struct network address;
  struct stranger_queue here;  // the oldest first
  size_t count;
  UT_hash_handle hh;
};

struct kcp_strangers {
  void (*on_gives_way)(void *owner, int64_t now_ms);
  size_t max;
  size_t max_per_address;
  struct stranger_queue unknown;  // whose clients have not shown that they are there, and
  struct stranger_queue known;    // those that have: the oldest first
  size_t count;                   // of both,
  size_t known_count;             // and of the latter
  struct stranger_address *addresses;
};

static struct stranger_address *find(const struct kcp_strangers *strangers,
                                     const struct network *key) {
  struct stranger_address *found = NULL;
  HASH_FIND(hh, strangers->addresses, key, sizeof *key, found);
  return found;
}

static struct stranger_address *add_address(struct kcp_strangers *strangers,
                                            const struct network *key) {
  struct stranger_address *address = calloc(1, sizeof *address);
  if (address) {
    address->address = *key;
    TAILQ_INIT(&address->here);
    HASH_ADD(hh, strangers->addresses, address, sizeof address->address, address);
  }
  return address;
}

static bool give_way(struct kcp_strangers *strangers, struct kcp_stranger *oldest, int64_t now_ms) {
  if (!oldest || now_ms - oldest->came_ms < PATIENCE_MS) {
    return false;
  }
  strangers->on_gives_way(oldest->owner, now_ms);
  return true;
}

// A flood costs nothing but datagrams, so it can push out whoever has come by nothing but one.
// Those known to be there may be many too, as after an outage, and each wants its turn: they give
// way only where they have more than half of the places, so that others can show themselves at all.
static bool make_room_among_all(struct kcp_strangers *strangers, int64_t now_ms) {
  return give_way(strangers, TAILQ_FIRST(&strangers->unknown), now_ms) ||
         (strangers->known_count > strangers->max / 2 &&
          give_way(strangers, TAILQ_FIRST(&strangers->known), now_ms));
}

bool kcp_strangers_make_room(struct kcp_strangers *strangers, const struct sockaddr *address,
                             int64_t now_ms) {
  const struct network key = network_counted_as(address);
  struct stranger_address *neighbours = find(strangers, &key);
  // Its own bound first: whoever is over that makes nobody else give way.
  if (neighbours && neighbours->count >= strangers->max_per_address &&
      !give_way(strangers, TAILQ_FIRST(&neighbours->here), now_ms)) {
    return false;
  }
  return strangers->count < strangers->max || make_room_among_all(strangers, now_ms);
}

int kcp_strangers_add(struct kcp_strangers *strangers, struct kcp_stranger *stranger,
                      const struct sockaddr *address, int64_t now_ms) {
  const struct network key = network_counted_as(address);
  struct stranger_address *neighbours = find(strangers, &key);
  if (!neighbours && !(neighbours = add_address(strangers, &key))) {
    return ERROR_MEMORY;
  }
  stranger->address = neighbours;
  stranger->came_ms = now_ms;
  neighbours->count++;
  TAILQ_INSERT_TAIL(&neighbours->here, stranger, beside);
  strangers->count++;
  TAILQ_INSERT_TAIL(&strangers->unknown, stranger, entry);
  return 0;
}

static void leave_unknown(struct kcp_strangers *strangers, struct kcp_stranger *stranger) {
  struct stranger_address *neighbours = stranger->address;
  TAILQ_REMOVE(&strangers->unknown, stranger, entry);
  TAILQ_REMOVE(&neighbours->here, stranger, beside);
  stranger->address = NULL;
  if (--neighbours->count == 0) {
    HASH_DELETE(hh, strangers->addresses, neighbours);
    free(neighbours);
  }
}

void kcp_strangers_know(struct kcp_strangers *strangers, struct kcp_stranger *stranger) {
  if (stranger->address) {
    leave_unknown(strangers, stranger);
    strangers->known_count++;
    TAILQ_INSERT_TAIL(&strangers->known, stranger, entry);
  }
}

void kcp_strangers_remove(struct kcp_strangers *strangers, struct kcp_stranger *stranger) {
  strangers->count--;
  if (stranger->address) {
    leave_unknown(strangers, stranger);
  } else {
    strangers->known_count--;
    TAILQ_REMOVE(&strangers->known, stranger, entry);
  }
}

struct kcp_strangers *kcp_strangers_new(void (*on_gives_way)(void *owner, int64_t now_ms)) {
  struct kcp_strangers *strangers = calloc(1, sizeof *strangers);
  if (strangers) {
    strangers->on_gives_way = on_gives_way;
    TAILQ_INIT(&strangers->unknown);
    TAILQ_INIT(&strangers->known);
  }
  return strangers;
}

void kcp_strangers_set(struct kcp_strangers *strangers, size_t max, size_t max_per_address) {
  strangers->max = max;
  strangers->max_per_address = max_per_address;
}

void kcp_strangers_free(struct kcp_strangers *strangers) { free(strangers); }
