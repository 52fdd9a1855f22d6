// janusctl drain: the players leave, and it is shown until the last one has.
#ifndef JANUS_TOOLS_CTL_DRAIN_H
#define JANUS_TOOLS_CTL_DRAIN_H

#include "tools/ctl/commands.h"

ctl_run ctl_drain_run;

#endif
