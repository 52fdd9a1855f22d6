// janusctl's commands: what each takes, what it is for, and how it is carried out. The command
// line, the help, the man page and the completion of shells all go by this one table.
#ifndef JANUS_TOOLS_CTL_COMMANDS_H
#define JANUS_TOOLS_CTL_COMMANDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/ctl/ask.h"
#include "tools/ctl/options.h"

// As the help has them together.
enum ctl_group { CTL_LOOKING, CTL_PLAYERS, CTL_PLACES, CTL_RUNNING, CTL_LOG, CTL_GROUP_COUNT };

// A word behind the command's name; the list of them ends with one whose name is NULL.
struct ctl_word {
  const char *name;  // as help has it
  enum ctl_option_id id;
  bool optional;
};
enum { CTL_WORDS_MAX = 2, CTL_EXAMPLES_MAX = 4 };

struct ctl_command;

// What a command line asks for.
struct ctl_call {
  const struct ctl_command *command;
  struct ctl_gateway gateway;
  json_t *request;
};

typedef int ctl_run(const struct ctl_call *call);  // returns the exit status

struct ctl_command {
  const char *name;  // of one word or two
  enum ctl_group group;
  const char *summary;
  const char *details;  // NULL: there is no more to say
  struct ctl_word words[CTL_WORDS_MAX + 1];
  uint64_t options;
  uint64_t needed;  // of these
  bool read_only;   // changes nothing: control.read_group may use it
  int timeout_s;    // 0: the usual one
  ctl_run *run;     // NULL: it is one question, and its answer is printed
  void (*print)(const json_t *answer);
  const char *examples[CTL_EXAMPLES_MAX + 1];
};

extern const struct ctl_command ctl_commands[];
extern const size_t ctl_command_count;

// NULL when there is none of that name.
const struct ctl_command *ctl_command_named(const char *name);
const char *ctl_group_title(enum ctl_group group);

// Carries it out. Returns the exit status.
int ctl_command_run(const struct ctl_call *call);

#endif
