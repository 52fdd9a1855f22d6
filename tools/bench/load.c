// roundtrip and rate: messages that come back.
//
// roundtrip is a closed loop: each client sends its next message when the last
// one came back. rate sends on a fixed schedule, whatever comes back, and measures
// each answer from the time its message was due: a gateway that stalls is then
// charged for every message that would have come meanwhile, not for one alone.
#include <event2/event_struct.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tools/bench/players.h"

enum {
  WAITING_MAX = 4096,  // messages of one client under way in `rate`; further ones fail
};

// Of one client: the due times of the messages under way, oldest first. Answers
// come in order, since a tunnel keeps it.
struct under_way {
  int64_t *due_ns;
  size_t first;
  size_t count;
  size_t capacity;  // a power of two
};

struct load {
  struct players players;
  struct packet packet;
  uint8_t *data;   // of packet
  bool scheduled;  // rate
  struct event *timer;
  int64_t schedule_started_ns;
  uint64_t scheduled_count;
  size_t finished;  // clients that have sent all of theirs and been answered
  bool ending;      // no more is sent
};

// Of roundtrip with pauses.
struct turn {
  struct event timer;
  bool waiting;
};

static struct load *load_of(struct players *players) { return (struct load *)players; }

// Each message has its number at the beginning, which the answer brings back.
static bool send_one(struct player *player) {
  struct load *load = load_of(player->players);
  if (load->packet.data_len >= sizeof player->messages) {
    memcpy(load->data, &player->messages, sizeof player->messages);
  }
  if (client_send(player->client, &load->packet, false) != 0) {
    load->players.bench->failed++;
    return false;
  }
  player->messages++;
  return true;
}

// --- rate --------------------------------------------------------------------------

static bool remember_due(struct player *player, int64_t due_ns) {
  struct under_way *under_way = player->load;
  if (!under_way) {
    under_way = player->load = calloc(1, sizeof *under_way);
    if (!under_way) {
      return false;
    }
  }
  if (under_way->count == under_way->capacity) {
    size_t capacity = under_way->capacity == 0 ? 8 : under_way->capacity * 2;
    int64_t *grown = capacity > WAITING_MAX ? NULL : malloc(capacity * sizeof *grown);
    if (!grown) {
      return false;
    }
    for (size_t i = 0; i < under_way->count; i++) {
      grown[i] = under_way->due_ns[(under_way->first + i) & (under_way->capacity - 1)];
    }
    free(under_way->due_ns);
    *under_way = (struct under_way){grown, 0, under_way->count, capacity};
  }
  size_t place = (under_way->first + under_way->count) & (under_way->capacity - 1);
  under_way->due_ns[place] = due_ns;
  under_way->count++;
  return true;
}

static void send_due(struct load *load, int64_t due_ns) {
  struct players *players = &load->players;
  struct player *player = &players->all[load->scheduled_count % players->count];
  if (!player->ready || !remember_due(player, due_ns)) {
    players->bench->failed++;
  } else {
    send_one(player);
  }
}

static void on_schedule(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  struct load *load = argument;
  double interval_ns = 1e9 / load->players.bench->options.rate_per_s;
  int64_t now_ns = bench_now_ns();
  for (;;) {
    int64_t due_ns =
        load->schedule_started_ns + (int64_t)((double)load->scheduled_count * interval_ns);
    if (due_ns > now_ns) {
      int64_t wait_us = (due_ns - now_ns) / 1000;
      struct timeval wait = {(time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000)};
      event_add(load->timer, &wait);
      return;
    }
    send_due(load, due_ns);
    load->scheduled_count++;
  }
}

// --- Both ---------------------------------------------------------------------------

static void on_ready(struct players *players) {
  struct load *load = load_of(players);
  struct bench *bench = players->bench;
  if (players->ready == 0) {
    bench_stop(bench, BENCH_CONNECT);
    return;
  }
  bench_start(bench);
  if (load->scheduled) {
    load->schedule_started_ns = bench_now_ns();
    on_schedule(-1, 0, load);
    return;
  }
  for (size_t i = 0; i < players->count; i++) {
    struct player *player = &players->all[i];
    if (player->ready) {
      player->started_ns = bench_now_ns();
      send_one(player);
    }
  }
}

// Answers come in order, each one once.
static bool is_next(struct player *player, const struct client_message *message) {
  const struct packet *packet = message->packet;
  size_t number = 0;
  if (packet->data_len >= sizeof number) {
    memcpy(&number, packet->data, sizeof number);
    return number == player->answers++;
  }
  return true;
}

static void note_finished(struct load *load) {
  if (++load->finished == load->players.ready) {
    bench_stop(load->players.bench, BENCH_PASSED);
  }
}

static void next_turn(struct player *player) {
  player->started_ns = bench_now_ns();
  send_one(player);
}

static void on_pause_over(evutil_socket_t fd, short what, void *argument) {
  struct player *player = argument;
  (void)fd;
  (void)what;
  ((struct turn *)player->load)->waiting = false;
  next_turn(player);
}

static void pause_player(struct player *player) {
  struct bench *bench = player->players->bench;
  struct turn *turn = player->load;
  struct timeval pause = clock_timeval(bench->options.pause_ms);
  if (!turn) {
    turn = player->load = calloc(1, sizeof *turn);
    if (!turn) {
      bench_stop(bench, BENCH_FAILED);
      return;
    }
    evtimer_assign(&turn->timer, bench->base, on_pause_over, player);
  }
  turn->waiting = true;
  event_add(&turn->timer, &pause);
}

// Lets what is under way come to its end.
static void finish(struct bench *bench) {
  struct load *load = bench->load;
  load->ending = true;
  for (size_t i = 0; i < load->players.count; i++) {
    struct turn *turn = load->players.all[i].load;
    if (load->players.all[i].ready && turn && turn->waiting) {
      event_del(&turn->timer);
      turn->waiting = false;
      note_finished(load);
    }
  }
}

static void on_turn(struct player *player, int64_t now_ns) {
  struct load *load = load_of(player->players);
  const struct bench_options *options = &load->players.bench->options;
  bench_record(load->players.bench, now_ns - player->started_ns);
  bool last = player->messages == options->messages_each && player->messages > 0;
  if (last || load->ending) {
    note_finished(load);
  } else if (options->pause_ms > 0) {
    pause_player(player);
  } else {
    next_turn(player);
  }
}

static void on_message(struct player *player, const struct client_message *message) {
  struct load *load = load_of(player->players);
  struct bench *bench = player->players->bench;
  if ((message->packet->mod != load->packet.mod && bench->options.mode != CLIENT_PLAIN) ||
      (bench->options.mode != CLIENT_PLAIN && !is_next(player, message))) {
    bench->failed++;  // the gateway's or the backend's word that something went wrong
    return;
  }
  int64_t now_ns = bench_now_ns();
  if (!load->scheduled) {
    on_turn(player, now_ns);
    return;
  }
  struct under_way *under_way = player->load;
  if (under_way && under_way->count > 0) {
    bench_record(bench, now_ns - under_way->due_ns[under_way->first]);
    under_way->first = (under_way->first + 1) & (under_way->capacity - 1);
    under_way->count--;
  }
}

static const struct players_events events = {.on_ready = on_ready, .on_message = on_message};

static int run(struct bench *bench, bool scheduled) {
  struct load load = {.scheduled = scheduled};
  uint8_t *data = malloc(bench->options.data_bytes + 1);
  load.timer = evtimer_new(bench->base, on_schedule, &load);
  if (!data || !load.timer) {
    free(data);
    return BENCH_FAILED;
  }
  memset(data, 'j', bench->options.data_bytes);
  load.data = data;
  if (!scheduled && bench->options.pause_ms > 0) {
    // cppcheck-suppress autoVariables ; taken back below, before load is gone
    bench->load = &load;
    bench->finish = finish;
  }
  load.packet = (struct packet){.mod = bench->options.mod,
                                .seq = bench->options.seq,
                                .data = data,
                                .data_len = bench->options.data_bytes};
  if (players_start(&load.players, bench, &events) == 0) {
    event_base_dispatch(bench->base);
  } else {
    bench->exit_code = BENCH_FAILED;
  }
  if (bench->exit_code == BENCH_PASSED) {
    uint64_t sent = 0;
    uint64_t answered = 0;
    for (size_t i = 0; i < load.players.count; i++) {
      sent += load.players.all[i].messages;
      answered += load.players.all[i].answers;
    }
    bench_report_number(bench, "clients", (double)load.players.ready, "");
    bench_report_number(bench, "sent", (double)sent, "");
    bench_report_number(bench, "answered", (double)answered, "");
    bench_report_work(bench, "msgs_per_s");
    bench_report_end(bench);
  }
  for (size_t i = 0; load.players.all && i < load.players.count; i++) {
    struct under_way *under_way = scheduled ? load.players.all[i].load : NULL;
    struct turn *turn = scheduled ? NULL : load.players.all[i].load;
    free(under_way ? under_way->due_ns : NULL);
    if (turn) {
      event_del(&turn->timer);
    }
  }
  bench->finish = NULL;
  bench->load = NULL;
  event_free(load.timer);
  players_free(&load.players);
  free(data);
  return bench->exit_code;
}

int bench_roundtrip(struct bench *bench) { return run(bench, false); }

int bench_rate(struct bench *bench) { return run(bench, true); }
