// janusctl's commands: what each takes, and how its answer is shown to people.
#ifndef JANUS_TOOLS_CTL_ANSWERS_H
#define JANUS_TOOLS_CTL_ANSWERS_H

#include <jansson.h>

struct ctl_command {
  const char *name;
  void (*print)(const json_t *answer);  // NULL: it is a stream (tools/ctl/trace.h)
  const char *options;                  // the letters of those that it takes
  const char *words;   // after its name: u a uid, t a tier, o an oid; in capitals: if need be
  const char *needed;  // the letters of options that may not be left out; NULL: none
};

// NULL when there is none of that name.
const struct ctl_command *ctl_command_named(const char *name);

#endif
