// How spans are exported: the section `trace` of the configuration, over which goes what
// OpenTelemetry's variables in the environment say. A malformed one is a warning that says what
// is used instead.
#ifndef JANUS_MASTER_TRACE_SETTINGS_H
#define JANUS_MASTER_TRACE_SETTINGS_H

#include <stddef.h>
#include <stdint.h>

#include "common/config.h"

enum {
  TRACE_PAIRS_MAX = 32,
  TRACE_PAIRS_BYTES = 4096,
  TRACE_URL_BYTES = CONFIG_PATH_BYTES + 16,
};

// key=value, decoded; the texts stand in text.
struct trace_pairs {
  size_t count;
  struct {
    const char *key;
    const char *value;
  } pairs[TRACE_PAIRS_MAX];
  char text[TRACE_PAIRS_BYTES];
};

enum { TRACE_HEADER_VARIABLES = 2 };

struct trace_settings {
  char taken[TRACE_HEADER_VARIABLES][TRACE_PAIRS_BYTES];  // from the environment; "": was not there
  char url[TRACE_URL_BYTES];                              // "": there is no tracing
  char service[CONFIG_TEXT_BYTES];
  int64_t timeout_ms;
  struct trace_pairs headers;     // may hold secrets: never logged
  struct trace_pairs attributes;  // of the resource
};

// Fills in settings, and makes config's section `trace` what the workers are to go by: an empty
// endpoint if there is no tracing.
// Puts back into the environment what was taken from it, for a program that this process becomes.
void trace_settings_restore_environment(const struct trace_settings *settings);
void trace_settings_clean_environment(void);  // it has not become one
void trace_settings_init(struct trace_settings *settings, struct config *config);

#endif
