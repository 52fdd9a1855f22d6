#include "worker/newcomers.h"

#include <event2/event.h>
#include <stdlib.h>

#include "worker/inbox.h"
#include "worker/slice.h"

TAILQ_HEAD(newcomer_list, newcomer);

struct newcomers {
  struct counters *counters;
  struct inbox *inbox;
  struct newcomer_list waiting;
  struct event *turn;
  int64_t end_us;  // of this turn's slice; 0: it has not begun
  unsigned turns;  // since there are more than one turn has time for
  bool gathers;    // what is told the master waits
};

// Of a burst the master hears once in so many turns (some 100 us each): to be woken for each login
// costs more than what it does for one. (A login's CPU is 6 % less.) Then for two turns nothing is
// held back, in the second of which at the latest it has left.
enum { TURNS_GATHERED = 8, TURNS_OPEN = 2 };

static void tell_master(struct newcomers *newcomers) {
  bool gather = !TAILQ_EMPTY(&newcomers->waiting) &&
                newcomers->turns++ % (TURNS_GATHERED + TURNS_OPEN) < TURNS_GATHERED;
  if (gather != newcomers->gathers) {
    newcomers->gathers = gather;
    (gather ? inbox_gather : inbox_send_gathered)(newcomers->inbox);
  }
}

static void on_turn(evutil_socket_t fd, short what, void *context) {
  struct newcomers *newcomers = context;
  struct newcomer *newcomer;
  (void)fd;
  (void)what;
  newcomers->end_us = 0;
  tell_master(newcomers);
  if (TAILQ_EMPTY(&newcomers->waiting)) {
    newcomers->turns = 0;
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

struct newcomers *newcomers_new(struct event_base *base, struct counters *counters,
                                struct inbox *inbox) {
  struct newcomers *newcomers = calloc(1, sizeof *newcomers);
  if (newcomers) {
    newcomers->counters = counters;
    newcomers->inbox = inbox;
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
    inbox_send_gathered(newcomers->inbox);
    event_free(newcomers->turn);
    free(newcomers);
  }
}
