#include "common/close_reason.h"

const char *close_reason_name(enum close_reason reason) {
  static const char *const names[CLOSE_REASON_COUNT] = {
#define X(identifier, name, code) [CLOSE_##identifier] = name,
      CLOSE_REASONS(X)
#undef X
  };
  return (unsigned)reason < CLOSE_REASON_COUNT ? names[reason] : "unknown";
}

enum logout_code close_reason_logout_code(enum close_reason reason) {
  static const enum logout_code codes[CLOSE_REASON_COUNT] = {
#define X(identifier, name, code) [CLOSE_##identifier] = code,
      CLOSE_REASONS(X)
#undef X
  };
  return (unsigned)reason < CLOSE_REASON_COUNT ? codes[reason] : LOGOUT_SERVER;
}
