// A group of the system's users, by its name. Not for threads, nor for a loop that may not wait:
// groups may come over the network.
#ifndef JANUS_COMMON_USER_GROUP_H
#define JANUS_COMMON_USER_GROUP_H

#include <stdbool.h>
#include <sys/types.h>

// False when there is none of that name, or the system can't tell.
bool user_group_find(const char *name, gid_t *gid);

#endif
