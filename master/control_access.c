#include "master/control_access.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/config.h"
#include "common/user_group.h"

int control_groups_find(const struct config *config, struct control_groups *groups, char *why,
                        size_t why_size) {
  const char *group = config->control.group, *read_group = config->control.read_group;
  *groups = (struct control_groups){.group = getegid(), .has_read_group = read_group[0] != '\0'};
  if (group[0] != '\0' && !user_group_find(group, &groups->group)) {
    snprintf(why, why_size, "control.group: there is no group %s", group);
    return -1;
  }
  if (groups->has_read_group && !user_group_find(read_group, &groups->read_group)) {
    snprintf(why, why_size, "control.read_group: there is no group %s", read_group);
    return -1;
  }
  return 0;
}

// The supplementary groups of who connected, malloc'd; NULL when there are none or it can't be
// told.
static gid_t *peer_groups(int fd, size_t *count) {
  socklen_t len = 0;
  gid_t *groups = NULL;
  // Asked with no room, it says how much there has to be.
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) != 0 && len > 0 &&
      (groups = malloc(len)) != NULL &&
      getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0) {
    free(groups);
    groups = NULL;
  }
  *count = groups ? len / sizeof *groups : 0;
  return groups;
}

static bool has_group(const struct ucred *peer, const gid_t *groups, size_t count, gid_t wanted) {
  bool has = peer->gid == wanted;
  for (size_t i = 0; i < count; i++) {
    has = has || groups[i] == wanted;
  }
  return has;
}

enum control_access control_access_of(int fd, const struct control_groups *groups) {
  struct ucred peer;
  socklen_t len = sizeof peer;
  enum control_access access = CONTROL_ACCESS_NONE;
  size_t count;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 || len != sizeof peer) {
    return access;
  }
  gid_t *of_peer = peer_groups(fd, &count);
  if (peer.uid == 0 || peer.uid == geteuid() || has_group(&peer, of_peer, count, groups->group)) {
    access = CONTROL_ACCESS_ALL;
  } else if (groups->has_read_group && has_group(&peer, of_peer, count, groups->read_group)) {
    access = CONTROL_ACCESS_LOOK;
  }
  free(of_peer);
  return access;
}
