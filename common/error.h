// The one list of error codes, for every function that returns an int.
//
// 0 is success; a failure is one of the negative codes below. What a code means
// in detail stands with the function that returns it.
#ifndef JANUS_COMMON_ERROR_H
#define JANUS_COMMON_ERROR_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum error {
  ERROR_MEMORY = -1,     // an allocation failed
  ERROR_SYSTEM = -2,     // a system call failed; errno tells
  ERROR_MALFORMED = -3,  // bytes from outside do not have the form they must have
  ERROR_TOO_LARGE = -4,  // over a bound
  ERROR_TRUNCATED = -5,  // more bytes were expected
  ERROR_CRYPTO = -6,     // a tag or a signature does not verify, or a key is unusable
  ERROR_REPLAY = -7,     // our own message came back to us
  ERROR_EXPIRED = -8,    // a time limit has passed
  ERROR_EXHAUSTED = -9,  // a counter or a table is used up
  ERROR_NOT_FOUND = -10,
  ERROR_BUSY = -11,     // a consistent answer could not be had within the bound
  ERROR_INVALID = -12,  // an argument or a setting is not one of those allowed
};

// A short English phrase for code, for logs. Static; any thread.
const char *error_text(int code);

#endif
