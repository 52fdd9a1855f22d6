// The worker's end of the channel: what the master sends, and what it is told.
// When the master is gone the worker becomes an orphan: it serves on, and stops
// when a new master answers on the control socket, or after
// worker.orphan_timeout.
#ifndef JANUS_WORKER_INBOX_H
#define JANUS_WORKER_INBOX_H

#include <stdbool.h>

#include "common/channel.h"
#include "common/error.h"

struct inbox;
struct worker;

// Takes over the channel's descriptor.
struct inbox *inbox_new(struct worker *worker, int fd);
void inbox_free(struct inbox *inbox);

// Whether there is a master, who keeps the shared tables true.
bool inbox_has_master(const struct inbox *inbox);

// Tells the master; ERROR_NOT_FOUND when there is none any more.
int inbox_tell(struct inbox *inbox, enum channel_type type, const void *content);
// What is told the master waits from now on, and leaves together: for who tells it much in a few
// turns of the loop, since each time that it is woken costs more than what it does.
void inbox_gather(struct inbox *inbox);
void inbox_send_gathered(struct inbox *inbox);
// Listens no further to the master, and again does.
void inbox_pause(struct inbox *inbox);
void inbox_resume(struct inbox *inbox);
// Finished spans. False when there is no room for them, or no master.
bool inbox_hand_spans(struct inbox *inbox, const struct channel_spans *spans,
                      const uint8_t *listed);
// Runs the loop until the master has taken all, or for so long.
void inbox_send_off(struct inbox *inbox, int64_t ms);
// What the master has asked for, which may be a lot. False when there is no room for it.
bool inbox_report(struct inbox *inbox, enum channel_type type, const void *content);

#endif
