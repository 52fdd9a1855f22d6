#include "common/close_reason.h"

#include <stddef.h>
#include <strings.h>

const char *close_reason_name(enum close_reason reason) {
  static const char *const names[CLOSE_REASON_COUNT] = {
#define X(identifier, name, code, websocket_code) [CLOSE_##identifier] = name,
      CLOSE_REASONS(X)
#undef X
  };
  return (unsigned)reason < CLOSE_REASON_COUNT ? names[reason] : "unknown";
}

bool close_reason_is_failure(enum close_reason reason) {
  switch (reason) {
    case CLOSE_CLIENT_CLOSED:
    case CLOSE_CLIENT_RESET:
    case CLOSE_IDLE_TIMEOUT:
    case CLOSE_PING_TIMEOUT:
    case CLOSE_KCP_SILENT:
    case CLOSE_KICKED:
    case CLOSE_CONFLICTING_LOGIN:
    case CLOSE_ROMA_LOGOUT:
    case CLOSE_DRAIN: return false;
    default: return true;
  }
}

enum logout_code close_reason_logout_code(enum close_reason reason) {
  static const enum logout_code codes[CLOSE_REASON_COUNT] = {
#define X(identifier, name, code, websocket_code) [CLOSE_##identifier] = code,
      CLOSE_REASONS(X)
#undef X
  };
  return (unsigned)reason < CLOSE_REASON_COUNT ? codes[reason] : LOGOUT_SERVER;
}

uint16_t close_reason_websocket_code(enum close_reason reason) {
  static const uint16_t codes[CLOSE_REASON_COUNT] = {
#define X(identifier, name, code, websocket_code) [CLOSE_##identifier] = websocket_code,
      CLOSE_REASONS(X)
#undef X
  };
  return (unsigned)reason < CLOSE_REASON_COUNT ? codes[reason] : 1011;
}

static const char *const logout_codes[] = {
    [LOGOUT_SERVER] = "server",
    [LOGOUT_WAITING] = "waiting",
    [LOGOUT_UNAUTHORIZED] = "unauthorized",
    [LOGOUT_CONFLICTING_LOGIN] = "conflicting-login",
    [LOGOUT_ADMIN_KICK_OUT] = "admin-kick-out",
    [LOGOUT_BANNED] = "banned",
};
enum { LOGOUT_CODES = sizeof logout_codes / sizeof logout_codes[0] };

const char *logout_code_name(int32_t code) {
  return code >= 0 && code < LOGOUT_CODES ? logout_codes[code] : NULL;
}

enum logout_code logout_code_named(const char *name) {
  for (int i = 0; i < LOGOUT_CODES; i++) {
    if (strcasecmp(logout_codes[i], name) == 0) {
      return (enum logout_code)i;
    }
  }
  return LOGOUT_NONE;
}
