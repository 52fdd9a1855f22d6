// Many clients, logged in a bounded number at a time.
#ifndef JANUS_TOOLS_BENCH_PLAYERS_H
#define JANUS_TOOLS_BENCH_PLAYERS_H

#include "tools/bench/bench.h"

struct players;

struct player {
  struct players *players;
  struct client *client;  // NULL before it connects and after it was lost
  char *token;            // until the login
  struct client_identity identity;
  size_t number;
  int64_t started_ns;  // of connecting; afterwards the load's own
  size_t messages;     // sent by the load
  size_t answers;      // that came back
  bool ready;
  bool answered;  // the loads' own, as is the next
  void *load;     // freed with the players
};

struct players_events {
  void (*on_ready)(struct players *players);  // each one is logged in, or has failed
  void (*on_login)(struct player *player);    // may be NULL
  void (*on_message)(struct player *player, const struct client_message *message);
  void (*on_lost)(struct player *player);  // a logged-in one; may be NULL
  // See client_events; may be NULL.
  void (*on_resumable)(struct player *player);
};

struct players {
  struct bench *bench;
  const struct players_events *events;
  struct client_group *group;
  struct player *all;
  size_t count;
  size_t started;
  size_t under_way;
  size_t ready;
  int receive_buffer_bytes;  // set before players_start; 0: the system's
  bool settled;
  bool failure_shown;
};

// Starts the logins. Returns 0, ERROR_MEMORY, or ERROR_INVALID after a word on what is wrong
// with the options for TLS.
int players_start(struct players *players, struct bench *bench,
                  const struct players_events *events) MUST_CHECK;
// Connects one player (again). False when that failed at once; every failure is
// counted in bench->failed.
bool player_connect(struct player *player);
void players_free(struct players *players);

#endif
