// Pushes as JSON. The first byte chooses the form, and the headers. What is taken must be an
// order that makes sense, and the same one again when it is written out and read back; what
// is not must say why.
#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/push_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check(bool holds) {
  if (!holds) {
    abort();
  }
}

static void check_order(const struct push_json *json) {
  const struct push_order *order = &json->order;
  check(order->body_count > 0 && order->body_count <= PUSH_BODIES_MAX);
  check(order->broadcast == (json->form == PUSH_JSON_BROADCAST));
  check(order->broadcast == (order->uid_count == 0) && order->uid_count <= PUSH_UIDS_MAX);
  check(strlen(order->color) <= ROUTE_COLOR_MAX_BYTES);
}

static void check_why(int error, const char *why) {
  check(error == ERROR_MALFORMED || error == ERROR_TOO_LARGE);
  check(why[0] != '\0' && strlen(why) < PUSH_JSON_WHY_BYTES);
  for (; *why; why++) {
    check(isprint((unsigned char)*why));
  }
}

static json_t *text_of(int64_t number) {
  char text[24];
  snprintf(text, sizeof text, "%" PRId64, number);
  return json_string(text);
}

static json_t *write_body(const struct push_body *body) {
  char version[24];
  size_t room = sodium_base64_encoded_len(body->data_len, sodium_base64_VARIANT_URLSAFE);
  char *data = malloc(room);
  sodium_bin2base64(data, room, body->data, body->data_len, sodium_base64_VARIANT_URLSAFE);
  snprintf(version, sizeof version, "%" PRIu64, body->data_version);
  json_t *json = json_pack("{s:s, s:s, s:I, s:i, s:i}", "data", data, "dataVersion", version, "obj",
                           (json_int_t)body->obj, "mod", body->mod, "seq", body->seq);
  free(data);
  return json;
}

// In the Broadcaster's form, which has all that a header could say.
static char *write_order(const struct push_json *json) {
  const struct push_order *order = &json->order;
  json_t *bodies = json_array();
  json_t *uids = json_array();
  for (size_t i = 0; i < order->body_count; i++) {
    json_array_append_new(bodies, write_body(&order->bodies[i]));
  }
  for (size_t i = 0; i < order->uid_count; i++) {
    json_array_append_new(uids, text_of(order->uids[i]));
  }
  json_t *all = json_pack("{s:o, s:s, s:o}", "bodies", bodies, "color", order->color, "sid",
                          text_of(order->sid));
  if (json->form == PUSH_JSON_PUSH) {
    json_object_set(all, "uid", json_array_get(uids, 0));
  } else if (json->form == PUSH_JSON_MULTICAST) {
    json_object_set(all, "uids", uids);
  }
  char *text = json_dumps(all, JSON_COMPACT);
  check(text != NULL);
  json_decref(uids);
  json_decref(all);
  return text;
}

static void check_same(const struct push_json *one, const struct push_json *other) {
  check(one->order.body_count == other->order.body_count &&
        one->order.uid_count == other->order.uid_count);
  check(strcmp(one->order.color, other->order.color) == 0);
  check(one->form == PUSH_JSON_MULTICAST || one->order.sid == other->order.sid);
  for (size_t i = 0; i < one->order.body_count; i++) {
    const struct push_body *left = &one->order.bodies[i];
    const struct push_body *right = &other->order.bodies[i];
    check(left->data_len == right->data_len && left->data_version == right->data_version &&
          left->obj == right->obj && left->mod == right->mod && left->seq == right->seq);
    check(left->data_len == 0 || memcmp(left->data, right->data, left->data_len) == 0);
  }
  for (size_t i = 0; i < one->order.uid_count; i++) {
    check(one->order.uids[i] == other->order.uids[i]);
  }
}

static void read_back(const struct push_json *json) {
  char why[PUSH_JSON_WHY_BYTES];
  char *text = write_order(json);
  struct push_json *again;
  const struct push_json_request request = {.form = json->form, .text = text, .len = strlen(text)};
  check(push_json_decode(&request, &again, why) == 0);
  check_same(json, again);
  push_json_free(again);
  free(text);
}

static void answer(const struct push_json *json) {
  enum push_fate *fates = calloc(json->order.uid_count + 1, sizeof *fates);
  for (size_t i = 0; i < json->order.uid_count; i++) {
    fates[i] = (enum push_fate)(i % PUSH_FATE_COUNT);
  }
  const struct push_outcome outcome = {.fates = fates};
  char *text = push_json_answer(json, &outcome);
  check(text != NULL);
  free(text);
  free(fates);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  char why[PUSH_JSON_WHY_BYTES] = "";
  struct push_json *json;
  if (len == 0) {
    return 0;
  }
  const struct push_json_request request = {.form = (enum push_json_form)(bytes[0] % 3),
                                            .text = (const char *)bytes + 1,
                                            .len = len - 1,
                                            .uid = bytes[0] & 0x40 ? "-12" : NULL,
                                            .color = bytes[0] & 0x80 ? "blue" : NULL};
  int error = push_json_decode(&request, &json, why);
  if (error != 0) {
    check_why(error, why);
    return 0;
  }
  check_order(json);
  read_back(json);
  push_json_drop_bodies(json);
  answer(json);
  push_json_free(json);
  return 0;
}
