// How workers hand datagrams to each other: each has a mailbox, which it alone reads, and all
// others can write to. It is a pair of sockets that the master has made (master/kcp_mailboxes.h),
// and that nobody else has.
//
// Datagrams are sent many at a time, which takes fewer calls. They are lost when too much waits for
// the other worker already, as datagrams may be.
//
// Loop thread only.
#ifndef JANUS_WORKER_KCP_MAILBOX_H
#define JANUS_WORKER_KCP_MAILBOX_H

#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/error.h"

enum {
  KCP_MAILBOX_HEAD_MAX_BYTES = 256,
  KCP_MAILBOX_DATAGRAM_MAX_BYTES = 4096,
};

struct kcp_mailbox;

// One datagram that another worker has sent: what that one says of it, and its bytes, writable.
// Valid for the call.
typedef void kcp_mailbox_on_datagram(const void *head, uint8_t *bytes, size_t len, void *owner);

// own is what comes to this worker, readable when something has come; others what goes to the
// worker of each number. All stay the caller's. head_bytes: of what is said of each datagram, at
// most KCP_MAILBOX_HEAD_MAX_BYTES; the same in all workers. NULL: out of memory.
struct kcp_mailbox *kcp_mailbox_new(int own, const int others[CONFIG_WORKER_NUMBERS],
                                    size_t head_bytes);
void kcp_mailbox_free(struct kcp_mailbox *mailbox);  // accepts NULL

// Puts a datagram for the worker of that number into the batch that goes out with
// kcp_mailbox_flush, or earlier when it is full. ERROR_INVALID: there is no such number, or it is
// too long; ERROR_MEMORY. Not sent then.
int kcp_mailbox_send(struct kcp_mailbox *mailbox, unsigned number, const void *head,
                     const uint8_t *bytes, size_t len) MUST_CHECK;
// Before the loop waits.
void kcp_mailbox_flush(struct kcp_mailbox *mailbox);
// Datagrams that were lost since the last call: whoever was to get them has no room, or they were
// dropped.
size_t kcp_mailbox_take_lost(struct kcp_mailbox *mailbox);

// Gives what has come to on_datagram, up to a bound for one turn of the loop: the descriptor stays
// readable while there is more. on_datagram may send, and must not free the mailbox.
void kcp_mailbox_receive(struct kcp_mailbox *mailbox, kcp_mailbox_on_datagram *on_datagram,
                         void *owner);
// Drops all that has come. While nobody sends: else there may be no end to it.
void kcp_mailbox_drop(struct kcp_mailbox *mailbox);

#endif
