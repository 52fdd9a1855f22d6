// What an operator wants to know of sessions, for the master. Loop thread only.
#ifndef JANUS_WORKER_REPORT_H
#define JANUS_WORKER_REPORT_H

#include "common/channel.h"
#include "worker/worker.h"

// From the inbox; answers through it.
void report_on_ask(struct worker *worker, const struct channel_report_ask *ask);

#endif
