// The part of the push hub that is about other gateways: where the players are who are not
// here, and what is published to the gateways that have them.
#ifndef JANUS_MASTER_PUSH_ELSEWHERE_H
#define JANUS_MASTER_PUSH_ELSEWHERE_H

#include "master/push_job.h"

// Hands on what is for players who are not here; the job is finished with it.
void push_elsewhere_look(struct job *job, const struct push_order *order);
// Tells all other gateways of a broadcast; the job is finished with it.
void push_elsewhere_broadcast(struct job *job, const struct push_order *order);

#endif
