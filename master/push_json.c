#include "master/push_json.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  // Values and containers of one request: every uid there can be, and as much again. JSON of
  // 6 MiB that is nothing but "{}," takes 460 MB and 360 ms to be read; with this bound it
  // is 50 MB.
  VALUES_MAX = 2 * PUSH_UIDS_MAX,
  // How long the message may become that goes to other gateways, but for the data: they take
  // PUSH_ORDER_MAX_BYTES.
  BODY_FRAME_BYTES = 64,
  UID_BYTES = 11,
};

// From here on a double has gaps: what it holds may have been another integer.
static const double inexact_from = 9007199254740992.0;

// One request on its way.
struct reader {
  struct push_json *json;
  char *why;
  char where[32];  // in front of a member's name: "body.", "bodies[7]."
  size_t data_len;
};

static int malformed(const struct reader *reader, const char *name, const char *what) {
  snprintf(reader->why, PUSH_JSON_WHY_BYTES, "%s%s %s", reader->where, name, what);
  return ERROR_MALFORMED;
}

static int no_memory(const struct reader *reader) {
  snprintf(reader->why, PUSH_JSON_WHY_BYTES, "out of memory");
  return ERROR_MEMORY;
}

// NULL: absent, or null.
static const json_t *member(const json_t *object, const char *name) {
  const json_t *value = json_object_get(object, name);
  return json_is_null(value) ? NULL : value;
}

// --- Numbers -------------------------------------------------------------------------

struct number {
  uint64_t magnitude;
  bool negative;
};

static size_t count_digits(const char *text) {
  size_t count = 0;
  while (isdigit((unsigned char)text[count])) {
    count++;
  }
  return count;
}

// The length of the JSON number that text starts with, 0 for none; *whole without a fraction
// and an exponent.
static size_t number_length(const char *text, bool *whole) {
  const char *at = text + (text[0] == '-');
  size_t digits = count_digits(at);
  if (digits == 0 || (at[0] == '0' && digits > 1)) {
    return 0;
  }
  at += digits;
  *whole = true;
  if (at[0] == '.') {
    digits = count_digits(at + 1);
    at += 1 + digits;
    *whole = false;
    if (digits == 0) {
      return 0;
    }
  }
  if (at[0] == 'e' || at[0] == 'E') {
    at += at[1] == '+' || at[1] == '-' ? 2 : 1;
    digits = count_digits(at);
    at += digits;
    *whole = false;
    if (digits == 0) {
      return 0;
    }
  }
  return (size_t)(at - text);
}

static bool number_of_real(double real, struct number *number) {
  if (!(fabs(real) < inexact_from) || trunc(real) != real) {
    return false;
  }
  *number = (struct number){.magnitude = (uint64_t)fabs(real), .negative = real < 0};
  return true;
}

static bool number_of_text(const char *text, struct number *number) {
  bool whole;
  size_t len = number_length(text, &whole);
  if (len == 0 || text[len] != '\0') {
    return false;
  }
  if (!whole) {
    return number_of_real(strtod(text, NULL), number);
  }
  number->negative = text[0] == '-';
  errno = 0;
  number->magnitude = strtoull(text + number->negative, NULL, 10);
  return errno == 0;
}

static bool number_of(const json_t *value, struct number *number) {
  switch (json_typeof(value)) {
    case JSON_INTEGER: {
      json_int_t integer = json_integer_value(value);
      number->negative = integer < 0;
      number->magnitude = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
      return true;
    }
    case JSON_REAL: return number_of_real(json_real_value(value), number);
    case JSON_STRING: return number_of_text(json_string_value(value), number);
    default: return false;
  }
}

static bool fits_int64(const struct number *number, int64_t *value) {
  if (number->magnitude > (uint64_t)INT64_MAX + number->negative) {
    return false;
  }
  *value = (int64_t)(number->negative ? 0 - number->magnitude : number->magnitude);
  return true;
}

// Absent leaves *value as it is, here and below.
static int read_int64(const struct reader *reader, const json_t *object, const char *name,
                      int64_t *value) {
  const json_t *found = member(object, name);
  struct number number;
  return !found || (number_of(found, &number) && fits_int64(&number, value))
             ? 0
             : malformed(reader, name, "is not an integer of 64 bits");
}

static int read_int32(const struct reader *reader, const json_t *object, const char *name,
                      int32_t *value) {
  const json_t *found = member(object, name);
  struct number number;
  int64_t wide = *value;
  if (found && (!number_of(found, &number) || !fits_int64(&number, &wide) || wide < INT32_MIN ||
                wide > INT32_MAX)) {
    return malformed(reader, name, "is not an integer of 32 bits");
  }
  *value = (int32_t)wide;
  return 0;
}

static int read_version(const struct reader *reader, const json_t *object, uint64_t *version) {
  const char *name = json_object_get(object, "dataVersion") ? "dataVersion" : "data_version";
  const json_t *found = member(object, name);
  struct number number;
  if (json_object_get(object, "dataVersion") && json_object_get(object, "data_version")) {
    return malformed(reader, "dataVersion", "stands twice");
  }
  if (!found) {
    return 0;
  }
  if (!number_of(found, &number) || (number.negative && number.magnitude > 0)) {
    return malformed(reader, name, "is not an integer of 64 bits, 0 or more");
  }
  *version = number.magnitude;
  return 0;
}

// --- Text and data -------------------------------------------------------------------

static int read_color(const struct reader *reader, const json_t *object, const char *name) {
  const json_t *found = member(object, name);
  if (!found) {
    return 0;
  }
  if (!json_is_string(found)) {
    return malformed(reader, name, "is not a text");
  }
  if (json_string_length(found) > ROUTE_COLOR_MAX_BYTES) {
    return malformed(reader, name, "is longer than a color can be");
  }
  strcpy(reader->json->color, json_string_value(found));
  return 0;
}

static int base64_variant(const char *text, size_t len) {
  bool padded = len > 0 && text[len - 1] == '=';
  if (memchr(text, '-', len) || memchr(text, '_', len)) {
    return padded ? sodium_base64_VARIANT_URLSAFE : sodium_base64_VARIANT_URLSAFE_NO_PADDING;
  }
  return padded ? sodium_base64_VARIANT_ORIGINAL : sodium_base64_VARIANT_ORIGINAL_NO_PADDING;
}

// Behind the data that is there already: all together it is shorter than its base64.
static int read_data(struct reader *reader, const json_t *object, struct push_body *body) {
  const json_t *found = member(object, "data");
  uint8_t *into = reader->json->data + reader->data_len;
  body->data = into;
  if (!found) {
    return 0;
  }
  if (!json_is_string(found)) {
    return malformed(reader, "data", "is not a text");
  }
  const char *text = json_string_value(found);
  size_t len = json_string_length(found);
  if (sodium_base642bin(into, len, text, len, NULL, &body->data_len, NULL,
                        base64_variant(text, len)) != 0) {
    return malformed(reader, "data", "is not base64");
  }
  reader->data_len += body->data_len;
  return 0;
}

// --- Requests ------------------------------------------------------------------------

static int read_body(struct reader *reader, const json_t *object, struct push_body *body) {
  int error = read_data(reader, object, body);
  if (error == 0) {
    error = read_version(reader, object, &body->data_version);
  }
  if (error == 0) {
    error = read_int64(reader, object, "obj", &body->obj);
  }
  if (error == 0) {
    error = read_int32(reader, object, "mod", &body->mod);
  }
  return error == 0 ? read_int32(reader, object, "seq", &body->seq) : error;
}

// Of from one value to most.
static int read_array(const struct reader *reader, const json_t *request, const char *name,
                      size_t most, const json_t **array) {
  *array = member(request, name);
  if (*array && !json_is_array(*array)) {
    return malformed(reader, name, "is not an array");
  }
  if (json_array_size(*array) == 0) {
    return malformed(reader, name, "is missing, or has nothing in it");
  }
  return json_array_size(*array) <= most ? 0 : malformed(reader, name, "has too many in it");
}

static int make_bodies(struct reader *reader, size_t count) {
  struct push_json *json = reader->json;
  json->bodies = calloc(count, sizeof *json->bodies);
  json->order.bodies = json->bodies;
  json->order.body_count = count;
  return json->bodies ? 0 : no_memory(reader);
}

static int read_bodies(struct reader *reader, const json_t *request) {
  const json_t *bodies;
  int error = read_array(reader, request, "bodies", PUSH_BODIES_MAX, &bodies);
  size_t count = json_array_size(bodies);
  if (error == 0) {
    error = make_bodies(reader, count);
  }
  for (size_t i = 0; error == 0 && i < count; i++) {
    const json_t *body = json_array_get(bodies, i);
    snprintf(reader->where, sizeof reader->where, "bodies[%zu]", i);
    if (!json_is_object(body)) {
      return malformed(reader, "", "is not an object");
    }
    strcat(reader->where, ".");
    error = read_body(reader, body, &reader->json->bodies[i]);
  }
  reader->where[0] = '\0';
  return error;
}

static int read_one_body(struct reader *reader, const json_t *request) {
  const json_t *body = member(request, "body");
  if (!json_is_object(body)) {
    return malformed(reader, "body", "is not an object");
  }
  strcpy(reader->where, "body.");
  int error = make_bodies(reader, 1);
  if (error == 0) {
    error = read_body(reader, body, reader->json->bodies);
  }
  reader->where[0] = '\0';
  return error;
}

static int make_uids(struct reader *reader, size_t count) {
  struct push_json *json = reader->json;
  json->uids = calloc(count, sizeof *json->uids);
  json->order.uids = json->uids;
  json->order.uid_count = count;
  return json->uids ? 0 : no_memory(reader);
}

static int read_uids(struct reader *reader, const json_t *request) {
  const json_t *uids;
  int error = read_array(reader, request, "uids", PUSH_UIDS_MAX, &uids);
  size_t count = json_array_size(uids);
  if (error == 0) {
    error = make_uids(reader, count);
  }
  for (size_t i = 0; error == 0 && i < count; i++) {
    struct number number;
    if (!number_of(json_array_get(uids, i), &number) ||
        !fits_int64(&number, &reader->json->uids[i])) {
      snprintf(reader->where, sizeof reader->where, "uids[%zu]", i);
      return malformed(reader, "", "is not an integer of 64 bits");
    }
  }
  return error;
}

// --- The player of a push ------------------------------------------------------------

static int take_header_uid(struct reader *reader, const char *uid) {
  struct number number;
  return number_of_text(uid, &number) && fits_int64(&number, reader->json->uids)
             ? 0
             : malformed(reader, "the header x-md-global-uid", "is not an integer of 64 bits");
}

static int take_header_color(struct reader *reader, const char *color) {
  if (strlen(color) > ROUTE_COLOR_MAX_BYTES) {
    return malformed(reader, "the header x-md-global-color", "is longer than a color can be");
  }
  strcpy(reader->json->color, color);
  return 0;
}

// By the JSON, or where that says nothing, or 0, by the headers: to protobuf 0 is nothing.
static int read_player(struct reader *reader, const json_t *json,
                       const struct push_json_request *request) {
  int64_t *uid = reader->json->uids;
  int error = read_int64(reader, json, "uid", uid);
  if (error == 0) {
    error = read_color(reader, json, "color");
  }
  if (error == 0) {
    error = read_int64(reader, json, "sid", &reader->json->order.sid);
  }
  if (error == 0 && *uid == 0 && request->uid) {
    error = take_header_uid(reader, request->uid);
  } else if (error == 0 && *uid == 0 && !member(json, "uid")) {
    error = malformed(reader, "uid", "is missing, and so is the header x-md-global-uid");
  }
  if (error == 0 && reader->json->color[0] == '\0' && request->color) {
    error = take_header_color(reader, request->color);
  }
  return error;
}

// The gate's form has one body, and its player in the headers alone.
static int read_gate_push(struct reader *reader, const json_t *json,
                          const struct push_json_request *request) {
  reader->json->order.here_only = true;
  if (member(json, "bodies")) {
    return malformed(reader, "body", "and bodies are there both");
  }
  if (!request->uid) {
    return malformed(reader, "the header x-md-global-uid", "is missing");
  }
  int error = read_one_body(reader, json);
  if (error == 0) {
    error = take_header_uid(reader, request->uid);
  }
  return error == 0 && request->color ? take_header_color(reader, request->color) : error;
}

static int read_push(struct reader *reader, const json_t *json,
                     const struct push_json_request *request) {
  int error = make_uids(reader, 1);
  if (error != 0) {
    return error;
  }
  if (member(json, "body")) {
    return read_gate_push(reader, json, request);
  }
  error = read_bodies(reader, json);
  return error == 0 ? read_player(reader, json, request) : error;
}

static int read_multicast(struct reader *reader, const json_t *json) {
  int error = read_bodies(reader, json);
  if (error == 0) {
    error = read_uids(reader, json);
  }
  return error == 0 ? read_color(reader, json, "color") : error;
}

static int read_broadcast(struct reader *reader, const json_t *json) {
  reader->json->order.broadcast = true;
  int error = read_bodies(reader, json);
  if (error == 0) {
    error = read_color(reader, json, "color");
  }
  return error == 0 ? read_int64(reader, json, "sid", &reader->json->order.sid) : error;
}

// --- The text ------------------------------------------------------------------------

static bool has_too_many_values(const char *text, size_t len) {
  size_t count = 0;
  bool quoted = false;
  for (size_t i = 0; i < len; i++) {
    if (text[i] == '"') {
      quoted = !quoted;
    } else if (quoted) {
      i += text[i] == '\\';
    } else {
      count += text[i] == ',' || text[i] == '{' || text[i] == '[';
    }
  }
  return count > VALUES_MAX;
}

// jansson's reason. It may have a piece of the text in it.
static int no_json(const struct reader *reader, const json_error_t *error) {
  if (json_error_code(error) == json_error_out_of_memory) {
    return no_memory(reader);
  }
  bool overflow = json_error_code(error) == json_error_numeric_overflow;
  int len = snprintf(reader->why, PUSH_JSON_WHY_BYTES, "line %d, column %d: %s%s", error->line,
                     error->column, error->text,
                     overflow ? "; as text, a number of 64 bits can be written whole" : "");
  for (int i = 0; i < len && reader->why[i] != '\0'; i++) {
    if (!isprint((unsigned char)reader->why[i])) {
      reader->why[i] = '?';
    }
  }
  return ERROR_MALFORMED;
}

static int read_text(const struct reader *reader, const char *text, size_t len, json_t **json) {
  json_error_t error;
  if (len == 0) {
    return malformed(reader, "the body", "is empty");
  }
  if (has_too_many_values(text, len)) {
    snprintf(reader->why, PUSH_JSON_WHY_BYTES, "it has more than %d values in it", VALUES_MAX);
    return ERROR_TOO_LARGE;
  }
  *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
  if (!*json) {
    return no_json(reader, &error);
  }
  return json_is_object(*json) ? 0 : malformed(reader, "it", "is not an object");
}

// Whether other gateways take it: what is found out only there is lost.
static int check_size(const struct reader *reader) {
  const struct push_order *order = &reader->json->order;
  size_t size =
      reader->data_len + order->body_count * BODY_FRAME_BYTES + order->uid_count * UID_BYTES;
  if (size > PUSH_ORDER_MAX_BYTES) {
    snprintf(reader->why, PUSH_JSON_WHY_BYTES, "all together it is longer than %d bytes",
             PUSH_ORDER_MAX_BYTES);
    return ERROR_TOO_LARGE;
  }
  return 0;
}

static int read_request(struct reader *reader, const json_t *json,
                        const struct push_json_request *request) {
  int error = 0;
  switch (request->form) {
    case PUSH_JSON_PUSH: error = read_push(reader, json, request); break;
    case PUSH_JSON_MULTICAST: error = read_multicast(reader, json); break;
    case PUSH_JSON_BROADCAST: error = read_broadcast(reader, json); break;
  }
  return error == 0 ? check_size(reader) : error;
}

int push_json_decode(const struct push_json_request *request, struct push_json **json, char *why) {
  struct push_json *made = calloc(1, sizeof *made);
  struct reader reader = {.json = made};
  json_t *read = NULL;
  reader.why = why;
  if (!made || !(made->data = malloc(request->len + 1))) {
    push_json_free(made);
    return no_memory(&reader);
  }
  made->form = request->form;
  made->order.color = made->color;
  int error = read_text(&reader, request->text, request->len, &read);
  if (error == 0) {
    error = read_request(&reader, read, request);
  }
  json_decref(read);
  if (error != 0) {
    push_json_free(made);
    return error;
  }
  *json = made;
  return 0;
}

void push_json_drop_bodies(struct push_json *json) {
  free(json->bodies);
  free(json->data);
  json->bodies = NULL;
  json->data = NULL;
  json->order.bodies = NULL;
  json->order.body_count = 0;
}

void push_json_free(struct push_json *json) {
  if (json) {
    push_json_drop_bodies(json);
    free(json->uids);
    free(json);
  }
}

// --- Answers -------------------------------------------------------------------------

static json_t *text_of(int64_t number) {
  char text[24];
  snprintf(text, sizeof text, "%" PRId64, number);
  return json_string(text);
}

// Those who came to one of two fates.
static json_t *uids_of(const struct push_json *json, const struct push_outcome *outcome,
                       enum push_fate fate, enum push_fate other) {
  json_t *uids = json_array();
  for (size_t i = 0; i < json->order.uid_count; i++) {
    if ((outcome->fates[i] == fate || outcome->fates[i] == other) &&
        json_array_append_new(uids, text_of(json->order.uids[i])) != 0) {
      json_decref(uids);
      return NULL;
    }
  }
  return uids;
}

static json_t *answer_to_push(const struct push_outcome *outcome) {
  static const char *const names[PUSH_FATE_COUNT] = {[PUSH_HERE] = "here",
                                                     [PUSH_HANDED_ON] = "handed_on",
                                                     [PUSH_NOT_FOUND] = "not_found",
                                                     [PUSH_REFUSED] = "refused"};
  enum push_fate fate = outcome->fates[0];
  return json_pack("{s:b, s:s}", "pushed", fate == PUSH_HERE || fate == PUSH_HANDED_ON, "fate",
                   names[fate]);
}

static json_t *answer_to_multicast(const struct push_json *json,
                                   const struct push_outcome *outcome) {
  return json_pack("{s:o, s:o, s:o, s:o}", "pushedUids",
                   uids_of(json, outcome, PUSH_HERE, PUSH_HANDED_ON), "handedOnUids",
                   uids_of(json, outcome, PUSH_HANDED_ON, PUSH_HANDED_ON), "notFoundUids",
                   uids_of(json, outcome, PUSH_NOT_FOUND, PUSH_NOT_FOUND), "refusedUids",
                   uids_of(json, outcome, PUSH_REFUSED, PUSH_REFUSED));
}

static json_t *answer_to_broadcast(const struct push_outcome *outcome) {
  return json_pack("{s:o, s:o, s:b}", "reached", text_of((int64_t)outcome->count[PUSH_HERE]),
                   "refused", text_of((int64_t)outcome->count[PUSH_REFUSED]), "published",
                   outcome->published);
}

char *push_json_answer(const struct push_json *json, const struct push_outcome *outcome) {
  json_t *answer = NULL;
  switch (json->form) {
    case PUSH_JSON_PUSH: answer = answer_to_push(outcome); break;
    case PUSH_JSON_MULTICAST: answer = answer_to_multicast(json, outcome); break;
    case PUSH_JSON_BROADCAST: answer = answer_to_broadcast(outcome); break;
  }
  char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
  json_decref(answer);
  return text;
}
