// janusctl's command line, read into what it asks for.
#ifndef JANUS_TOOLS_CTL_COMMAND_LINE_H
#define JANUS_TOOLS_CTL_COMMAND_LINE_H

#include "tools/ctl/commands.h"

enum { CTL_CALLS = -1 };

// Returns CTL_CALLS when there is a command to run, its request in call->request for the caller
// to release. Else the exit status: help has been shown, or a complaint made.
int ctl_command_line_read(int argc, char **argv, struct ctl_call *call);

#endif
