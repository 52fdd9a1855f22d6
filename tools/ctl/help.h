// What janusctl says of itself: everything that it can do, and one command with its examples.
#ifndef JANUS_TOOLS_CTL_HELP_H
#define JANUS_TOOLS_CTL_HELP_H

#include "tools/ctl/commands.h"

void ctl_help_overview(void);
void ctl_help_command(const struct ctl_command *command);

// All of it for programs: the man page and the tests of completion go by it.
void ctl_help_json(void);

#endif
