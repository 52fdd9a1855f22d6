#include "master/gateway_route.h"

struct route_key gateway_route_key(const struct config *config, int64_t uid, const char *color) {
  return (struct route_key){
      .tier = ROUTE_GATEWAY, .service = config->label.service, .color = color, .oid = uid};
}
