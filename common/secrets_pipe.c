#include "common/secrets_pipe.h"

#include <fcntl.h>
#include <unistd.h>

_Static_assert(sizeof(struct secrets) <= 64 << 10, "a pipe takes no more at once");

int secrets_pipe_new(const struct secrets *secrets) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return -1;
  }
  // A pipe takes 64 KiB at once, unless its user has many; waiting is out of the question.
  fcntl(ends[1], F_SETPIPE_SZ, (int)sizeof *secrets);
  fcntl(ends[1], F_SETFL, O_NONBLOCK);
  ssize_t written = write(ends[1], secrets, sizeof *secrets);
  close(ends[1]);
  if (written != (ssize_t)sizeof *secrets) {
    close(ends[0]);
    return -1;
  }
  return ends[0];
}

bool secrets_pipe_read(int fd, struct secrets *secrets) {
  size_t have = 0;
  ssize_t got = 1;
  while (fd >= 0 && have < sizeof *secrets && got > 0) {
    got = read(fd, (char *)secrets + have, sizeof *secrets - have);
    have += got > 0 ? (size_t)got : 0;
  }
  return have == sizeof *secrets;
}
