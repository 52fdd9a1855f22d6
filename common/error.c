#include "common/error.h"

const char *error_text(int code) {
  switch (code) {
    case 0: return "no error";
    case ERROR_MEMORY: return "out of memory";
    case ERROR_SYSTEM: return "system call failed";
    case ERROR_MALFORMED: return "malformed";
    case ERROR_TOO_LARGE: return "too large";
    case ERROR_TRUNCATED: return "truncated";
    case ERROR_CRYPTO: return "does not verify";
    case ERROR_REPLAY: return "own message played back";
    case ERROR_EXPIRED: return "expired";
    case ERROR_EXHAUSTED: return "used up";
    case ERROR_NOT_FOUND: return "not found";
    case ERROR_BUSY: return "busy";
    case ERROR_INVALID: return "not valid";
    default: return "unknown error";
  }
}
