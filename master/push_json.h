// Pushes as JSON, by protobuf's JSON mapping of proto/push.proto and proto/gate_push.proto:
// what HTTP has.
//
//   push        {"body": {"mod": 3, "seq": 7, "obj": "5", "data": "aGVsbG8=", "dataVersion": 1}}
//               to the player of this gateway that the header x-md-global-uid names; or
//               {"bodies": [...], "uid": "10001", "color": "blue"} to wherever the player is
//   multicast   {"bodies": [...], "uids": ["10001", 10002], "color": "blue"}
//   broadcast   {"bodies": [...], "color": "blue", "sid": 7}
//
// Names may stand as in the .proto too (data_version). null is as good as absent. Data is
// base64, of either alphabet, with or without padding. Numbers may stand as text; a number
// beyond int64 has to. Members that are not known are passed over.
//
// Pure functions, any thread.
#ifndef JANUS_MASTER_PUSH_JSON_H
#define JANUS_MASTER_PUSH_JSON_H

#include <stddef.h>

#include "common/error.h"
#include "master/push_hub.h"

enum { PUSH_JSON_WHY_BYTES = 160 };

enum push_json_form { PUSH_JSON_PUSH, PUSH_JSON_MULTICAST, PUSH_JSON_BROADCAST };

// All borrowed for the call.
struct push_json_request {
  enum push_json_form form;
  const char *text;
  size_t len;
  const char *uid;    // the header x-md-global-uid, or NULL
  const char *color;  // x-md-global-color, or NULL
};

// A request that was understood, with all that its order points to.
struct push_json {
  enum push_json_form form;
  struct push_order order;
  struct push_body *bodies;
  uint8_t *data;  // of all the bodies
  int64_t *uids;
  char color[ROUTE_COLOR_MAX_BYTES + 1];
};

// 0; or ERROR_MALFORMED, ERROR_TOO_LARGE or ERROR_MEMORY with the reason in why
// (PUSH_JSON_WHY_BYTES, printable ASCII), which names the member at fault, or for what is no
// JSON the place.
int push_json_decode(const struct push_json_request *request, struct push_json **json,
                     char *why) MUST_CHECK;
void push_json_free(struct push_json *json);  // accepts NULL

// Gives the bodies free, once they have been pushed: what the answer needs stays.
void push_json_drop_bodies(struct push_json *json);

// What has come of it (outcome without an error), as JSON for the caller to free; NULL when
// out of memory.
//
//   push        {"pushed": true, "fate": "here"}, or "handed_on", "not_found", "refused"
//   multicast   {"pushedUids": ["10001"], "handedOnUids": [], "notFoundUids": ["10002"],
//               "refusedUids": []}, where those handed on are pushed too
//   broadcast   {"reached": "12", "refused": "0", "published": true}
char *push_json_answer(const struct push_json *json, const struct push_outcome *outcome);

#endif
