#include "common/trace_context.h"

#include <ctype.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct trace_context) == 32, "without padding");

// --- traceparent ---------------------------------------------------------------------

enum {
  VERSION_AT = 0,
  TRACE_ID_AT = 3,
  SPAN_ID_AT = 36,
  FLAGS_AT = 53,
  PARENT_LEN = TRACE_PARENT_TEXT_BYTES - 1,
  FLAG_SAMPLED = 1,
};

static int hex_digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Lower case alone, as the specification has it.
static bool hex_read(const char *text, uint8_t *bytes, size_t count) {
  for (size_t i = 0; i < count; i++) {
    int high = hex_digit(text[2 * i]);
    int low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) {
      return false;
    }
    bytes[i] = (uint8_t)(high << 4 | low);
  }
  return true;
}

static bool is_zero(const uint8_t *bytes, size_t count) { return sodium_is_zero(bytes, count); }

int trace_context_parse(const char *text, size_t len, struct trace_context *context) {
  struct trace_context read = {.sampled = 0};
  uint8_t version;
  uint8_t flags;
  *context = read;
  if (len < PARENT_LEN || text[TRACE_ID_AT - 1] != '-' || text[SPAN_ID_AT - 1] != '-' ||
      text[FLAGS_AT - 1] != '-' || !hex_read(text + VERSION_AT, &version, 1) ||
      !hex_read(text + TRACE_ID_AT, read.trace_id, TRACE_ID_BYTES) ||
      !hex_read(text + SPAN_ID_AT, read.span_id, TRACE_SPAN_ID_BYTES) ||
      !hex_read(text + FLAGS_AT, &flags, 1)) {
    return ERROR_MALFORMED;
  }
  // A later version may have more behind it, after another dash.
  bool fits = version == 0 ? len == PARENT_LEN : len == PARENT_LEN || text[PARENT_LEN] == '-';
  if (!fits || version == 0xff || is_zero(read.trace_id, TRACE_ID_BYTES) ||
      is_zero(read.span_id, TRACE_SPAN_ID_BYTES)) {
    return ERROR_MALFORMED;
  }
  read.sampled = flags & FLAG_SAMPLED;
  *context = read;
  return 0;
}

struct trace_context trace_context_of_header(const char *text) {
  struct trace_context context = {.sampled = 0};
  if (text) {
    (void)!trace_context_parse(text, strlen(text), &context);
  }
  return context;
}

static char *hex_write(char *text, const uint8_t *bytes, size_t count) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < count; i++) {
    *text++ = digits[bytes[i] >> 4];
    *text++ = digits[bytes[i] & 15];
  }
  *text = '\0';
  return text;
}

const char *trace_context_format(const struct trace_context *context,
                                 char text[TRACE_PARENT_TEXT_BYTES]) {
  char *at = stpcpy(text, "00-");
  at = hex_write(at, context->trace_id, TRACE_ID_BYTES);
  *at++ = '-';
  at = hex_write(at, context->span_id, TRACE_SPAN_ID_BYTES);
  strcpy(at, context->sampled ? "-01" : "-00");
  return text;
}

const char *trace_id_format(const uint8_t id[TRACE_ID_BYTES], char text[TRACE_ID_TEXT_BYTES]) {
  hex_write(text, id, TRACE_ID_BYTES);
  return text;
}

// --- tracestate ----------------------------------------------------------------------

enum { STATE_KEY_MAX_BYTES = 256, STATE_VALUE_MAX_BYTES = 256 };

static bool is_lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

static bool is_state_key(const char *text, size_t len) {
  bool good = len > 0 && len <= STATE_KEY_MAX_BYTES && is_lower_or_digit(text[0]);
  for (size_t i = 0; good && i < len; i++) {
    good = is_lower_or_digit(text[i]) || (text[i] != '\0' && strchr("_-*/@", text[i]));
  }
  return good;
}

static bool is_state_value(const char *text, size_t len) {
  bool good = len > 0 && len <= STATE_VALUE_MAX_BYTES && text[len - 1] != ' ';
  for (size_t i = 0; good && i < len; i++) {
    good = text[i] >= ' ' && text[i] <= '~' && text[i] != ',' && text[i] != '=';
  }
  return good;
}

// No tab, which gRPC's metadata takes in no place.
static bool is_blank(char c) { return c == ' '; }

bool trace_state_is_sound(const char *text, size_t len) {
  size_t members = 0;
  if (len > TRACE_STATE_MAX_BYTES) {
    return false;
  }
  for (size_t at = 0; at < len;) {
    const char *comma = memchr(text + at, ',', len - at);
    size_t end = comma ? (size_t)(comma - text) : len;
    size_t next = comma ? end + 1 : len;
    while (at < end && is_blank(text[at])) {
      at++;
    }
    while (end > at && is_blank(text[end - 1])) {
      end--;
    }
    if (end > at) {  // members may be empty
      const char *equals = memchr(text + at, '=', end - at);
      size_t key_len = equals ? (size_t)(equals - text) - at : 0;
      if (!equals || ++members > TRACE_STATE_MEMBERS_MAX || !is_state_key(text + at, key_len) ||
          !is_state_value(equals + 1, end - at - key_len - 1)) {
        return false;
      }
    }
    at = next;
  }
  return members > 0;
}

// --- Ids -----------------------------------------------------------------------------

// Random bytes come many at a time: a call of the system for each id would cost more than
// everything else about a span.
static void random_take(uint8_t *bytes, size_t count) {
  static uint8_t pool[1024];
  static size_t left;
  if (left < count) {
    randombytes_buf(pool, sizeof pool);
    left = sizeof pool;
  }
  left -= count;
  memcpy(bytes, pool + left, count);
}

void trace_id_make(uint8_t id[TRACE_ID_BYTES]) {
  do {
    random_take(id, TRACE_ID_BYTES);
  } while (is_zero(id, TRACE_ID_BYTES));
}

void trace_span_id_make(uint8_t id[TRACE_SPAN_ID_BYTES]) {
  do {
    random_take(id, TRACE_SPAN_ID_BYTES);
  } while (is_zero(id, TRACE_SPAN_ID_BYTES));
}

// --- Samplers ------------------------------------------------------------------------

bool trace_ratio_parse(const char *text, double *ratio) {
  char *end;
  if (strlen(text) > 24 || strspn(text, "0123456789.") != strlen(text) ||
      !isdigit((unsigned char)text[0])) {
    return false;
  }
  *ratio = strtod(text, &end);
  return *end == '\0' && *ratio <= 1;
}

void trace_sampler_init(struct trace_sampler *sampler, enum trace_sampler_kind kind, double ratio) {
  const uint64_t all = (uint64_t)1 << 63;
  sampler->kind = kind;
  sampler->below = ratio >= 1 ? all : (uint64_t)(ratio * (double)all);
}

// As other implementations of OpenTelemetry do it, so that all decide alike for one trace.
static bool is_in_ratio(const struct trace_sampler *sampler, const uint8_t *trace_id) {
  uint64_t number = 0;
  for (size_t i = 8; i < TRACE_ID_BYTES; i++) {
    number = number << 8 | trace_id[i];
  }
  return number >> 1 < sampler->below;
}

bool trace_sampler_takes(const struct trace_sampler *sampler,
                         const uint8_t trace_id[TRACE_ID_BYTES],
                         const struct trace_context *parent) {
  if (sampler->kind >= TRACE_PARENT_ALWAYS_ON && trace_context_is_set(parent)) {
    return parent->sampled;
  }
  switch (sampler->kind) {
    case TRACE_ALWAYS_ON:
    case TRACE_PARENT_ALWAYS_ON: return true;
    case TRACE_ALWAYS_OFF:
    case TRACE_PARENT_ALWAYS_OFF: return false;
    case TRACE_RATIO:
    case TRACE_PARENT_RATIO: return is_in_ratio(sampler, trace_id);
  }
  return false;
}
