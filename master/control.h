// janusctl's socket: one line of JSON in, one out, then the connection is closed.
#ifndef JANUS_MASTER_CONTROL_H
#define JANUS_MASTER_CONTROL_H

#include <stddef.h>

#include "common/error.h"

struct control;
struct master;

// Listens on control.socket, which a dead gateway may have left behind; one that a
// living gateway answers on is an error. why says what is wrong and what to do.
// NULL on failure.
struct control *control_new(struct master *master, char *why, size_t why_size);
void control_free(struct control *control);  // removes the socket

#endif
