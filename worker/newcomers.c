#include "worker/newcomers.h"

#include <event2/event.h>
#include <stdlib.h>

#include "worker/slice.h"

TAILQ_HEAD(newcomer_list, newcomer);

struct newcomers {
  struct counters *counters;
  struct newcomer_list waiting;
  struct event *turn;
  int64_t end_us;  // of this turn's slice; 0: it has not begun
};

static void on_turn(evutil_socket_t fd, short what, void *context) {
  struct newcomers *newcomers = context;
  struct newcomer *newcomer;
  (void)fd;
  (void)what;
  newcomers->end_us = 0;
  if (TAILQ_EMPTY(&newcomers->waiting)) {
    return;
  }
  newcomers->end_us = slice_end_us();
  do {
    newcomer = TAILQ_FIRST(&newcomers->waiting);
    void (*on_its_turn)(void *owner) = newcomer->on_turn;
    newcomers_leave(newcomers, newcomer);
    // NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): the one before has left the list
    on_its_turn(newcomer->owner);
  } while (!TAILQ_EMPTY(&newcomers->waiting) && !slice_is_over(newcomers->end_us));
  slice_go_on(newcomers->turn);
}

bool newcomers_may(struct newcomers *newcomers) {
  static const struct timeval next_turn = {0};
  if (newcomers->end_us == 0) {
    newcomers->end_us = slice_end_us();
    evtimer_add(newcomers->turn, &next_turn);
    return true;
  }
  return TAILQ_EMPTY(&newcomers->waiting) && !slice_is_over(newcomers->end_us);
}

void newcomers_wait(struct newcomers *newcomers, struct newcomer *newcomer,
                    void (*on_its_turn)(void *owner), void *owner) {
  newcomer->on_turn = on_its_turn;
  newcomer->owner = owner;
  TAILQ_INSERT_TAIL(&newcomers->waiting, newcomer, link);
  counters_add(newcomers->counters, COUNTER_HANDSHAKES_WAITED, 1);
}

void newcomers_leave(struct newcomers *newcomers, struct newcomer *newcomer) {
  if (newcomer->on_turn) {
    TAILQ_REMOVE(&newcomers->waiting, newcomer, link);
    newcomer->on_turn = NULL;
  }
}

struct newcomers *newcomers_new(struct event_base *base, struct counters *counters) {
  struct newcomers *newcomers = calloc(1, sizeof *newcomers);
  if (newcomers) {
    newcomers->counters = counters;
    TAILQ_INIT(&newcomers->waiting);
    newcomers->turn = evtimer_new(base, on_turn, newcomers);
    if (!newcomers->turn) {
      free(newcomers);
      newcomers = NULL;
    }
  }
  return newcomers;
}

void newcomers_free(struct newcomers *newcomers) {
  if (newcomers) {
    event_free(newcomers->turn);
    free(newcomers);
  }
}
