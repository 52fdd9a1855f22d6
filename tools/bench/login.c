// login: connect, shake hands, close, again and again, a fixed number at a time.
// handshake: the same with nothing but what comes before a login, which is TLS.
#include "tools/bench/players.h"

static void start_again(struct player *player) {
  client_free(player->client);
  player->client = NULL;
  player->ready = false;
  player->players->ready--;
  player_connect(player);
}

static void on_login(struct player *player) {
  bench_record(player->players->bench, bench_now_ns() - player->started_ns);
  start_again(player);
}

// Only when every client has failed.
static void on_ready(struct players *players) { bench_stop(players->bench, BENCH_CONNECT); }

static void on_message(struct player *player, const struct client_message *message) {
  (void)player;
  (void)message;
}

static int run(struct bench *bench, const struct players_events *events, const char *rate_name) {
  struct players players = {0};
  bench_start(bench);
  if (players_start(&players, bench, events) == 0) {
    event_base_dispatch(bench->base);
  } else {
    bench->exit_code = BENCH_FAILED;
  }
  if (bench->exit_code == BENCH_PASSED) {
    bench_report_work(bench, rate_name);
    bench_report_end(bench);
  }
  players_free(&players);
  return bench->exit_code;
}

int bench_login(struct bench *bench) {
  static const struct players_events events = {
      .on_ready = on_ready, .on_login = on_login, .on_message = on_message};
  return run(bench, &events, "logins_per_s");
}

// --- handshake ---------------------------------------------------------------

// Where sessions are resumed, only those count; a client that has none yet waits for one.
static void on_secured(struct player *player) {
  if (!player->players->bench->options.tls.resume || client_resumed(player->client)) {
    on_login(player);
  }
}

static void on_resumable(struct player *player) {
  if (!client_resumed(player->client)) {
    start_again(player);
  }
}

static void on_secured_or_failed(struct players *players) {
  if (players->ready == 0) {
    on_ready(players);
  }
}

int bench_handshake(struct bench *bench) {
  static const struct players_events events = {.on_ready = on_secured_or_failed,
                                               .on_login = on_secured,
                                               .on_message = on_message,
                                               .on_resumable = on_resumable};
  if (!bench->target.tls) {
    bench_say("handshake needs --connect tls://HOST:PORT or wss://HOST:PORT/PATH");
    return BENCH_USAGE;
  }
  bench->options.mode = CLIENT_PLAIN;
  return run(bench, &events, "handshakes_per_s");
}
