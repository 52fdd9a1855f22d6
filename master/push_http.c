#include "master/push_http.h"

#include <stdlib.h>
#include <string.h>

#include "master/push_json.h"

enum {
  STATUS_OK = 200,
  STATUS_MALFORMED = 400,
  STATUS_NO_TOKEN = 401,
  STATUS_NOT_ALLOWED = 403,
  STATUS_TOO_LARGE = 413,
  STATUS_TRY_AGAIN = 503,
};

enum {
  // Base64 makes PUSH_ORDER_MAX_BYTES a third longer, and names and uids take room too.
  BODY_MAX_BYTES = 6 << 20,
};

// An order that the hub has. It may outlive its request, and the server.
struct order {
  struct http_request *request;  // NULL: it is gone
  struct push_json *json;
  bool sending;  // push_hub_send has not come back yet
  bool done;
};

static void order_free(struct order *order) {
  push_json_free(order->json);
  free(order);
}

static void ask_to_try_again(struct http_request *request) {
  http_request_add_header(request, "Retry-After", "1");
}

static void fail_for_now(struct http_request *request, const char *error) {
  ask_to_try_again(request);
  http_request_fail(request, STATUS_TRY_AGAIN, error);
}

// --- Who may push --------------------------------------------------------------------

static void on_head(struct http_request *request, void *owner) {
  const struct push_http *pushes = owner;
  switch (push_access_check(pushes->access, http_request_peer(request),
                            http_request_header(request, "Authorization"))) {
    case PUSH_ACCESS_ADDRESS:
      http_request_fail(request, STATUS_NOT_ALLOWED,
                        "pushes are not taken from this address (push.allow)");
      return;
    case PUSH_ACCESS_TOKEN:
      http_request_add_header(request, "WWW-Authenticate", "Bearer");
      http_request_fail(request, STATUS_NO_TOKEN,
                        "the header Authorization must be Bearer and the push_token");
      return;
    case PUSH_ACCESS_GRANTED: break;
  }
  if (!pushes->hub) {
    fail_for_now(request, "the gateway is starting");
  }
}

static void on_too_large(struct http_request *request, void *owner) {
  const struct push_http *pushes = owner;
  (void)request;
  counters_add(pushes->counters, COUNTER_PUSH_ORDERS_MALFORMED, 1);
}

// --- What came of it -----------------------------------------------------------------

static void answer(struct http_request *request, const struct push_json *json,
                   const struct push_outcome *outcome) {
  char *text = outcome->error == 0 ? push_json_answer(json, outcome) : NULL;
  unsigned status = STATUS_OK;
  if (outcome->error == ERROR_INVALID) {
    http_request_fail(request, STATUS_MALFORMED, "it makes no sense");
    return;
  }
  if (!text) {
    fail_for_now(request, "out of memory");
    return;
  }
  if (push_was_refused(outcome)) {
    status = outcome->too_large ? STATUS_TOO_LARGE : STATUS_TRY_AGAIN;
  }
  if (status == STATUS_TRY_AGAIN) {
    ask_to_try_again(request);
  }
  http_request_answer(request, status, "application/json", text, strlen(text));
  free(text);
}

static void on_done(const struct push_outcome *outcome, void *context) {
  struct order *order = context;
  if (order->request) {
    answer(order->request, order->json, outcome);
  }
  if (order->sending) {
    order->done = true;
  } else {
    order_free(order);
  }
}

static void on_gone(struct http_request *request, void *owner) {
  struct order *order = http_request_context(request);
  (void)owner;
  order->request = NULL;
}

const struct http_rules push_http_rules = {.body_bytes = BODY_MAX_BYTES,
                                           .on_head = on_head,
                                           .on_gone = on_gone,
                                           .on_too_large = on_too_large};

// --- Orders --------------------------------------------------------------------------

static void place_order(struct push_http *pushes, struct http_request *request,
                        struct push_json *json) {
  struct order *order = malloc(sizeof *order);
  if (!order) {
    push_json_free(json);
    fail_for_now(request, "out of memory");
    return;
  }
  *order = (struct order){.request = request, .json = json, .sending = true};
  http_request_set_context(request, order);
  json->order.parent = trace_context_of_header(http_request_header(request, "traceparent"));
  push_hub_send(pushes->hub, &json->order, on_done, order);
  order->sending = false;
  if (order->done) {
    order_free(order);
  } else {
    push_json_drop_bodies(json);
  }
}

static void take_in(struct push_http *pushes, struct http_request *request,
                    enum push_json_form form) {
  char why[PUSH_JSON_WHY_BYTES];
  struct push_json *json;
  struct push_json_request wanted = {.form = form,
                                     .uid = http_request_header(request, "x-md-global-uid"),
                                     .color = http_request_header(request, "x-md-global-color")};
  wanted.text = http_request_body(request, &wanted.len);
  int error = push_json_decode(&wanted, &json, why);
  if (error == 0) {
    place_order(pushes, request, json);
  } else if (error == ERROR_MEMORY) {
    fail_for_now(request, why);
  } else {
    counters_add(pushes->counters, COUNTER_PUSH_ORDERS_MALFORMED, 1);
    http_request_fail(request, error == ERROR_TOO_LARGE ? STATUS_TOO_LARGE : STATUS_MALFORMED, why);
  }
}

void push_http_on_push(struct http_request *request, void *owner) {
  take_in(owner, request, PUSH_JSON_PUSH);
}

void push_http_on_multicast(struct http_request *request, void *owner) {
  take_in(owner, request, PUSH_JSON_MULTICAST);
}

void push_http_on_broadcast(struct http_request *request, void *owner) {
  take_in(owner, request, PUSH_JSON_BROADCAST);
}
