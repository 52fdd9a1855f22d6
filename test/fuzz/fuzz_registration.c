// What etcd and Redis hand over: by the first byte, the value of an instance, or the key
// of a route, which must read back as it was written.
#include <stdlib.h>
#include <string.h>

#include "common/redis_routes.h"
#include "master/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void read_instance(const uint8_t *bytes, size_t len) {
  struct node node;
  const char *why = NULL;
  int error = registry_parse_instance("roma.player.service", bytes, len, &node, &why);
  if ((error == ERROR_MALFORMED) != (why != NULL) ||
      (error == 0 && (strcmp(node.service, "roma.player.service") != 0 || !node.address[0]))) {
    abort();
  }
}

static void read_key(const char *text, size_t len) {
  struct redis_routes_name name;
  char again[REDIS_ROUTES_KEY_BYTES];
  if (redis_routes_parse_key(text, len, &name) != 0) {
    return;
  }
  const struct route_key key = {.service = name.service, .color = name.color, .oid = name.oid};
  if (redis_routes_key(&key, again) != len || memcmp(again, text, len) != 0) {
    abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  if (len > 0 && bytes[0] & 1) {
    read_instance(bytes + 1, len - 1);
  } else if (len > 0) {
    read_key((const char *)bytes + 1, len - 1);
  }
  return 0;
}
