// How workers hand datagrams to each other: each has a unix socket with a name that follows from a
// secret of the gateway. Everybody on the machine can see the name; but the kernel queues only what
// begins with the secret, so that nobody else fills the socket, and what is not from the gateway's
// own user is dropped besides.
//
// Datagrams are sent many at a time: the kernel lets no more than a few messages wait at such a
// socket (net.unix.max_dgram_qlen, 10 where nobody has raised it), however long each of them is.
// They are lost when the other worker has no room, as datagrams may be.
//
// Loop thread only.
#ifndef JANUS_WORKER_KCP_MAILBOX_H
#define JANUS_WORKER_KCP_MAILBOX_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum {
  KCP_MAILBOX_HEAD_MAX_BYTES = 256,
  KCP_MAILBOX_DATAGRAM_MAX_BYTES = 4096,
};

struct kcp_mailbox;

// One datagram that another worker has sent: what that one says of it, and its bytes, writable.
// Valid for the call.
typedef void kcp_mailbox_on_datagram(const void *head, uint8_t *bytes, size_t len, void *owner);

// That of the worker of this number, which nobody else may have at the time. secret is
// kcp_owners_secret's. head_bytes: of what is said of each datagram, at most
// KCP_MAILBOX_HEAD_MAX_BYTES; the same in all workers. NULL with the error: ERROR_MEMORY,
// ERROR_INVALID; or ERROR_SYSTEM, with errno.
struct kcp_mailbox *kcp_mailbox_open(const uint8_t *secret, unsigned number, size_t head_bytes,
                                     int *error);
void kcp_mailbox_close(struct kcp_mailbox *mailbox);  // accepts NULL
// Readable when something has come. Close-on-exec, non-blocking.
int kcp_mailbox_fd(const struct kcp_mailbox *mailbox);

// Puts a datagram for the worker of that number into the batch that goes out with
// kcp_mailbox_flush, or earlier when it is full. ERROR_INVALID: there is no such number, or it is
// too long; ERROR_MEMORY. Not sent then.
int kcp_mailbox_send(struct kcp_mailbox *mailbox, unsigned number, const void *head,
                     const uint8_t *bytes, size_t len) MUST_CHECK;
// Before the loop waits.
void kcp_mailbox_flush(struct kcp_mailbox *mailbox);
// Datagrams that were to be sent and were lost on the way, since the last call: whoever was to get
// them is gone, or has no room.
size_t kcp_mailbox_take_lost(struct kcp_mailbox *mailbox);

// Gives what has come to on_datagram, up to a bound for one turn of the loop: the descriptor stays
// readable while there is more. on_datagram may send, and must not close the mailbox.
void kcp_mailbox_receive(struct kcp_mailbox *mailbox, kcp_mailbox_on_datagram *on_datagram,
                         void *owner);

#endif
