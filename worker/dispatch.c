#include "worker/dispatch.h"

static int search(const struct dispatch *dispatch, int32_t module) {
  int found = DISPATCH_NONE;
  for (size_t i = 0; i < dispatch->type_count; i++) {
    const struct config_tunnel_type *type = &dispatch->types[i];
    for (size_t j = 0; j < type->module_count; j++) {
      if (type->modules[j] == module) {
        return (int)i;
      }
    }
    if (type->default_modules) {
      found = (int)i;
    }
  }
  return found;
}

void dispatch_init(struct dispatch *dispatch, const struct config_tunnel_type *types,
                   size_t type_count) {
  dispatch->types = types;
  dispatch->type_count = type_count;
  for (int32_t module = 0; module < DISPATCH_DIRECT_MODULES; module++) {
    dispatch->direct[module] = (int8_t)search(dispatch, module);
  }
}

int dispatch_find(const struct dispatch *dispatch, int32_t module) {
  if (module >= 0 && module < DISPATCH_DIRECT_MODULES) {
    return dispatch->direct[module];
  }
  return search(dispatch, module);
}
