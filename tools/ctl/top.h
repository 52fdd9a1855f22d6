// janusctl top: how busy the gateway is, look after look: what went through since the last
// one, how long it took, and which sessions are the hottest.
#ifndef JANUS_TOOLS_CTL_TOP_H
#define JANUS_TOOLS_CTL_TOP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

// Asks the gateway once: the answer, to be released; NULL when there is none, which has been
// said on stderr, with the exit status in *status.
typedef json_t *ctl_top_ask(const char *path, const json_t *request, int *status);

struct ctl_top {
  const char *path;  // of the control socket
  ctl_top_ask *ask;
  bool as_json;         // an object for each look, one a line
  int64_t interval_ms;  // between looks
  int64_t looks;        // ends after so many; 0: on q or an interrupt
};

// Returns the exit status.
int ctl_top_run(const struct ctl_top *top);

// What there was between two answers of `stats`, seconds apart: {"seconds", "total", "workers"}.
// To be released; NULL when out of memory.
json_t *ctl_top_compare(const json_t *before, const json_t *now, double seconds);

#endif
