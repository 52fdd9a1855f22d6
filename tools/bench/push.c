// push and broadcast: what servers push, through an entrance, until players have it.
//
// push is a closed loop: so many pushes are under way, and with each one that a player
// receives the next goes out. broadcast sends to all, and the next to all once the last
// player has it, or as --rate says.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/entrance.h"
#include "tools/bench/players.h"

enum { STAMP_BYTES = sizeof(int64_t) };

struct pushes {
  struct players players;
  struct entrance *entrance;
  bool broadcast;
  struct packet packet;
  uint8_t *data;  // begins with the time in ns at which it was sent
  size_t next;    // player
  struct event *timer;

  // Of the broadcast under way.
  int64_t sent_ns;
  size_t received;
  struct histogram last;  // from a broadcast to its last delivery
};

static struct pushes *pushes_of(struct players *players) { return (struct pushes *)players; }

static void send_push(struct pushes *pushes, int64_t uid) {
  int64_t now_ns = bench_now_ns();
  memcpy(pushes->data, &now_ns, STAMP_BYTES);
  pushes->sent_ns = now_ns;
  pushes->received = 0;
  if (!entrance_push(pushes->entrance, uid, &pushes->packet)) {
    bench_say("a push can't be sent");
    bench_stop(pushes->players.bench, BENCH_FAILED);
  }
}

static void push_next(struct pushes *pushes) {
  const struct players *players = &pushes->players;
  if (players->ready == 0) {
    bench_stop(players->bench, BENCH_FAILED);
    return;
  }
  do {
    pushes->next = (pushes->next + 1) % players->count;
  } while (!players->all[pushes->next].ready);
  send_push(pushes, players->bench->options.wish.uid + (int64_t)pushes->next);
}

// --- Broadcasts ----------------------------------------------------------------------

static void on_due(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  send_push(argument, 0);
}

static void broadcast_next(struct pushes *pushes) {
  double rate = pushes->players.bench->options.broadcasts_per_s;
  int64_t wait_us = 0;
  if (rate > 0) {
    wait_us = (int64_t)(1e6 / rate) - (bench_now_ns() - pushes->sent_ns) / 1000;
  }
  if (wait_us < 0) {
    wait_us = 0;
  }
  struct timeval wait = {(time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000)};
  evtimer_add(pushes->timer, &wait);
}

static void look_if_all_have_it(struct pushes *pushes) {
  struct players *players = &pushes->players;
  if (players->ready == 0) {
    bench_stop(players->bench, BENCH_FAILED);
  } else if (pushes->received >= players->ready) {
    if (players->bench->measuring) {
      histogram_record(&pushes->last, (uint64_t)(bench_now_ns() - pushes->sent_ns));
    }
    broadcast_next(pushes);
  }
}

// --- Both --------------------------------------------------------------------------------

static void on_message(struct player *player, const struct client_message *message) {
  struct pushes *pushes = pushes_of(player->players);
  const struct packet *packet = message->packet;
  int64_t sent_ns;
  bool plain = player->players->bench->options.mode == CLIENT_PLAIN;
  if ((!plain && packet->mod != pushes->packet.mod) || packet->data_len < STAMP_BYTES) {
    return;  // an answer of the gateway's own
  }
  memcpy(&sent_ns, packet->data, STAMP_BYTES);
  bench_record(player->players->bench, bench_now_ns() - sent_ns);
  if (!pushes->broadcast) {
    push_next(pushes);
  } else if (sent_ns == pushes->sent_ns) {
    pushes->received++;
    look_if_all_have_it(pushes);
  }
}

static void on_answer(bool pushed, void *owner) {
  struct pushes *pushes = owner;
  if (pushed) {
    return;
  }
  pushes->players.bench->failed++;
  if (pushes->broadcast) {
    broadcast_next(pushes);  // not everybody will have it
  } else {
    push_next(pushes);
  }
}

static void on_broken(const char *why, void *owner) {
  struct pushes *pushes = owner;
  bench_say("the entrance does not work: %s", why);
  bench_stop(pushes->players.bench, BENCH_CONNECT);
}

static void on_lost(struct player *player) {
  struct pushes *pushes = pushes_of(player->players);
  if (pushes->broadcast && pushes->received > 0) {
    look_if_all_have_it(pushes);
  }
}

static void on_ready(struct players *players) {
  static const struct entrance_events entrance_events = {on_answer, on_broken};
  struct pushes *pushes = pushes_of(players);
  struct bench *bench = players->bench;
  if (players->ready == 0) {
    bench_stop(bench, BENCH_CONNECT);
    return;
  }
  pushes->entrance = entrance_open(bench, &entrance_events, pushes);
  if (!pushes->entrance) {
    bench_stop(bench, BENCH_CONNECT);
    return;
  }
  bench_start(bench);
  // A program that measures from outside waits for this line.
  printf(bench->options.json ? "{\"event\":\"pushing\",\"clients\":%zu}\n"
                             : "pushing to %zu clients\n",
         players->ready);
  fflush(stdout);
  if (pushes->broadcast) {
    send_push(pushes, 0);
    return;
  }
  for (size_t i = 0; i < bench->options.pushes_under_way; i++) {
    push_next(pushes);
  }
}

static const struct players_events events = {
    .on_ready = on_ready, .on_message = on_message, .on_lost = on_lost};

static void report(const struct pushes *pushes) {
  const struct bench *bench = pushes->players.bench;
  bench_report_number(bench, "clients", (double)pushes->players.ready, "");
  if (pushes->broadcast) {
    double last_ns = (double)histogram_percentile(&pushes->last, 50);
    bench_report_number(bench, "broadcasts", (double)pushes->last.count, "");
    bench_report_number(bench, "last_ms", last_ns / 1e6, "ms");
  }
  bench_report_work(bench, "deliveries_per_s");
  bench_report_end(bench);
}

static int run(struct bench *bench, bool broadcast) {
  static struct pushes pushes;
  size_t len = bench->options.data_bytes;
  if (len < STAMP_BYTES) {
    bench_say("--size must be at least %d, for the time of sending", (int)STAMP_BYTES);
    return BENCH_USAGE;
  }
  pushes.broadcast = broadcast;
  pushes.data = malloc(len);
  pushes.timer = evtimer_new(bench->base, on_due, &pushes);
  if (!pushes.data || !pushes.timer) {
    free(pushes.data);
    return BENCH_FAILED;
  }
  memset(pushes.data, 'j', len);
  pushes.packet = (struct packet){
      .mod = bench->options.mod, .seq = bench->options.seq, .data = pushes.data, .data_len = len};
  if (players_start(&pushes.players, bench, &events) == 0) {
    event_base_dispatch(bench->base);
  } else {
    bench->exit_code = BENCH_FAILED;
  }
  if (bench->exit_code == BENCH_PASSED) {
    report(&pushes);
  }
  entrance_free(pushes.entrance);
  event_free(pushes.timer);
  players_free(&pushes.players);
  free(pushes.data);
  return bench->exit_code;
}

int bench_push(struct bench *bench) { return run(bench, false); }

int bench_broadcast(struct bench *bench) { return run(bench, true); }
