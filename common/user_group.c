#include "common/user_group.h"

#include <grp.h>
#include <stddef.h>

bool user_group_find(const char *name, gid_t *gid) {
  const struct group *group = getgrnam(name);
  if (group) {
    *gid = group->gr_gid;
  }
  return group != NULL;
}
