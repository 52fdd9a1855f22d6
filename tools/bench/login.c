// login: connect, shake hands, close, again and again, a fixed number at a time.
#include "tools/bench/players.h"

static void on_login(struct player *player) {
  struct players *players = player->players;
  bench_record(players->bench, bench_now_ns() - player->started_ns);
  client_free(player->client);
  player->client = NULL;
  player->ready = false;
  players->ready--;
  player_connect(player);
}

// Only when every client has failed.
static void on_ready(struct players *players) { bench_stop(players->bench, BENCH_CONNECT); }

static void on_message(struct player *player, const struct client_message *message) {
  (void)player;
  (void)message;
}

static const struct players_events events = {
    .on_ready = on_ready, .on_login = on_login, .on_message = on_message};

int bench_login(struct bench *bench) {
  struct players players = {0};
  bench_start(bench);
  if (players_start(&players, bench, &events) == 0) {
    event_base_dispatch(bench->base);
  } else {
    bench->exit_code = BENCH_FAILED;
  }
  if (bench->exit_code == BENCH_PASSED) {
    bench_report_work(bench, "logins_per_s");
    bench_report_end(bench);
  }
  players_free(&players);
  return bench->exit_code;
}
