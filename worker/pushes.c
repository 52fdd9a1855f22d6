#include "worker/pushes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "worker/inbox.h"
#include "worker/player.h"
#include "worker/push_queue.h"
#include "worker/session.h"
#include "worker/slice.h"
#include "worker/worker.h"

#define LOG_MODULE LOG_MODULE_PUSH

// A delivery costs some 5 us, most of it in the kernel. Also how many sessions are prefetched at
// once.
enum { DELIVERIES_BETWEEN_LOOKS = 8 };

TAILQ_HEAD(push_list, push);

// The push to some players that is under way. Until it is done, the master is not heard: what
// comes after it may be for the same players.
struct multicast {
  struct push *push;  // NULL: none is
  uint32_t count;
  uint32_t next;
  uint64_t receivers[CHANNEL_PUSH_RECEIVERS_MAX];
};

// A session that has ended and had siblings: pushes that the master has sent it before it heard of
// that go to one of them. As many are remembered as may end in that time, a few ms.
enum { GONE_MAX = 64 };
struct gone {
  uint64_t connection;
  uint64_t client;
  int64_t uid;
};

struct pushes {
  struct worker *worker;
  struct gone gone[GONE_MAX];
  size_t gone_count;  // ever
  struct multicast multicast;
  struct push_list broadcasts;  // under way, the oldest first
  struct session *next;         // whom the oldest comes to next; NULL: to nobody more
  struct event *turn;
  uint64_t latest;
};

static const struct timeval next_turn = {0};

// --- Broadcasts ----------------------------------------------------------------

static bool is_for(const struct push *push, const struct session *session) {
  const struct channel_push *about = &push->about;
  return (about->color[0] == '\0' || strcmp(about->color, session->color) == 0) &&
         (about->sid == 0 || about->sid == session->sid);
}

// Of the player's, the one that pushes go to. A session that has left its player is itself.
static struct session *receiver_of(struct session *session) {
  const struct player *player = session->player;
  return player && !player_is_over(player) ? player_oldest(player) : session;
}

// Once to each player, whichever of his sessions is at hand.
static void broadcast_to(struct push *push, struct session *session) {
  struct session *receiver = receiver_of(session);
  if (receiver->state == SESSION_PLAYING && receiver->player->broadcast_seen < push->about.serial) {
    receiver->player->broadcast_seen = push->about.serial;
    if (is_for(push, receiver)) {
      push->addressed++;
      session_push(receiver, push);
    }
  }
}

// What of the broadcasts the session has not got yet. It may be closed in between.
static void catch_up(struct pushes *pushes, struct session *session) {
  struct push *push;
  TAILQ_FOREACH(push, &pushes->broadcasts, link) { broadcast_to(push, session); }
}

static void count_missed(struct pushes *pushes, uint64_t sessions) {
  counters_add(pushes->worker->counters, COUNTER_PUSHES_ADDRESSED, sessions);
  counters_add(pushes->worker->counters, COUNTER_PUSHES_MISSED, sessions);
}

static void finish_first(struct pushes *pushes) {
  struct push *push = TAILQ_FIRST(&pushes->broadcasts);
  const struct channel_broadcast_done done = {.serial = push->about.serial};
  if (push->about.sessions > push->addressed) {  // the rest ended before, or meanwhile
    count_missed(pushes, push->about.sessions - push->addressed);
  }
  TAILQ_REMOVE(&pushes->broadcasts, push, link);
  push_unref(push);
  pushes->next = pushes->worker->logged_in;
  inbox_tell(pushes->worker->inbox, CHANNEL_BROADCAST_DONE, &done);
}

void pushes_on_session_end(struct pushes *pushes, struct session *session) {
  if (pushes->next == session) {
    pushes->next = session->hh.next;
  }
  if (session->player && player_has_siblings(session->player)) {
    pushes->gone[pushes->gone_count++ % GONE_MAX] = (struct gone){
        .connection = session->connection, .client = session->client, .uid = session->uid};
  }
}

// --- To some ----------------------------------------------------------------------

// Whether the slice is over, with all that was delivered in it: what is only gathered costs most of
// its time when it is sent.
static bool is_over(struct pushes *pushes, int64_t until_us) {
  wire_send_gathered(&pushes->worker->wires);
  return slice_is_over(until_us);
}

static struct session *sibling_of_gone(const struct pushes *pushes, uint64_t connection) {
  for (size_t i = 0; i < GONE_MAX; i++) {
    const struct gone *gone = &pushes->gone[i];
    if (gone->connection == connection) {
      const struct player *player = player_find(pushes->worker, gone->client, gone->uid);
      return player ? player_oldest(player) : NULL;
    }
  }
  return NULL;
}

static void push_to(struct pushes *pushes, struct push *push, uint64_t connection) {
  struct session *session = session_find(pushes->worker, connection);
  if (!session) {
    session = sibling_of_gone(pushes, connection);
  }
  if (session) {
    catch_up(pushes, session);
    session_push(receiver_of(session), push);
  } else {  // it has just gone
    count_missed(pushes, 1);
  }
}

// False: the time is over before it is done.
static bool work_multicast(struct pushes *pushes, int64_t until_us) {
  struct multicast *multicast = &pushes->multicast;
  while (multicast->next < multicast->count) {
    push_to(pushes, multicast->push, multicast->receivers[multicast->next++]);
    if (multicast->next % DELIVERIES_BETWEEN_LOOKS == 0 && multicast->next < multicast->count &&
        is_over(pushes, until_us)) {
      return false;
    }
  }
  push_unref(multicast->push);
  multicast->push = NULL;
  return true;
}

static void start_multicast(struct pushes *pushes, struct push *push,
                            const struct channel_push *about) {
  struct multicast *multicast = &pushes->multicast;
  multicast->push = push;
  multicast->count = about->receiver_count;
  multicast->next = 0;
  memcpy(multicast->receivers, channel_push_receivers(about),
         about->receiver_count * sizeof *multicast->receivers);
  if (!work_multicast(pushes, slice_end_us())) {
    inbox_pause(pushes->worker->inbox);
    evtimer_add(pushes->turn, &next_turn);
  }
}

// --- All of them ----------------------------------------------------------------

// What the next deliveries touch, which is not in the cache where there are many players. (A
// delivery costs 1.3 times a bare send with it, 1.4 without.)
static void prefetch_next(const struct pushes *pushes) {
  const struct session *next[DELIVERIES_BETWEEN_LOOKS];
  size_t count = 0;
  for (const struct session *session = pushes->next; session && count < DELIVERIES_BETWEEN_LOOKS;
       session = session->hh.next) {
    session_prefetch(session);
    next[count++] = session;
  }
  for (size_t i = 0; i < count; i++) {
    session_prefetch_parts(next[i]);
  }
  for (size_t i = 0; i < count; i++) {
    transport_prefetch_wire(next[i]->transport);
  }
}

// False: the time is over before they are done.
static bool work_broadcasts(struct pushes *pushes, int64_t until_us) {
  for (unsigned i = 0; !TAILQ_EMPTY(&pushes->broadcasts); i++) {
    if (i % DELIVERIES_BETWEEN_LOOKS == 0) {
      if (i > 0 && is_over(pushes, until_us)) {
        return false;
      }
      prefetch_next(pushes);
    }
    struct session *session = pushes->next;
    if (session) {
      pushes->next = session->hh.next;  // closing it moves this on
      broadcast_to(TAILQ_FIRST(&pushes->broadcasts), session);
    } else {
      finish_first(pushes);
    }
  }
  return true;
}

static void on_turn(evutil_socket_t fd, short what, void *owner) {
  struct pushes *pushes = owner;
  int64_t until_us = slice_end_us();
  bool done = true;
  (void)fd;
  (void)what;
  if (pushes->multicast.push) {
    done = work_multicast(pushes, until_us);
    if (done) {
      inbox_resume(pushes->worker->inbox);
    }
  }
  if (!done || !work_broadcasts(pushes, until_us)) {
    slice_go_on(pushes->turn);
  }
}

void pushes_on_push(struct pushes *pushes, const struct channel_push *about) {
  struct push *push = push_new(about);
  if (!push) {
    uint64_t sessions = about->receiver_count > 0 ? about->receiver_count : about->sessions;
    counters_add(pushes->worker->counters, COUNTER_PUSHES_ADDRESSED, sessions);
    counters_add(pushes->worker->counters, COUNTER_PUSHES_LOST, sessions);
    uint64_t suppressed;
    if (worker_may_log(pushes->worker, WORKER_LOG_PUSH, &suppressed)) {
      log_error("push_lost", "why=\"out of memory\" suppressed=%" PRIu64, suppressed);
    }
    return;
  }
  push->came_us = LIST_EMPTY(&pushes->worker->watched_sessions) ? 0 : clock_monotonic_us();
  if (about->receiver_count > 0) {
    start_multicast(pushes, push, about);
    return;
  }
  if (TAILQ_EMPTY(&pushes->broadcasts)) {
    pushes->next = pushes->worker->logged_in;
    evtimer_add(pushes->turn, &next_turn);
  }
  pushes->latest = about->serial;
  TAILQ_INSERT_TAIL(&pushes->broadcasts, push, link);
}

uint64_t pushes_latest(const struct pushes *pushes) { return pushes->latest; }

// --- Beginning and end ------------------------------------------------------------

struct pushes *pushes_new(struct worker *worker) {
  struct pushes *pushes = calloc(1, sizeof *pushes);
  if (!pushes) {
    return NULL;
  }
  pushes->worker = worker;
  TAILQ_INIT(&pushes->broadcasts);
  pushes->turn = evtimer_new(worker->base, on_turn, pushes);
  if (!pushes->turn) {
    free(pushes);
    return NULL;
  }
  return pushes;
}

void pushes_free(struct pushes *pushes) {
  struct push *push;
  if (!pushes) {
    return;
  }
  while ((push = TAILQ_FIRST(&pushes->broadcasts))) {
    TAILQ_REMOVE(&pushes->broadcasts, push, link);
    push_unref(push);  // NOLINT(clang-analyzer-unix.Malloc): it has left the list
  }
  if (pushes->multicast.push) {
    push_unref(pushes->multicast.push);
  }
  event_free(pushes->turn);
  free(pushes);
}
