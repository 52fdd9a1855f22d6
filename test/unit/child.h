// A child process of a test that does not outlive it, however the test ends.
#ifndef JANUS_TEST_UNIT_CHILD_H
#define JANUS_TEST_UNIT_CHILD_H

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

static inline pid_t child_fork(void) {
  pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  return pid;
}

#endif
