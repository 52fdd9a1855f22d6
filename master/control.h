// janusctl's socket: one line of JSON in, one out, then the connection is closed; or, in place
// of the one, lines until the asker goes.
#ifndef JANUS_MASTER_CONTROL_H
#define JANUS_MASTER_CONTROL_H

#include <jansson.h>
#include <stddef.h>

#include "common/error.h"

struct control;
struct master;

// Listens on control.socket, which a dead gateway may have left behind; one that a
// living gateway answers on is an error. why says what is wrong and what to do.
// NULL on failure.
struct control *control_new(struct master *master, char *why, size_t why_size);
void control_free(struct control *control);  // removes the socket
// Once there is no way back: the socket of the program before, where it was at another place.
void control_drop_socket_before(struct control *control, const json_t *saved);
// Each second: listens anew where somebody has removed the socket.
void control_tick(struct control *control);
int control_fd(const struct control *control);
// The connection of the one whose question has this context.
int control_asker_fd(const void *context);
// A connection whose question another program of this process has read: the context for the answer
// by control_answer_asker. NULL when out of memory; takes over fd.
void *control_adopt_asker(struct control *control, int fd);
void control_answer_asker(json_t *answer, void *context);

// For a command that answers by a stream of lines, with the context of its question. What
// waits for a slow reader is bounded: lines beyond that are lost, and he is told how many. From
// control_stream_owned on, on_gone comes when he is gone; after it no line may.
typedef void control_on_gone(void *owner);
void control_stream_begin(void *context);
void control_stream_line(json_t *line, void *context);  // takes over the line
void control_stream_owned(void *context, control_on_gone *on_gone, void *owner);
void control_stream_end(void *context);  // when what waits is written

#endif
