#include "worker/kcp_mailbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

enum {
  MESSAGE_BYTES = 32768,  // of one message: a batch
  RECEIVE_MESSAGES = 16,  // in one turn of the loop
  LENGTH_BYTES = 4,       // before each datagram
};
_Static_assert((int)MESSAGE_BYTES > (int)LENGTH_BYTES + (int)KCP_MAILBOX_HEAD_MAX_BYTES +
                                        (int)KCP_MAILBOX_DATAGRAM_MAX_BYTES,
               "at least one fits");

// What waits for one worker: for each datagram its length, its head and its bytes.
struct batch {
  size_t len;
  size_t datagrams;
  uint8_t bytes[MESSAGE_BYTES];
};

struct kcp_mailbox {
  int own;
  int others[CONFIG_WORKER_NUMBERS];
  size_t head_bytes;
  size_t lost;
  struct batch *batches[CONFIG_WORKER_NUMBERS];  // NULL until there was something for it
  unsigned waiting[CONFIG_WORKER_NUMBERS];       // those that have something
  size_t waiting_count;
  uint8_t received[MESSAGE_BYTES];
};

struct kcp_mailbox *kcp_mailbox_new(int own, const int others[CONFIG_WORKER_NUMBERS],
                                    size_t head_bytes) {
  struct kcp_mailbox *mailbox = calloc(1, sizeof *mailbox);
  if (mailbox) {
    mailbox->own = own;
    memcpy(mailbox->others, others, sizeof mailbox->others);
    mailbox->head_bytes = head_bytes;
  }
  return mailbox;
}

void kcp_mailbox_free(struct kcp_mailbox *mailbox) {
  if (!mailbox) {
    return;
  }
  for (size_t i = 0; i < CONFIG_WORKER_NUMBERS; i++) {
    free(mailbox->batches[i]);
  }
  free(mailbox);
}

size_t kcp_mailbox_take_lost(struct kcp_mailbox *mailbox) {
  size_t lost = mailbox->lost;
  mailbox->lost = 0;
  return lost;
}

// --- Sending ---------------------------------------------------------------------------------

static void send_batch(struct kcp_mailbox *mailbox, unsigned number) {
  struct batch *batch = mailbox->batches[number];
  ssize_t sent;
  do {
    sent = send(mailbox->others[number], batch->bytes, batch->len, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  mailbox->lost += sent < 0 ? batch->datagrams : 0;
  batch->datagrams = 0;
  batch->len = 0;
}

int kcp_mailbox_send(struct kcp_mailbox *mailbox, unsigned number, const void *head,
                     const uint8_t *bytes, size_t len) {
  const size_t whole = LENGTH_BYTES + mailbox->head_bytes + len;
  if (number >= CONFIG_WORKER_NUMBERS || len > KCP_MAILBOX_DATAGRAM_MAX_BYTES) {
    return ERROR_INVALID;
  }
  struct batch *batch = mailbox->batches[number];
  if (!batch && !(batch = mailbox->batches[number] = calloc(1, sizeof *batch))) {
    return ERROR_MEMORY;
  }
  if (batch->datagrams == 0) {
    mailbox->waiting[mailbox->waiting_count++] = number;
  } else if (batch->len + whole > sizeof batch->bytes) {
    send_batch(mailbox, number);  // it stays among those that wait
  }
  const uint32_t length = (uint32_t)len;
  uint8_t *at = batch->bytes + batch->len;
  memcpy(at, &length, LENGTH_BYTES);
  memcpy(at + LENGTH_BYTES, head, mailbox->head_bytes);
  memcpy(at + LENGTH_BYTES + mailbox->head_bytes, bytes, len);
  batch->len += whole;
  batch->datagrams++;
  return 0;
}

void kcp_mailbox_flush(struct kcp_mailbox *mailbox) {
  for (size_t i = 0; i < mailbox->waiting_count; i++) {
    send_batch(mailbox, mailbox->waiting[i]);
  }
  mailbox->waiting_count = 0;
}

// --- Receiving -------------------------------------------------------------------------------

// The next message; its length, 0 for one that is too long; -1: there is none.
static ssize_t receive_one(struct kcp_mailbox *mailbox) {
  ssize_t len;
  do {
    len = recv(mailbox->own, mailbox->received, sizeof mailbox->received, MSG_DONTWAIT | MSG_TRUNC);
  } while (len < 0 && errno == EINTR);
  return len <= (ssize_t)sizeof mailbox->received ? len : 0;
}

// on_datagram is NULL where nobody wants them.
static void unpack(struct kcp_mailbox *mailbox, size_t len, kcp_mailbox_on_datagram *on_datagram,
                   void *owner) {
  const size_t before = LENGTH_BYTES + mailbox->head_bytes;
  size_t at = 0;
  while (len >= at + before) {
    uint32_t length;
    uint8_t *datagram = mailbox->received + at;
    memcpy(&length, datagram, sizeof length);
    if (length > KCP_MAILBOX_DATAGRAM_MAX_BYTES || length > len - at - before) {
      return;
    }
    // The head may stand anywhere in the message, but its reader wants it aligned.
    _Alignas(max_align_t) uint8_t head[KCP_MAILBOX_HEAD_MAX_BYTES];
    memcpy(head, datagram + LENGTH_BYTES, mailbox->head_bytes);
    if (on_datagram) {
      on_datagram(head, datagram + before, length, owner);
    } else {
      mailbox->lost++;
    }
    at += before + length;
  }
}

void kcp_mailbox_receive(struct kcp_mailbox *mailbox, kcp_mailbox_on_datagram *on_datagram,
                         void *owner) {
  ssize_t len;
  for (int i = 0; i < RECEIVE_MESSAGES && (len = receive_one(mailbox)) >= 0; i++) {
    unpack(mailbox, (size_t)len, on_datagram, owner);
  }
}

void kcp_mailbox_drop(struct kcp_mailbox *mailbox) {
  ssize_t len;
  while ((len = receive_one(mailbox)) >= 0) {
    unpack(mailbox, (size_t)len, NULL, NULL);
  }
}
