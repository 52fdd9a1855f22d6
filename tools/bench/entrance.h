// The ways in for pushes, as a server uses them: a topic in Redis, the gRPC port, the
// operations port.
#ifndef JANUS_TOOLS_BENCH_ENTRANCE_H
#define JANUS_TOOLS_BENCH_ENTRANCE_H

#include "common/packet.h"
#include "tools/bench/bench.h"

struct entrance;

struct entrance_events {
  // A push was answered; from Redis too, which only says that somebody listened.
  void (*on_answer)(bool pushed, void *owner);
  // The way is of no use any more.
  void (*on_broken)(const char *why, void *owner);
};

// Opens the one that bench->options names. NULL when that can't be done, with a word about
// it on standard error.
struct entrance *entrance_open(struct bench *bench, const struct entrance_events *events,
                               void *owner);
// To one player, or with uid 0 to all of the clients' color and sid. Answers come in any order.
// False: it can't be sent.
bool entrance_push(struct entrance *entrance, int64_t uid, const struct packet *packet);
void entrance_free(struct entrance *entrance);

#endif
