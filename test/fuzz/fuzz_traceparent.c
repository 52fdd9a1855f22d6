// The headers traceparent and tracestate: an odd first byte takes the rest as a tracestate.
// What is taken as a traceparent is written and read again, and is the same.
#include <stdlib.h>
#include <string.h>

#include "common/trace_context.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool holds) {
  if (!holds) {
    abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  if (len == 0) {
    return 0;
  }
  char *text = malloc(len);
  memcpy(text, bytes + 1, len - 1);
  if (bytes[0] & 1) {
    require(!trace_state_is_sound(text, len - 1) || len - 1 <= TRACE_STATE_MAX_BYTES);
    free(text);
    return 0;
  }
  struct trace_context context;
  struct trace_context again;
  char written[TRACE_PARENT_TEXT_BYTES];
  if (trace_context_parse(text, len - 1, &context) == 0) {
    require(trace_context_is_set(&context));
    trace_context_format(&context, written);
    require(strlen(written) == TRACE_PARENT_TEXT_BYTES - 1);
    require(trace_context_parse(written, strlen(written), &again) == 0);
    require(memcmp(&context, &again, sizeof context) == 0);
  } else {
    require(!trace_context_is_set(&context));
  }
  free(text);
  return 0;
}
