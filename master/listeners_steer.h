// Programs in the kernel that pick a socket of an SO_REUSEPORT group for what comes: by its number
// in the order in which the sockets came to the group, one of the first count.
#ifndef JANUS_MASTER_LISTENERS_STEER_H
#define JANUS_MASTER_LISTENERS_STEER_H

#include <stddef.h>

#include "common/error.h"

// fd is any of the group's. Both: ERROR_SYSTEM, with errno.

// By chance: for connections, which stay with the socket that they came to.
int listeners_steer_by_chance(int fd, size_t count) MUST_CHECK;
// By a hash of the client's address and port: for datagrams. The same client comes to the same
// socket for as long as count is the same, also after some sockets have come or gone.
int listeners_steer_by_client(int fd, size_t count) MUST_CHECK;
// As the kernel does by itself: by a hash too, over all that are in the group.
void listeners_steer_not(int fd);

#endif
