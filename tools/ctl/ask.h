// Asking the gateway: janusctl's side of the control socket, and its exit status.
#ifndef JANUS_TOOLS_CTL_ASK_H
#define JANUS_TOOLS_CTL_ASK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

// Besides 0, all is well.
enum ctl_exit {
  CTL_REFUSED = 1,  // the gateway answered with an error, or what it does came to a bad end
  CTL_USAGE = 2,
  CTL_UNREACHABLE = 3,
};

struct ctl_gateway {
  const char *path;  // of the control socket
  bool as_json;      // what is wrong is said to programs too
  int timeout_s;     // for its answer
  FILE *complaints;  // where it is said to people
};

// Says what is wrong, and with as_json as {"ok": false, "error": text} on stdout besides.
void ctl_complain(const struct ctl_gateway *gateway, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// The same of an answer that is not ok.
void ctl_complain_of_refusal(const struct ctl_gateway *gateway, const json_t *answer);

// A connected socket that the request was sent to; -1 after complaining.
int ctl_open(const struct ctl_gateway *gateway, const json_t *request);

// The answer, ok or not, to be released. NULL with errno: ECONNREFUSED or ENOENT when nobody
// listens there, EBADMSG when what answers is no gateway. Complains of nothing.
json_t *ctl_try(const struct ctl_gateway *gateway, const json_t *request);

// The answer when it is ok, to be released. NULL after complaining, with the exit status in
// *status.
json_t *ctl_ask(const struct ctl_gateway *gateway, const json_t *request, int *status);

// Puts out what was written. Returns the exit status, after complaining if need be.
int ctl_flush(const struct ctl_gateway *gateway);

#endif
