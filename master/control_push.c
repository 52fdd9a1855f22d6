// janusctl's push by hand.
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "master/control_command.h"
#include "master/push_hub.h"

static void on_pushed(const struct push_outcome *outcome, void *context) {
  static const char *const fates[PUSH_FATE_COUNT] = {
      [PUSH_HERE] = "here",
      [PUSH_HANDED_ON] = "handed on",
      [PUSH_NOT_FOUND] = "not found",
      [PUSH_REFUSED] = "refused",
  };
  struct question *question = context;
  json_t *answer;
  if (outcome->error != 0) {
    answer = control_error(outcome->error == ERROR_INVALID ? "the color is too long for one"
                                                           : "out of memory");
  } else if (outcome->fates[0] == PUSH_NOT_FOUND) {
    answer = control_error("the player is not here, and at no other gateway that is known");
  } else if (outcome->fates[0] == PUSH_REFUSED) {
    answer = control_error(outcome->too_large ? "it is larger than a client takes"
                                              : "too much is waiting, or Redis is away");
  } else {
    answer = control_ok();
    json_object_set_new(answer, "fate", json_string(fates[outcome->fates[0]]));
  }
  question->reply(answer, question->context);
  free(question);
}

static int64_t integer_of(const json_t *request, const char *name) {
  return json_integer_value(json_object_get(request, name));
}

// Whether it is there, and of 32 bits.
static bool is_int32(const json_t *request, const char *name) {
  int64_t number = integer_of(request, name);
  return json_is_integer(json_object_get(request, name)) && number >= INT32_MIN &&
         number <= INT32_MAX;
}

json_t *control_push(struct master *master, const json_t *request, struct question *question) {
  const char *text = json_string_value(json_object_get(request, "data"));
  const char *color = json_string_value(json_object_get(request, "color"));
  const json_t *uid = json_object_get(request, "uid");
  size_t text_len = text ? strlen(text) : 0;
  size_t data_len = 0;
  uint8_t *data = malloc(text_len + 1);
  struct question *later = malloc(sizeof *later);
  if (!data || !later || !json_is_integer(uid) || !is_int32(request, "mod") ||
      !is_int32(request, "seq") ||
      sodium_base642bin(data, text_len + 1, text ? text : "", text_len, NULL, &data_len, NULL,
                        sodium_base64_VARIANT_ORIGINAL) != 0) {
    free(data);
    free(later);
    return control_error("a push has a uid, a mod and a seq of 32 bits, and data in base64");
  }
  *later = *question;
  const int64_t to = json_integer_value(uid);
  const struct push_body body = {
      .data = data,
      .data_len = data_len,
      .data_version = (uint64_t)integer_of(request, "data_version"),  // JSON has no larger type
      .obj = integer_of(request, "obj"),
      .mod = (int32_t)integer_of(request, "mod"),
      .seq = (int32_t)integer_of(request, "seq"),
  };
  const struct push_order order = {.bodies = &body,
                                   .body_count = 1,
                                   .uids = &to,
                                   .uid_count = 1,
                                   .color = color ? color : master->config.label.color};
  push_hub_send(master->push_hub, &order, on_pushed, later);
  free(data);
  return NULL;
}
