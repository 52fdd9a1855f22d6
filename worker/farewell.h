// A stream that its tunnel has left for another node: half-closed, and read on until the
// backend has answered what it had been sent, for some seconds at most. Loop thread only.
#ifndef JANUS_WORKER_FAREWELL_H
#define JANUS_WORKER_FAREWELL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct farewell;
struct player;
struct session;
struct stream;

LIST_HEAD(farewell_list, farewell);

// Takes over the player's stream of his tunnel of this type and object, which has been opened.
// waits_for: the session for which no message has been asked for, or NULL: one has. unanswered: the
// backend owes an answer.
void farewell_begin(struct player *player, int type, int64_t oid, struct stream *stream,
                    struct session *waits_for, bool unanswered);

// Those that wait for this session go on reading.
void farewell_resume_all(struct player *player, const struct session *session);

// The player is at his end.
void farewell_end_all(struct player *player);

#endif
