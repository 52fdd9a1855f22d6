// idle: many players, each with an open player tunnel, who then say nothing.
// slow: players who ask for more than they read.
#include <stdio.h>
#include <string.h>

#include "proto/message.pb-c.h"
#include "tools/bench/players.h"

enum { SLOW_RECEIVE_BUFFER_BYTES = 4096 };

struct hold {
  struct players players;
  bool slow;
  size_t answered;
  size_t lost;
  bool held;
};

static struct hold *hold_of(struct players *players) { return (struct hold *)players; }

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
}

static void on_login(struct player *player) {
  struct hold *hold = hold_of(player->players);
  Message__CSHeartbeat heartbeat = MESSAGE__CSHEARTBEAT__INIT;
  heartbeat.client_time = time(NULL);
  uint8_t data[16];
  struct packet packet = {.mod = MODULE_SYSTEM, .seq = SYSTEM_HEARTBEAT, .data = data};
  packet.data_len = message__csheartbeat__pack(&heartbeat, data);
  if (hold->slow) {
    const struct bench_options *options = &player->players->bench->options;
    packet = (struct packet){.mod = MODULE_DEV,  // a command to the stand-in for Roma
                             .seq = options->seq,
                             .data = (const uint8_t *)options->request,
                             .data_len = strlen(options->request)};
    client_pause(player->client, true);
    hold->answered++;
  }
  if (client_send(player->client, &packet, false) != 0) {
    player->players->bench->failed++;
  }
}

static void on_message(struct player *player, const struct client_message *message) {
  (void)message;
  struct hold *hold = hold_of(player->players);
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
    if (bench->cpu.count > 0) {
      bench_report_number(bench, "cpu_ms", (double)bench->cpu_used_us / 1e3, "ms in all");
    }
    bench_report_end(bench);
  }
  players_free(&hold.players);
  return bench->exit_code;
}

int bench_idle(struct bench *bench) { return run(bench, false); }

int bench_slow(struct bench *bench) { return run(bench, true); }
