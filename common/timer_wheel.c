#include "common/timer_wheel.h"

#include <stdlib.h>

// A tick is one granularity. The first level has a slot for each of the next SLOTS ticks, the
// second one for each of the next SLOTS blocks of SLOTS ticks. When a block begins, its timers
// are spread over the first level; those still further ahead (over 46 hours, at 10 ms) go back
// to the second. The first level reaches 40 s, so that a connection's signs of life are set once.
enum { SLOT_BITS = 12, SLOTS = 1 << SLOT_BITS, WORDS = SLOTS / 64 };
enum { TICKS = SLOTS * SLOTS };  // that the second level reaches

LIST_HEAD(timer_list, wheel_timer);

struct level {
  uint64_t in_use[WORDS];
  struct timer_list slots[SLOTS];
};

struct timer_wheel {
  struct level levels[2];
  int64_t granularity_ms;
  int64_t tick;      // up to which all have fired
  int64_t now_tick;  // where advance is going; else the same
  timer_wheel_on_due *on_due;
};

struct timer_wheel *timer_wheel_new(int64_t granularity_ms, int64_t now_ms,
                                    timer_wheel_on_due *on_due) {
  struct timer_wheel *wheel = calloc(1, sizeof *wheel);
  if (wheel) {
    wheel->granularity_ms = granularity_ms;
    wheel->tick = now_ms / granularity_ms;
    wheel->now_tick = wheel->tick;
    wheel->on_due = on_due;
  }
  return wheel;
}

void timer_wheel_free(struct timer_wheel *wheel) { free(wheel); }

// Rounded up: it may be late, but never early.
static int64_t due_tick(const struct timer_wheel *wheel, int64_t due_ms) {
  return due_ms / wheel->granularity_ms + (due_ms % wheel->granularity_ms > 0 ? 1 : 0);
}

static void enter(struct level *level, unsigned index, unsigned slot, struct wheel_timer *timer) {
  LIST_INSERT_HEAD(&level->slots[index], timer, entry);
  level->in_use[index / 64] |= UINT64_C(1) << index % 64;
  timer->slot = (uint16_t)(slot + 1);
}

// Puts it where its tick belongs, which has not fired yet.
static void place(struct timer_wheel *wheel, struct wheel_timer *timer) {
  int64_t ahead = timer->tick - wheel->tick;
  if (ahead < SLOTS) {
    unsigned index = (unsigned)(timer->tick % SLOTS);
    enter(&wheel->levels[0], index, index, timer);
  } else {
    int64_t reached = ahead < TICKS ? timer->tick : wheel->tick + TICKS - 1;
    unsigned index = (unsigned)(reached / SLOTS % SLOTS);
    enter(&wheel->levels[1], index, SLOTS + index, timer);
  }
}

void timer_wheel_cancel(struct timer_wheel *wheel, struct wheel_timer *timer) {
  if (timer->slot == 0) {
    return;
  }
  unsigned slot = timer->slot - 1u;
  struct level *level = &wheel->levels[slot / SLOTS];
  unsigned index = slot % SLOTS;
  LIST_REMOVE(timer, entry);
  timer->slot = 0;
  if (LIST_EMPTY(&level->slots[index])) {
    level->in_use[index / 64] &= ~(UINT64_C(1) << index % 64);
  }
}

void timer_wheel_set(struct timer_wheel *wheel, struct wheel_timer *timer, int64_t due_ms) {
  int64_t tick = due_ms == TIMER_WHEEL_NEVER ? TIMER_WHEEL_NEVER : due_tick(wheel, due_ms);
  if (tick <= wheel->now_tick) {
    // Behind where advance is going: what sets itself again and again does not hold it up.
    tick = wheel->now_tick + 1;
  }
  if (wheel_timer_is_set(timer) && timer->tick == tick) {
    return;
  }
  timer_wheel_cancel(wheel, timer);
  if (due_ms != TIMER_WHEEL_NEVER) {
    timer->tick = tick;
    place(wheel, timer);
  }
}

// How far behind slot `index` the next one in use is: 1 to SLOTS (itself); 0: none is.
static unsigned next_in_use(const struct level *level, unsigned index) {
  for (unsigned ahead = 1; ahead <= SLOTS;) {
    unsigned at = (index + ahead) % SLOTS;
    uint64_t rest = level->in_use[at / 64] >> at % 64;
    if (rest) {
      ahead += (unsigned)__builtin_ctzll(rest);
      return ahead <= SLOTS ? ahead : 0;
    }
    ahead += 64 - at % 64;
  }
  return 0;
}

// The next tick at which something fires or a block with timers begins.
static int64_t next_tick(const struct timer_wheel *wheel) {
  int64_t block = wheel->tick / SLOTS;
  unsigned ahead = next_in_use(&wheel->levels[0], (unsigned)(wheel->tick % SLOTS));
  unsigned blocks_ahead = next_in_use(&wheel->levels[1], (unsigned)(block % SLOTS));
  int64_t next = ahead ? wheel->tick + ahead : INT64_MAX;
  int64_t next_block = blocks_ahead ? (block + blocks_ahead) * SLOTS : INT64_MAX;
  return next < next_block ? next : next_block;
}

int64_t timer_wheel_next(const struct timer_wheel *wheel) {
  int64_t next = next_tick(wheel);
  return next == INT64_MAX ? TIMER_WHEEL_NEVER : next * wheel->granularity_ms;
}

static void spread_block(struct timer_wheel *wheel) {
  struct timer_list *slot = &wheel->levels[1].slots[wheel->tick / SLOTS % SLOTS];
  struct wheel_timer *timer;
  while ((timer = LIST_FIRST(slot))) {
    timer_wheel_cancel(wheel, timer);
    place(wheel, timer);
  }
}

static void fire_slot(struct timer_wheel *wheel) {
  struct timer_list *slot = &wheel->levels[0].slots[wheel->tick % SLOTS];
  struct wheel_timer *timer;
  while ((timer = LIST_FIRST(slot))) {
    timer_wheel_cancel(wheel, timer);
    wheel->on_due(timer->owner);
  }
}

void timer_wheel_advance(struct timer_wheel *wheel, int64_t now_ms) {
  int64_t now_tick = now_ms / wheel->granularity_ms;
  if (now_tick <= wheel->tick) {
    return;
  }
  wheel->now_tick = now_tick;
  for (int64_t next = next_tick(wheel); next <= now_tick; next = next_tick(wheel)) {
    wheel->tick = next;
    if (next % SLOTS == 0) {
      spread_block(wheel);
    }
    fire_slot(wheel);
  }
  wheel->tick = now_tick;
}
