// janusctl trace: the lines that come as long as it is listened.
#ifndef JANUS_TOOLS_CTL_TRACE_H
#define JANUS_TOOLS_CTL_TRACE_H

#include "tools/ctl/commands.h"

ctl_run ctl_trace_run;

#endif
