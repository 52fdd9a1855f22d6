#include "master/kcp_mailboxes.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/config.h"

enum {
  READ_END,
  WRITE_END,
  ENDS,
  // Of all that waits for one worker, where the system allows it.
  BUFFER_BYTES = 4 << 20,
};

struct kcp_mailboxes {
  int fds[CONFIG_WORKER_NUMBERS][ENDS];
};

// The kernel bounds what waits by the buffer of who sends, which all share; not by the number of
// messages (net.unix.max_dgram_qlen), as it does for sockets that are not a pair.
static int open_pair(int pair[ENDS]) {
  const int buffer = BUFFER_BYTES;
  if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
    return ERROR_SYSTEM;
  }
  setsockopt(pair[WRITE_END], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);  // cut to what may be
  return 0;
}

static void close_first(struct kcp_mailboxes *mailboxes, int count) {
  for (int i = 0; i < count; i++) {
    close(mailboxes->fds[i][READ_END]);
    close(mailboxes->fds[i][WRITE_END]);
  }
}

struct kcp_mailboxes *kcp_mailboxes_new(int *error) {
  struct kcp_mailboxes *mailboxes = malloc(sizeof *mailboxes);
  *error = ERROR_MEMORY;
  for (int i = 0; mailboxes && i < CONFIG_WORKER_NUMBERS; i++) {
    if ((*error = open_pair(mailboxes->fds[i])) != 0) {
      int cause = errno;
      close_first(mailboxes, i);
      free(mailboxes);
      errno = cause;
      return NULL;
    }
  }
  return mailboxes;
}

void kcp_mailboxes_free(struct kcp_mailboxes *mailboxes) {
  if (mailboxes) {
    close_first(mailboxes, CONFIG_WORKER_NUMBERS);
    free(mailboxes);
  }
}

int kcp_mailboxes_read_end(const struct kcp_mailboxes *mailboxes, int number) {
  return mailboxes->fds[number][READ_END];
}

int kcp_mailboxes_write_end(const struct kcp_mailboxes *mailboxes, int number) {
  return mailboxes->fds[number][WRITE_END];
}

// --- For the next program of the master ----------------------------------------------------

json_t *kcp_mailboxes_save(const struct kcp_mailboxes *mailboxes,
                           void (*keep)(int fd, void *context), void *context) {
  json_t *numbers = json_array();
  for (int i = 0; mailboxes && i < CONFIG_WORKER_NUMBERS; i++) {
    for (int end = 0; end < ENDS; end++) {
      json_array_append_new(numbers, json_integer(mailboxes->fds[i][end]));
      keep(mailboxes->fds[i][end], context);
    }
  }
  return numbers;
}

struct kcp_mailboxes *kcp_mailboxes_take(const json_t *saved, int *error) {
  if (json_array_size(saved) != (size_t)CONFIG_WORKER_NUMBERS * ENDS) {
    *error = ERROR_INVALID;
    return NULL;
  }
  struct kcp_mailboxes *mailboxes = malloc(sizeof *mailboxes);
  *error = ERROR_MEMORY;
  for (size_t i = 0; mailboxes && i < (size_t)CONFIG_WORKER_NUMBERS * ENDS; i++) {
    mailboxes->fds[i / ENDS][i % ENDS] = (int)json_integer_value(json_array_get(saved, i));
  }
  return mailboxes;
}
