#include "master/gateway_route.h"

#include "common/clock.h"

struct route_key gateway_route_key(const struct config *config, int64_t uid, const char *color) {
  return (struct route_key){
      .tier = ROUTE_GATEWAY, .service = config->label.service, .color = color, .oid = uid};
}

void gateway_route_renewed(const struct config *config, struct directory *directory,
                           struct directory_session *session) {
  directory_renewed(directory, session,
                    clock_monotonic_ms() + config->data.gateway_route_table_alive_duration_ms / 2);
}
