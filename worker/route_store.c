#include "worker/route_store.h"

#include <stdlib.h>
#include <string.h>

#include "worker/inbox.h"
#include "worker/worker.h"

// The master answers within microseconds. When it does not, it is gone or
// stopped, and players should not wait for it.
static const struct timeval answer_timeout = {.tv_sec = 1};

LIST_HEAD(claim_list, route_claim);

enum { CLAIM_BUCKETS = 1024 };  // a power of two

struct route_store {
  struct worker *worker;
  uint64_t next_id;
  struct claim_list open[CLAIM_BUCKETS];  // by the id's low bits
};

struct route_store *route_store_new(struct worker *worker) {
  struct route_store *store = calloc(1, sizeof *store);
  if (store) {
    store->worker = worker;
    store->next_id = 1;
  }
  return store;
}

void route_store_free(struct route_store *store) { free(store); }

static void settle(struct route_claim *claim, const char *address) {
  route_store_withdraw(claim);
  claim->on_settled(claim, address);
}

static void on_no_answer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  settle(owner, "");
}

void route_store_claim(struct route_store *store, struct route_claim *claim, int tunnel_type,
                       const char *color, int64_t oid, const char *candidate, const char *dead) {
  struct channel_route_claim question = {
      .id = store->next_id++, .oid = oid, .tunnel_type = (uint32_t)tunnel_type};
  strncpy(question.color, color, sizeof question.color - 1);
  strncpy(question.candidate, candidate, sizeof question.candidate - 1);
  strncpy(question.dead, dead, sizeof question.dead - 1);

  claim->store = store;
  claim->id = question.id;
  LIST_INSERT_HEAD(&store->open[claim->id % CLAIM_BUCKETS], claim, link);
  evtimer_assign(&claim->timer, store->worker->base, on_no_answer, claim);
  if (inbox_tell(store->worker->inbox, CHANNEL_ROUTE_CLAIM, &question) == 0) {
    evtimer_add(&claim->timer, &answer_timeout);
  } else {
    event_active(&claim->timer, EV_TIMEOUT, 0);
  }
}

void route_store_withdraw(struct route_claim *claim) {
  if (claim->id != 0) {
    LIST_REMOVE(claim, link);
    event_del(&claim->timer);
    claim->id = 0;
  }
}

void route_store_renew(struct route_store *store, int tunnel_type, const char *color, int64_t oid,
                       const char *address) {
  struct channel_route_renew renew = {.oid = oid, .tunnel_type = (uint32_t)tunnel_type};
  strncpy(renew.color, color, sizeof renew.color - 1);
  strncpy(renew.address, address, sizeof renew.address - 1);
  inbox_tell(store->worker->inbox, CHANNEL_ROUTE_RENEW, &renew);
}

void route_store_on_answer(struct route_store *store, const struct channel_route_answer *answer) {
  struct route_claim *claim;
  LIST_FOREACH(claim, &store->open[answer->id % CLAIM_BUCKETS], link) {
    if (claim->id == answer->id) {
      settle(claim, answer->address);
      return;
    }
  }
  // Withdrawn, or answered by the clock, in the meantime.
}
