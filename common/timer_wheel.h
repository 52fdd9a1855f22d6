// Timers by the thousand on one timer of the event loop: a hashed wheel of two levels. Setting,
// moving and cancelling one costs the same however many there are, and none is allocated.
//
// A timer never fires before it is due, and up to one granularity after. The wheel holds no clock
// and no event: the caller gives the time (ms of any clock that does not go back), and calls
// timer_wheel_advance when timer_wheel_next says so.
//
// Loop thread only.
#ifndef JANUS_COMMON_TIMER_WHEEL_H
#define JANUS_COMMON_TIMER_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#define TIMER_WHEEL_NEVER INT64_MAX

struct timer_wheel;

// Embedded in what it is for, and set to zeros at first. Its fields are the wheel's, but for
// owner. It must be cancelled before it goes.
struct wheel_timer {
  LIST_ENTRY(wheel_timer) entry;
  int64_t tick;
  void *owner;    // what the callback gets
  uint16_t slot;  // 1 + where it stands; 0: nowhere
};

// A timer has fired, and is not set any more. It may set and cancel any timer, its own too, and
// free what they are embedded in; it may not advance or free the wheel.
typedef void timer_wheel_on_due(void *timer_owner);

// NULL when out of memory. granularity_ms is at least 1.
struct timer_wheel *timer_wheel_new(int64_t granularity_ms, int64_t now_ms,
                                    timer_wheel_on_due *on_due);
// No timer fires any more. Those set are the caller's to forget: they are not to be cancelled.
void timer_wheel_free(struct timer_wheel *wheel);  // accepts NULL

// Sets it, or moves it when it is set. Overdue: it fires at the wheel's next step.
// TIMER_WHEEL_NEVER cancels it.
void timer_wheel_set(struct timer_wheel *wheel, struct wheel_timer *timer, int64_t due_ms);
void timer_wheel_cancel(struct timer_wheel *wheel, struct wheel_timer *timer);  // set or not
static inline bool wheel_timer_is_set(const struct wheel_timer *timer) { return timer->slot != 0; }

// Fires what is due. What a callback sets waits for a later call, even if it is overdue.
void timer_wheel_advance(struct timer_wheel *wheel, int64_t now_ms);
// When it is to be advanced next: no timer fires before, and perhaps none then (timers far ahead
// are sorted again on the way). TIMER_WHEEL_NEVER: none is set.
int64_t timer_wheel_next(const struct timer_wheel *wheel);

#endif
