// The part of the push hub that is about other gateways: where the players are who are not
// here, and what is published to the gateways that have them. What is for one player is
// published in the order in which it came.
#ifndef JANUS_MASTER_PUSH_ELSEWHERE_H
#define JANUS_MASTER_PUSH_ELSEWHERE_H

#include "master/push_job.h"

void push_elsewhere_init(struct push_elsewhere *elsewhere);

// Hands on what is for players who are not here, or tells all other gateways of a broadcast.
// The job is finished with it, maybe before this returns.
void push_elsewhere_send(struct job *job, const struct push_order *order);

// Whether nothing is waiting, nor being published.
bool push_elsewhere_is_idle(const struct push_elsewhere *elsewhere);

// The job is about to be freed.
void push_elsewhere_done(struct job *job);

#endif
