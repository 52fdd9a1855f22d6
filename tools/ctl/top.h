// janusctl top: how busy the gateway is, look after look: what went through since the last
// one, how long it took, and which sessions are the hottest.
#ifndef JANUS_TOOLS_CTL_TOP_H
#define JANUS_TOOLS_CTL_TOP_H

#include "tools/ctl/commands.h"

ctl_run ctl_top_run;

#endif
