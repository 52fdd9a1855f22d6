// A group of the system's users, by its name. It may have to be asked for over the network: for
// the start, and for a reload. One thread.
#ifndef JANUS_COMMON_USER_GROUP_H
#define JANUS_COMMON_USER_GROUP_H

#include <stdbool.h>
#include <sys/types.h>

// False when there is none of that name, or the system can't tell.
bool user_group_find(const char *name, gid_t *gid);

#endif
