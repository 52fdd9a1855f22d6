// Trace context as W3C has it (Trace Context, level 1): the ids of a span, the headers
// traceparent and tracestate that carry them from one program to the next, and the samplers of
// OpenTelemetry, which decide whether a trace is recorded.
//
// Headers come from clients: anything that is not exactly as it must be is no header.
// Pure functions but for the random ids, which belong to one thread.
#ifndef JANUS_COMMON_TRACE_CONTEXT_H
#define JANUS_COMMON_TRACE_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum {
  TRACE_ID_BYTES = 16,
  TRACE_SPAN_ID_BYTES = 8,
  TRACE_ID_TEXT_BYTES = 2 * TRACE_ID_BYTES + 1,  // in hex, with the NUL
  TRACE_PARENT_TEXT_BYTES = 56,                  // "00-...-...-01", with the NUL
  TRACE_STATE_MAX_BYTES = 512,
  TRACE_STATE_MEMBERS_MAX = 32,
};

// One span as others name it. All zero: none. Without padding, since it travels.
struct trace_context {
  uint8_t trace_id[TRACE_ID_BYTES];
  uint8_t span_id[TRACE_SPAN_ID_BYTES];
  uint8_t sampled;
  uint8_t unused[7];
};

static inline bool trace_context_is_set(const struct trace_context *context) {
  for (size_t i = 0; i < TRACE_SPAN_ID_BYTES; i++) {
    if (context->span_id[i] != 0) {
      return true;
    }
  }
  return false;
}

// The header traceparent, of any version. ERROR_MALFORMED, and *context is none.
int trace_context_parse(const char *text, size_t len, struct trace_context *context) MUST_CHECK;
// The same from a header that may be missing (NULL) or malformed: then it is none.
struct trace_context trace_context_of_header(const char *text);
// Writes it, in version 00. Returns text.
const char *trace_context_format(const struct trace_context *context,
                                 char text[TRACE_PARENT_TEXT_BYTES]);

// Whether it is a tracestate: up to 32 members key=value within 512 bytes.
bool trace_state_is_sound(const char *text, size_t len);

// A trace's id in hex. Returns text.
const char *trace_id_format(const uint8_t id[TRACE_ID_BYTES], char text[TRACE_ID_TEXT_BYTES]);

// New ids, never all zero.
void trace_id_make(uint8_t id[TRACE_ID_BYTES]);
void trace_span_id_make(uint8_t id[TRACE_SPAN_ID_BYTES]);

enum trace_sampler_kind {  // the order of trace.sampler's choices
  TRACE_ALWAYS_ON,
  TRACE_ALWAYS_OFF,
  TRACE_RATIO,
  TRACE_PARENT_ALWAYS_ON,
  TRACE_PARENT_ALWAYS_OFF,
  TRACE_PARENT_RATIO,
};
#define TRACE_SAMPLER_CHOICES                             \
  "always_on|always_off|traceidratio|parentbased_always_" \
  "on|parentbased_always_off|parentbased_traceidratio"

struct trace_sampler {
  enum trace_sampler_kind kind;
  uint64_t below;  // of the ratio: ids whose last 63 bits are less
};

// "0.01": a decimal number from 0 to 1 and nothing else. False for any other.
bool trace_ratio_parse(const char *text, double *ratio);
void trace_sampler_init(struct trace_sampler *sampler, enum trace_sampler_kind kind, double ratio);
// Whether the trace of that id is recorded; parent may be none.
bool trace_sampler_takes(const struct trace_sampler *sampler,
                         const uint8_t trace_id[TRACE_ID_BYTES],
                         const struct trace_context *parent);

#endif
