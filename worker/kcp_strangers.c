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

// An address of which there are some whose client has not shown that it is there.
struct stranger_address {
  uint8_t address[NETWORK_ADDRESS_BYTES];
  struct stranger_queue here;  // the oldest first
  size_t count;
  UT_hash_handle hh;
};

struct kcp_strangers {
  void (*on_gives_way)(void *owner, int64_t now_ms);
  size_t max;
  size_t max_per_address;
  struct stranger_queue all;  // the oldest first
  size_t count;
  struct stranger_address *addresses;
};

static struct stranger_address *find(const struct kcp_strangers *strangers,
                                     const uint8_t key[NETWORK_ADDRESS_BYTES]) {
  struct stranger_address *found = NULL;
  HASH_FIND(hh, strangers->addresses, key, NETWORK_ADDRESS_BYTES, found);
  return found;
}

static struct stranger_address *add_address(struct kcp_strangers *strangers,
                                            const uint8_t key[NETWORK_ADDRESS_BYTES]) {
  struct stranger_address *address = calloc(1, sizeof *address);
  if (address) {
    memcpy(address->address, key, sizeof address->address);
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

bool kcp_strangers_make_room(struct kcp_strangers *strangers, const struct sockaddr *address,
                             int64_t now_ms) {
  uint8_t key[NETWORK_ADDRESS_BYTES];
  network_address_of_socket(address, key);
  struct stranger_address *neighbours = find(strangers, key);
  // Its own bound first: whoever is over that makes nobody else give way.
  if (neighbours && neighbours->count >= strangers->max_per_address &&
      !give_way(strangers, TAILQ_FIRST(&neighbours->here), now_ms)) {
    return false;
  }
  return strangers->count < strangers->max ||
         give_way(strangers, TAILQ_FIRST(&strangers->all), now_ms);
}

int kcp_strangers_add(struct kcp_strangers *strangers, struct kcp_stranger *stranger,
                      const struct sockaddr *address, int64_t now_ms) {
  uint8_t key[NETWORK_ADDRESS_BYTES];
  network_address_of_socket(address, key);
  struct stranger_address *neighbours = find(strangers, key);
  if (!neighbours && !(neighbours = add_address(strangers, key))) {
    return ERROR_MEMORY;
  }
  stranger->address = neighbours;
  stranger->came_ms = now_ms;
  neighbours->count++;
  TAILQ_INSERT_TAIL(&neighbours->here, stranger, beside);
  strangers->count++;
  TAILQ_INSERT_TAIL(&strangers->all, stranger, entry);
  return 0;
}

void kcp_strangers_know(struct kcp_strangers *strangers, struct kcp_stranger *stranger) {
  struct stranger_address *neighbours = stranger->address;
  if (!neighbours) {
    return;
  }
  stranger->address = NULL;
  TAILQ_REMOVE(&neighbours->here, stranger, beside);
  if (--neighbours->count == 0) {
    HASH_DELETE(hh, strangers->addresses, neighbours);
    free(neighbours);
  }
}

void kcp_strangers_remove(struct kcp_strangers *strangers, struct kcp_stranger *stranger) {
  kcp_strangers_know(strangers, stranger);
  strangers->count--;
  TAILQ_REMOVE(&strangers->all, stranger, entry);
}

struct kcp_strangers *kcp_strangers_new(void (*on_gives_way)(void *owner, int64_t now_ms)) {
  struct kcp_strangers *strangers = calloc(1, sizeof *strangers);
  if (strangers) {
    strangers->on_gives_way = on_gives_way;
    TAILQ_INIT(&strangers->all);
  }
  return strangers;
}

void kcp_strangers_set(struct kcp_strangers *strangers, size_t max, size_t max_per_address) {
  strangers->max = max;
  strangers->max_per_address = max_per_address;
}

void kcp_strangers_free(struct kcp_strangers *strangers) { free(strangers); }
