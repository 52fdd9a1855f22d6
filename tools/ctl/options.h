// The options of janusctl's commands, and the words behind them: what each may be, and what
// becomes of it in the request.
#ifndef JANUS_TOOLS_CTL_OPTIONS_H
#define JANUS_TOOLS_CTL_OPTIONS_H

#include <jansson.h>
#include <stdint.h>

enum ctl_option_id {
  CTL_UID,
  CTL_SID,
  CTL_COLOR,
  CTL_ADDRESS,
  CTL_WORKER,
  CTL_SORT,
  CTL_LIMIT,
  CTL_CODE,
  CTL_REASON,
  CTL_CONNECTION,
  CTL_COUNT,
  CTL_ONCE,
  CTL_FOR,
  CTL_INTERVAL,
  CTL_MOD,
  CTL_SEQ,
  CTL_OBJ,
  CTL_DATA_VERSION,
  CTL_DATA,
  CTL_HEX,
  CTL_TIER,
  CTL_SERVICE,
  CTL_MODULE,
  CTL_TIMEOUT,
  CTL_SPREAD,
  CTL_WAIT,
  CTL_NO_WAIT,
  CTL_PROGRAM,
  // Words only.
  CTL_LEVEL,
  CTL_OID,
  CTL_OPTION_COUNT,
};

// A set of options.
#define CTL_BIT(id) (UINT64_C(1) << (id))

enum ctl_kind {
  CTL_TEXT,
  CTL_NUMBER,
  CTL_UNSIGNED,  // of 64 bits; in the request as the signed number of the same bits
  CTL_TIER_NAME,
  CTL_FLAG,
  CTL_DURATION,   // as text; in ms in the request
  CTL_TEXT_DATA,  // text; its bytes in the request
  CTL_HEX_DATA,   // the same in hexadecimal
};

struct ctl_option {
  const char *name;    // NULL: a word only
  char letter;         // '\0': it has no short form
  const char *value;   // as help names it; NULL for a flag
  const char *member;  // of the request
  const char *help;
  enum ctl_kind kind;
  int64_t least;  // of a number, and of a duration in ms
  int64_t most;   // of a number
};

extern const struct ctl_option ctl_options[CTL_OPTION_COUNT];

// Puts an option's value into the request. Returns what it has to be, or NULL when it is good.
const char *ctl_option_take(json_t *request, enum ctl_option_id id, const char *text);

#endif
