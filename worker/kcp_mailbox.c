#include "worker/kcp_mailbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/config.h"
#include "common/kcp_owners.h"

enum {
  SECRET_BYTES = KCP_OWNERS_SECRET_BYTES,  // at the beginning of each message
  MESSAGE_BYTES = 32768,                   // of one message: a batch
  RECEIVE_MESSAGES = 16,                   // in one turn of the loop
  LENGTH_BYTES = 4,                        // before each datagram
  NAME_BYTES = crypto_generichash_BYTES_MIN,
  BUFFER_BYTES = 1 << 20,  // of the socket, where the system allows it
};
_Static_assert((int)MESSAGE_BYTES > (int)SECRET_BYTES + (int)LENGTH_BYTES +
                                        (int)KCP_MAILBOX_HEAD_MAX_BYTES +
                                        (int)KCP_MAILBOX_DATAGRAM_MAX_BYTES,
               "at least one fits");

// What waits for one worker: the secret, and for each datagram its length, its head and its bytes.
struct batch {
  size_t len;
  size_t datagrams;
  uint8_t bytes[MESSAGE_BYTES];
};

struct kcp_mailbox {
  int fd;
  uint8_t secret[SECRET_BYTES];
  char name[2 * NAME_BYTES + 1];  // of all of them, without the number
  size_t head_bytes;
  size_t lost;
  struct batch *batches[CONFIG_WORKER_NUMBERS];  // NULL until there was something for it
  unsigned waiting[CONFIG_WORKER_NUMBERS];       // those that have something
  size_t waiting_count;
  uint8_t received[MESSAGE_BYTES];
};

// Of the abstract kind: it is gone with its socket, and there is no file to be left behind.
static socklen_t name_of(const struct kcp_mailbox *mailbox, unsigned number,
                         struct sockaddr_un *address) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  int len = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "janus-%s-%u",
                     mailbox->name, number);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
}

// What does not begin with the secret is not queued.
static bool filter(int fd, const uint8_t *secret) {
  enum { WORDS = SECRET_BYTES / 4, LEN = 2 * WORDS + 2 };
  struct sock_filter code[LEN];
  for (unsigned i = 0; i < WORDS; i++) {
    uint32_t word;
    memcpy(&word, secret + 4 * i, sizeof word);
    code[2 * i] = (struct sock_filter){BPF_LD | BPF_W | BPF_ABS, 0, 0, 4 * i};
    code[2 * i + 1] = (struct sock_filter){BPF_JMP | BPF_JEQ | BPF_K, 0,
                                           (uint8_t)(LEN - 1 - (2 * i + 1) - 1), ntohl(word)};
  }
  code[LEN - 2] = (struct sock_filter){BPF_RET | BPF_K, 0, 0, UINT32_MAX};  // as long as it is
  code[LEN - 1] = (struct sock_filter){BPF_RET | BPF_K, 0, 0, 0};
  const struct sock_fprog program = {.len = LEN, .filter = code};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

static int open_socket(const struct kcp_mailbox *mailbox, unsigned number) {
  struct sockaddr_un address;
  const int on = 1, buffer = BUFFER_BYTES;
  socklen_t len = name_of(mailbox, number, &address);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return -1;
  }
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);  // cut to what is allowed
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
  if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0 ||
      !filter(fd, mailbox->secret) || bind(fd, (struct sockaddr *)&address, len) != 0) {
    int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  return fd;
}

struct kcp_mailbox *kcp_mailbox_open(const uint8_t *secret, unsigned number, size_t head_bytes,
                                     int *error) {
  uint8_t name[NAME_BYTES];
  struct kcp_mailbox *mailbox =
      head_bytes <= KCP_MAILBOX_HEAD_MAX_BYTES ? calloc(1, sizeof *mailbox) : NULL;
  if (!mailbox) {
    *error = head_bytes <= KCP_MAILBOX_HEAD_MAX_BYTES ? ERROR_MEMORY : ERROR_INVALID;
    return NULL;
  }
  memcpy(mailbox->secret, secret, sizeof mailbox->secret);
  crypto_generichash(name, sizeof name, secret, SECRET_BYTES, NULL, 0);
  sodium_bin2hex(mailbox->name, sizeof mailbox->name, name, sizeof name);
  mailbox->head_bytes = head_bytes;
  mailbox->fd = open_socket(mailbox, number);
  if (mailbox->fd < 0) {
    *error = ERROR_SYSTEM;
    free(mailbox);
    return NULL;
  }
  return mailbox;
}

void kcp_mailbox_close(struct kcp_mailbox *mailbox) {
  if (!mailbox) {
    return;
  }
  for (size_t i = 0; i < CONFIG_WORKER_NUMBERS; i++) {
    free(mailbox->batches[i]);
  }
  close(mailbox->fd);
  free(mailbox);
}

int kcp_mailbox_fd(const struct kcp_mailbox *mailbox) { return mailbox->fd; }

size_t kcp_mailbox_take_lost(struct kcp_mailbox *mailbox) {
  size_t lost = mailbox->lost;
  mailbox->lost = 0;
  return lost;
}

// --- Sending ---------------------------------------------------------------------------------

static void send_batch(struct kcp_mailbox *mailbox, unsigned number) {
  struct batch *batch = mailbox->batches[number];
  struct sockaddr_un address;
  socklen_t len = name_of(mailbox, number, &address);
  ssize_t sent;
  do {
    sent = sendto(mailbox->fd, batch->bytes, batch->len, MSG_NOSIGNAL, (struct sockaddr *)&address,
                  len);
  } while (sent < 0 && errno == EINTR);
  mailbox->lost += sent < 0 ? batch->datagrams : 0;
  batch->datagrams = 0;
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
  if (batch->datagrams == 0) {
    memcpy(batch->bytes, mailbox->secret, SECRET_BYTES);
    batch->len = SECRET_BYTES;
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

// Whether it is from the user that we are, or from root.
static bool is_ours(struct msghdr *message) {
  struct ucred sender;
  for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control;
       control = CMSG_NXTHDR(message, control)) {
    if (control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_CREDENTIALS &&
        control->cmsg_len == CMSG_LEN(sizeof sender)) {
      memcpy(&sender, CMSG_DATA(control), sizeof sender);
      return sender.uid == geteuid() || sender.uid == 0;
    }
  }
  return false;
}

// The next message; its length, 0 for one that is not ours, or too long; -1: there is none.
static ssize_t receive_one(struct kcp_mailbox *mailbox) {
  union {
    struct cmsghdr header;  // for its alignment
    char bytes[CMSG_SPACE(sizeof(struct ucred))];
  } control;
  struct iovec part = {mailbox->received, sizeof mailbox->received};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t len;
  do {
    len = recvmsg(mailbox->fd, &message, MSG_CMSG_CLOEXEC);
  } while (len < 0 && errno == EINTR);
  if (len < 0) {
    return -1;
  }
  return is_ours(&message) && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ? len : 0;
}

static void unpack(struct kcp_mailbox *mailbox, size_t len, kcp_mailbox_on_datagram *on_datagram,
                   void *owner) {
  const size_t before = LENGTH_BYTES + mailbox->head_bytes;
  size_t at = SECRET_BYTES;
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
    on_datagram(head, datagram + before, length, owner);
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
