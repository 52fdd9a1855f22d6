// janusctl trace: the lines that come as long as it is listened.
#ifndef JANUS_TOOLS_CTL_TRACE_H
#define JANUS_TOOLS_CTL_TRACE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct ctl_trace {
  bool as_json;
  bool once;         // ends with the player's last session
  int64_t packets;   // ends after so many; 0: never
  int64_t until_ms;  // monotonic; 0: never
};

enum ctl_trace_end {
  CTL_TRACE_DONE,       // interrupted, or what was asked for is done
  CTL_TRACE_REFUSED,    // said on stderr
  CTL_TRACE_LOST,       // the gateway has gone: said on stderr
  CTL_TRACE_UNWRITTEN,  // errno
};

// Reads lines from the connected socket, to which the question has been sent, and shows them.
enum ctl_trace_end ctl_trace_follow(int fd, const struct ctl_trace *trace);

#endif
