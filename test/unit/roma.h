// Starts the stand-in for Roma of the build under test (JANUS_BUILD, else
// build/release) on a free port.
#ifndef JANUS_TEST_UNIT_ROMA_H
#define JANUS_TEST_UNIT_ROMA_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/unit/child.h"

struct roma_process {
  pid_t pid;
  char address[64];
};

// arguments is a NULL-terminated list of up to 7, after --listen. Ends the program
// when it can't be started.
static inline struct roma_process roma_start(const char *const *arguments) {
  struct roma_process roma = {0};
  const char *build = getenv("JANUS_BUILD");
  char path[512];
  char *argv[12] = {path, (char *)"--listen", (char *)"127.0.0.1:0"};
  int ends[2];
  snprintf(path, sizeof path, "%s/bin/janus-roma", build ? build : "build/release");
  for (int i = 0; arguments && arguments[i] && i < 7; i++) {
    argv[3 + i] = (char *)arguments[i];
  }
  if (pipe(ends) != 0 || (roma.pid = child_fork()) < 0) {
    perror("roma_start");
    exit(1);
  }
  if (roma.pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    execv(path, argv);
    perror(path);
    _exit(127);
  }
  close(ends[1]);
  FILE *output = fdopen(ends[0], "r");
  if (!output || fscanf(output, "janus-roma: listening on %63s", roma.address) != 1) {
    fprintf(stderr, "%s did not start\n", path);
    exit(1);
  }
  fclose(output);
  return roma;
}

static inline void roma_kill(struct roma_process *roma, int number) {
  if (roma->pid > 0) {
    kill(roma->pid, number);
    waitpid(roma->pid, NULL, 0);
    roma->pid = 0;
  }
}

#endif
