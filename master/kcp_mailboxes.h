// What the workers' mailboxes are made of (worker/kcp_mailbox.h): a pair of sockets for each number
// that a worker may have, connected to each other. A worker reads from the one end of its own pair,
// and writes to the other end of everybody's.
//
// They have no names: who was not handed an end can neither send to them, nor take the place of
// one, whatever he does on this machine. The master makes them once and keeps them open, over its
// own replacement too (master/takeover.h), so that each worker has all there will ever be.
#ifndef JANUS_MASTER_KCP_MAILBOXES_H
#define JANUS_MASTER_KCP_MAILBOXES_H

#include <jansson.h>

#include "common/error.h"

struct kcp_mailboxes;

// NULL with the error: ERROR_MEMORY; or ERROR_SYSTEM, with errno.
struct kcp_mailboxes *kcp_mailboxes_new(int *error);
// Those that kcp_mailboxes_save has told of, whose descriptors are taken over. NULL with
// ERROR_INVALID, where it tells of none, or ERROR_MEMORY: nothing is taken over.
struct kcp_mailboxes *kcp_mailboxes_take(const json_t *saved, int *error);
void kcp_mailboxes_free(struct kcp_mailboxes *mailboxes);  // closes them; accepts NULL

// The ends of the worker of that number, which is below CONFIG_WORKER_NUMBERS.
int kcp_mailboxes_read_end(const struct kcp_mailboxes *mailboxes, int number);
int kcp_mailboxes_write_end(const struct kcp_mailboxes *mailboxes, int number);

// The numbers of all descriptors, each of which keep is told. mailboxes may be NULL.
json_t *kcp_mailboxes_save(const struct kcp_mailboxes *mailboxes,
                           void (*keep)(int fd, void *context), void *context);

#endif
