// Who may ask by the control socket, and what. By the groups of the process that connected, as
// the kernel says; a process that passes its connection on vouches for whom it gives it to.
#ifndef JANUS_MASTER_CONTROL_ACCESS_H
#define JANUS_MASTER_CONTROL_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct config;

enum control_access {
  CONTROL_ACCESS_NONE,
  CONTROL_ACCESS_LOOK,  // the commands that change nothing
  CONTROL_ACCESS_ALL,
  CONTROL_ACCESS_COUNT,
};

struct control_groups {
  gid_t group;  // control.group
  bool has_read_group;
  gid_t read_group;  // control.read_group
};

// Returns 0, or -1 with why when there is no such group.
int control_groups_find(const struct config *config, struct control_groups *groups, char *why,
                        size_t why_size);

// Root and the gateway's own user may all.
enum control_access control_access_of(int fd, const struct control_groups *groups);

#endif
