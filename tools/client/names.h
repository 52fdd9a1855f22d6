// The names that people use for the protocol's module and sequence numbers, both ways
// (those of logout codes are in common/close_reason.h). Static strings, any thread.
#ifndef JANUS_TOOLS_CLIENT_NAMES_H
#define JANUS_TOOLS_CLIENT_NAMES_H

#include <stdint.h>

#include "common/error.h"

const char *module_name(int32_t mod);                 // NULL for one without a name
const char *sequence_name(int32_t mod, int32_t seq);  // likewise

// A name or a number. ERROR_INVALID.
int module_parse(const char *text, int32_t *mod) MUST_CHECK;
int sequence_parse(int32_t mod, const char *text, int32_t *seq) MUST_CHECK;
int logout_code_parse(const char *text, int32_t *code) MUST_CHECK;

#endif
