// idle: many players, each with an open player tunnel, who then say nothing, or no more than a
// heartbeat now and then.
// slow: players who ask for more than they read.
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "proto/message.pb-c.h"
#include "tools/bench/players.h"

enum { SLOW_RECEIVE_BUFFER_BYTES = 4096, HEARTBEAT_TICK_MS = 10 };

struct hold {
  struct players players;
  bool slow;
  size_t answered;
  size_t lost;
  bool held;
  // Heartbeats go round among all players.
  struct event *heartbeat_timer;
  int64_t heartbeats_since_ns;
  uint64_t heartbeats_due;
  uint64_t heartbeats_sent;
  uint64_t heartbeats_late;  // the one before had not been answered when the next was due
};

static struct hold *hold_of(struct players *players) { return (struct hold *)players; }

static bool send_heartbeat(struct player *player) {
  Message__CSHeartbeat heartbeat = MESSAGE__CSHEARTBEAT__INIT;
  heartbeat.client_time = time(NULL);
  uint8_t data[16];
  struct packet packet = {.mod = MODULE_SYSTEM, .seq = SYSTEM_HEARTBEAT, .data = data};
  packet.data_len = message__csheartbeat__pack(&heartbeat, data);
  player->messages++;
  return client_send(player->client, &packet, false) == 0;
}

static void on_heartbeat_tick(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  struct hold *hold = argument;
  struct players *players = &hold->players;
  int64_t period_ns = players->bench->options.heartbeat_ms * 1000000;
  int64_t spent_ns = bench_now_ns() - hold->heartbeats_since_ns;
  uint64_t due = (uint64_t)((double)spent_ns / (double)period_ns * (double)players->count);
  for (; hold->heartbeats_due < due; hold->heartbeats_due++) {
    struct player *player = &players->all[hold->heartbeats_due % players->count];
    if (!player->ready) {
      continue;  // counted when it failed or was lost
    }
    hold->heartbeats_late += player->answers < player->messages;
    hold->heartbeats_sent++;
    players->bench->failed += !send_heartbeat(player);
  }
}

static void begin_heartbeats(struct hold *hold) {
  struct timeval tick = clock_timeval(HEARTBEAT_TICK_MS);
  hold->heartbeats_since_ns = bench_now_ns();
  hold->heartbeat_timer =
      event_new(hold->players.bench->base, -1, EV_PERSIST, on_heartbeat_tick, hold);
  if (!hold->heartbeat_timer || event_add(hold->heartbeat_timer, &tick) != 0) {
    bench_stop(hold->players.bench, BENCH_FAILED);
  }
}

static void hold_when_all_answered(struct hold *hold) {
  if (hold->held || !hold->players.settled || hold->answered < hold->players.ready) {
    return;
  }
  hold->held = true;
  bench_start(hold->players.bench);
  // A program that measures from outside waits for this line.
  printf(hold->players.bench->options.json ? "{\"event\":\"holding\",\"clients\":%zu}\n"
                                           : "holding %zu clients\n",
         hold->players.ready);
  fflush(stdout);
  if (hold->players.bench->options.heartbeat_ms > 0 && !hold->slow) {
    begin_heartbeats(hold);
  }
}

static void on_login(struct player *player) {
  struct hold *hold = hold_of(player->players);
  bool sent;
  if (hold->slow) {
    const struct bench_options *options = &player->players->bench->options;
    struct packet packet = {.mod = MODULE_DEV,  // a command to the stand-in for Roma
                            .seq = options->seq,
                            .data = (const uint8_t *)options->request,
                            .data_len = strlen(options->request)};
    client_pause(player->client, true);
    hold->answered++;
    sent = client_send(player->client, &packet, false) == 0;
  } else {
    sent = send_heartbeat(player);
  }
  player->players->bench->failed += !sent;
}

static void on_message(struct player *player, const struct client_message *message) {
  (void)message;
  struct hold *hold = hold_of(player->players);
  player->answers++;
  if (!player->answered && !hold->slow) {
    player->answered = true;
    hold->answered++;
    hold_when_all_answered(hold);
  }
}

static void on_ready(struct players *players) {
  if (players->ready == 0) {
    bench_stop(players->bench, BENCH_CONNECT);
    return;
  }
  hold_when_all_answered(hold_of(players));
}

static void on_lost(struct player *player) {
  struct hold *hold = hold_of(player->players);
  hold->lost++;
  hold->answered -= player->answered || hold->slow ? 1 : 0;
  hold_when_all_answered(hold);
}

static const struct players_events events = {
    .on_ready = on_ready, .on_login = on_login, .on_message = on_message, .on_lost = on_lost};

static int run(struct bench *bench, bool slow) {
  struct hold hold = {.slow = slow};
  hold.players.receive_buffer_bytes = slow ? SLOW_RECEIVE_BUFFER_BYTES : 0;
  if (players_start(&hold.players, bench, &events) == 0) {
    event_base_dispatch(bench->base);
  } else {
    bench->exit_code = BENCH_FAILED;
  }
  if (bench->exit_code == BENCH_PASSED) {
    bench_report_number(bench, "clients", (double)hold.players.ready, "");
    bench_report_number(bench, "lost", (double)hold.lost, "");
    bench_report_number(bench, "failed", (double)bench->failed, "");
    if (bench->options.heartbeat_ms > 0 && !slow) {
      bench_report_number(bench, "heartbeats", (double)hold.heartbeats_sent, "");
      bench_report_number(bench, "heartbeats_late", (double)hold.heartbeats_late, "");
    }
    if (bench->cpu.count > 0) {
      bench_report_number(bench, "cpu_ms", (double)bench->cpu_used_us / 1e3, "ms in all");
    }
    bench_report_end(bench);
  }
  if (hold.heartbeat_timer) {
    event_free(hold.heartbeat_timer);
  }
  players_free(&hold.players);
  return bench->exit_code;
}

int bench_idle(struct bench *bench) { return run(bench, false); }

int bench_slow(struct bench *bench) { return run(bench, true); }
