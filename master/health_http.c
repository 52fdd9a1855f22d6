#include "master/health_http.h"

#include <jansson.h>

#include "common/clock.h"
#include "master/json_http.h"

static void on_health(struct http_request *request, void *owner) {
  const struct health_http *health = owner;
  json_http_answer(request, 200,
                   json_pack("{s:s, s:s, s:I}", "status", "ok", "version", JANUS_VERSION,
                             "uptime_ms", (json_int_t)(clock_wall_ms() - health->started_ms)));
}

static void on_ready(struct http_request *request, void *owner) {
  const struct health_http *health = owner;
  struct readiness readiness;
  json_t *checks = json_array();
  health->evaluate(&readiness, health->owner);
  for (int i = 0; i < READINESS_CHECKS; i++) {
    json_array_append_new(
        checks, json_pack("{s:s, s:b, s:s}", "name", readiness_check_name((enum readiness_check)i),
                          "ok", readiness.checks[i].ok, "detail", readiness.checks[i].detail));
  }
  json_http_answer(
      request, readiness.state == READINESS_READY ? 200 : 503,
      json_pack("{s:s, s:o}", "status", readiness_state_name(readiness.state), "checks", checks));
}

size_t health_http_routes(struct health_http *health, struct http_route *routes, size_t count) {
  routes[count++] = (struct http_route){"/health", "GET", on_health, NULL, health};
  routes[count++] = (struct http_route){"/health/ready", "GET", on_ready, NULL, health};
  return count;
}
