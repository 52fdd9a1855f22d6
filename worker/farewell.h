// A stream that its tunnel has left for another node: half-closed, and read on until the
// backend has answered what it had been sent, for some seconds at most. Loop thread only.
#ifndef JANUS_WORKER_FAREWELL_H
#define JANUS_WORKER_FAREWELL_H

#include <stdbool.h>
#include <sys/queue.h>

struct farewell;
struct session;
struct stream;

LIST_HEAD(farewell_list, farewell);

// Takes over the session's stream of a tunnel of this type, which has been opened. reading: a
// message has been asked for. unanswered: the backend owes an answer.
void farewell_begin(struct session *session, int type, struct stream *stream, bool reading,
                    bool unanswered);

// The client takes output again: go on reading.
void farewell_resume_all(struct session *session);

// The session is at its end.
void farewell_end_all(struct session *session);

#endif
