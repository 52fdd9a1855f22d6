// janusctl's commands that have players leave a worker or the gateway, and what they wait for.
#ifndef JANUS_MASTER_CONTROL_DRAIN_H
#define JANUS_MASTER_CONTROL_DRAIN_H

#include <sys/queue.h>

struct master;
struct replacement;

LIST_HEAD(replacement_list, replacement);

// Answers whoever has asked for it. As workers_events.on_replaced.
void control_worker_replaced(struct master *master, int index, int successor);
// The gateway stops: nobody is answered any more.
void control_forget_replacements(struct master *master);

#endif
