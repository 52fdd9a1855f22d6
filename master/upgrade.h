// `janusctl upgrade`: another janusd goes on in place of this one, in the same process, with the
// same sockets and the same workers. New workers then take the new players, and the old ones keep
// theirs until they leave or drain.timeout is over.
//
//   trial     the new program is run apart: does it start, does it take the configuration, does it
//             understand the workers that there are?
//   quiet     pushes are refused for the moment, and what is under way is finished
//   held      the workers have said their last word
//   exec      and from there on it is the new one (master/takeover.h), which answers
//
// Until exec each failure leaves all as it was.
#ifndef JANUS_MASTER_UPGRADE_H
#define JANUS_MASTER_UPGRADE_H

#include "master/control_answers.h"

struct master;
struct upgrade;

// Comes to an end by reply, or in the new program. program: NULL for the one that is installed
// where this one came from. asker_fd: where the new program is to answer; -1.
void upgrade_begin(struct master *master, const char *program, int asker_fd, control_reply *reply,
                   void *context);
// In the new program, once it goes on with the workers: tells whoever asked for it.
void upgrade_answer(struct master *master);
// One that is under way ends here, and whoever waits for it is told why.
void upgrade_cancel(struct master *master, const char *why);

// What a program that is run for a trial does: says on standard output that it is good.
// janus_worker: its path.
int upgrade_trial(const char *janus_worker);

#endif
