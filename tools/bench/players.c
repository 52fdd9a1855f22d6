#include "tools/bench/players.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/frame.h"

static void start_more(struct players *players);

static void settle(struct players *players) {
  players->under_way--;
  start_more(players);
}

static void count_failure(struct players *players, const char *what, const char *detail) {
  players->bench->failed++;
  if (!players->failure_shown) {
    players->failure_shown = true;
    bench_say("a client failed: %s: %s (further ones are only counted)", what, detail);
  }
}

static void drop_token(struct player *player) {
  free(player->token);
  player->token = NULL;
}

static void on_login(void *owner) {
  struct player *player = owner;
  struct players *players = player->players;
  drop_token(player);
  player->ready = true;
  players->ready++;
  if (players->events->on_login) {
    players->events->on_login(player);
  }
  settle(players);
}

static void on_message(void *owner, const struct client_message *message) {
  struct player *player = owner;
  player->players->events->on_message(player, message);
}

static void on_closed(void *owner, enum client_end end, const char *detail) {
  struct player *player = owner;
  struct players *players = player->players;
  client_free(player->client);
  player->client = NULL;
  count_failure(players, client_end_name(end), detail);
  drop_token(player);
  if (!player->ready) {
    settle(players);
    return;
  }
  player->ready = false;
  players->ready--;
  if (players->events->on_lost) {
    players->events->on_lost(player);
  }
}

static void on_resumable(void *owner) {
  struct player *player = owner;
  if (player->players->events->on_resumable) {
    player->players->events->on_resumable(player);
  }
}

static const struct client_events events = {.on_login = on_login,
                                            .on_message = on_message,
                                            .on_closed = on_closed,
                                            .on_resumable = on_resumable};

// Over KCP several clients share a connection, and are one player.
static size_t connection_of(const struct player *player) {
  const struct bench *bench = player->players->bench;
  return bench->target.kcp ? player->number / bench->options.kcp_streams : player->number;
}

static const struct client *beside(const struct player *player) {
  const struct bench *bench = player->players->bench;
  if (!bench->target.kcp || bench->options.kcp_streams == 1) {
    return NULL;
  }
  const struct player *first =
      &player->players->all[connection_of(player) * bench->options.kcp_streams];
  return first == player ? NULL : first->client;
}

bool player_connect(struct player *player) {
  struct players *players = player->players;
  // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): players_start has set it in each
  const struct bench_options *options = &players->bench->options;
  if (options->mode != CLIENT_PLAIN) {
    struct token_wish wish = options->wish;
    wish.uid += (int64_t)connection_of(player);
    player->token = credentials_make_token(&options->credentials, &wish);
    if (!player->token) {
      count_failure(players, "token", "none can be made with these keys");
      return false;
    }
  }
  // A key of its own for each login: the gateway lets no handshake in twice.
  client_identity_init(&player->identity,
                       options->mode == CLIENT_SEALED ? &options->credentials.client_key : NULL);
  struct client_options wanted = {
      .mode = options->mode,
      .target = &players->bench->target,
      .identity = &player->identity,
      .token = player->token,
      .server_id = options->wish.sid,
      .timeout_ms = options->timeout_ms,
      .receive_buffer_bytes = players->receive_buffer_bytes,
      .beside = beside(player),
  };
  if (options->source_count > 0) {
    uint32_t offset = (uint32_t)(connection_of(player) % options->source_count);
    wanted.source.s_addr = htonl(options->source_first + offset);
  }
  player->started_ns = bench_now_ns();
  player->client = client_connect(players->group, &wanted, &events, player);
  if (!player->client) {
    count_failure(players, "connect", strerror(errno));
    drop_token(player);
    return false;
  }
  players->under_way++;
  return true;
}

static void on_all_settled(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  struct players *players = argument;
  players->events->on_ready(players);
}

static void start_more(struct players *players) {
  while (players->started < players->count &&
         players->under_way < players->bench->options.login_concurrency) {
    player_connect(&players->all[players->started++]);
  }
  if (players->started == players->count && players->under_way == 0 && !players->settled) {
    players->settled = true;
    struct timeval now = {0, 0};
    event_base_once(players->bench->base, -1, EV_TIMEOUT, on_all_settled, players, &now);
  }
}

int players_start(struct players *players, struct bench *bench,
                  const struct players_events *player_events) {
  players->bench = bench;
  players->events = player_events;
  players->count = bench->options.clients;
  players->all = calloc(players->count, sizeof *players->all);
  players->group = client_group_new(bench->base, FRAME_BODY_MAX_BYTES * 4);
  if (!players->all || !players->group) {
    return ERROR_MEMORY;
  }
  char fault[512];
  if (bench->target.tls &&
      client_group_use_tls(players->group, &bench->options.tls, fault, sizeof fault) != 0) {
    bench_say("%s", fault);
    return ERROR_INVALID;
  }
  if (bench->target.kcp && client_group_use_kcp(players->group, &bench->options.kcp) != 0) {
    return ERROR_MEMORY;
  }
  for (size_t i = 0; i < players->count; i++) {
    players->all[i].players = players;
    players->all[i].number = i;
  }
  start_more(players);
  return 0;
}

void players_free(struct players *players) {
  for (size_t i = 0; players->all && i < players->count; i++) {
    client_free(players->all[i].client);
    free(players->all[i].token);
    free(players->all[i].load);
  }
  free(players->all);
  client_group_free(players->group);
}
