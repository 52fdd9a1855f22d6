// One ban: whom it keeps out, until when and why, and how it stands in the list that
// gateways share, as a field and its value:
//
//   uid:10001         {"until_ms":0,"reason":"cheating","by":"10.0.0.5:19100","since_ms":N}
//   net:192.0.2.0/24  {"until_ms":1767657600000}
//
// Of the value only until_ms is needed. Pure functions.
#ifndef JANUS_MASTER_BAN_H
#define JANUS_MASTER_BAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/error.h"
#include "common/networks.h"

enum {
  BAN_REASON_MAX_BYTES = 100,
  BAN_FIELD_BYTES = 4 + NETWORK_TEXT_BYTES,  // with its NUL
  BAN_VALUE_MAX_BYTES = 2048,
};

enum ban_kind { BAN_UID, BAN_NETWORK, BAN_KIND_COUNT };

struct ban_subject {
  enum ban_kind kind;
  int64_t uid;             // of BAN_UID
  struct network network;  // of BAN_NETWORK
};

struct ban {
  struct ban_subject subject;
  int64_t since_ms;  // wall clock; 0 when not known
  int64_t until_ms;  // wall clock; 0: for ever
  char reason[BAN_REASON_MAX_BYTES + 1];
  char by[CONFIG_TEXT_BYTES];  // the gateway that it was asked of; "" when not known
};

// Writes the field; returns its length.
size_t ban_field(const struct ban_subject *subject, char text[BAN_FIELD_BYTES]);
// And back. ERROR_MALFORMED for anything that ban_field does not write.
int ban_parse_field(const char *text, size_t len, struct ban_subject *subject) MUST_CHECK;

// The value, malloc'd. NULL when out of memory.
char *ban_value(const struct ban *ban);
// A ban from its field and its value, which may be anything at all. ERROR_MALFORMED.
int ban_parse(const char *field, size_t field_len, const char *value, size_t value_len,
              struct ban *ban) MUST_CHECK;

// Whether text can be a reason: UTF-8 without control characters, which somebody's terminal
// will show. ERROR_TOO_LARGE, ERROR_INVALID.
int ban_check_reason(const char *text) MUST_CHECK;

bool ban_is_over(const struct ban *ban, int64_t now_ms);
// Whether it keeps out a player of that uid at that address, as a session has it.
bool ban_fits(const struct ban *ban, int64_t uid, const char *address);

#endif
