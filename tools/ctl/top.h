// janusctl top: how busy the gateway is, look after look: what went through since the last
// one, how long it took, and which sessions are the hottest.
#ifndef JANUS_TOOLS_CTL_TOP_H
#define JANUS_TOOLS_CTL_TOP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

// Asks the gateway once: the answer, to be released; NULL when there is none, which has been
// said to complaints, with the exit status in *status.
typedef json_t *ctl_top_ask(const char *path, const json_t *request, FILE *complaints, int *status);

struct ctl_top {
  const char *path;  // of the control socket
  ctl_top_ask *ask;
  bool as_json;         // an object for each look, one a line
  int64_t interval_ms;  // between looks
  int64_t looks;        // ends after so many; 0: on q or an interrupt
};

// Returns the exit status.
int ctl_top_run(const struct ctl_top *top);

#endif
