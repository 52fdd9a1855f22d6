// The commands of janus-client: one line of text to one struct.
//
// Commands are separated by newlines or `;`, words by spaces; 'single' and
// "double" quotes keep spaces and separators, in double quotes \n \t \r \\ \" and
// \xHH stand for characters; `#` starts a comment.
#ifndef JANUS_TOOLS_CLIENT_SCRIPT_H
#define JANUS_TOOLS_CLIENT_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum command_kind {
  COMMAND_SEND,
  COMMAND_HEARTBEAT,
  COMMAND_EXPECT,
  COMMAND_EXPECT_LOGOUT,
  COMMAND_EXPECT_CLOSED,
  COMMAND_WAIT,
  COMMAND_CLOSE,
  COMMAND_HELP,
};

struct command {
  struct command *next;
  enum command_kind kind;
  unsigned line;
  char *text;  // as it was written

  // What to send, or what to expect where the matching has_ is set.
  bool has_mod, has_seq, has_obj, has_data, has_size, has_code;
  int32_t mod;
  int32_t seq;
  int64_t obj;
  uint64_t version;
  uint8_t *data;  // the whole data, or with `contains` a part of it
  size_t data_len;
  bool contains;
  size_t size;
  bool compress;  // send compressed, or expect it so
  int32_t code;   // of expect-logout

  int64_t duration_ms;  // wait, or within; -1 when not given
};

// Parses all of text; first_line counts from 1. Returns 0 and the list (NULL when
// there was no command), or ERROR_INVALID with "line N: what is wrong" in fault.
int script_parse(const char *text, size_t len, unsigned first_line, struct command **commands,
                 char *fault, size_t fault_bytes) MUST_CHECK;
void command_free(struct command *command);  // this one alone; accepts NULL

// "500ms", "5s", "2m" to milliseconds; a bare number only where bare_ms is set.
// ERROR_INVALID.
int duration_parse(const char *text, bool bare_ms, int64_t *ms) MUST_CHECK;
// A whole decimal number within the bounds. ERROR_INVALID.
int number_parse(const char *text, int64_t least, int64_t most, int64_t *number) MUST_CHECK;

extern const char script_help[];

#endif
