// Secrets on their way into another program, through a pipe that holds them all: they are in no
// file, no argument and no environment, and can be read once.
#ifndef JANUS_COMMON_SECRETS_PIPE_H
#define JANUS_COMMON_SECRETS_PIPE_H

#include <stdbool.h>

#include "common/config.h"

// The end to read from, close-on-exec; the other one is closed. -1: no memory, or no descriptors.
int secrets_pipe_new(const struct secrets *secrets);
// Into locked memory of the caller's. False: they are not there, or there no more. fd stays open.
bool secrets_pipe_read(int fd, struct secrets *secrets);

#endif
