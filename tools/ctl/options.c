#include "tools/ctl/options.h"

#include <errno.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_value.h"

const struct ctl_option ctl_options[CTL_OPTION_COUNT] = {
    [CTL_UID] = {"uid", 'u', "N", "uid", "the player, in place of UID behind the command",
                 CTL_NUMBER, INT64_MIN, INT64_MAX},
    [CTL_SID] = {"sid", 0, "N", "sid", "of this server id", CTL_NUMBER, INT64_MIN, INT64_MAX},
    [CTL_COLOR] = {"color", 'c', "C", "color", "of this color", CTL_TEXT, 0, 0},
    [CTL_ADDRESS] = {"address", 0, "NET", "address",
                     "from an IP address, or a network such as 192.0.2.0/24", CTL_TEXT, 0, 0},
    [CTL_WORKER] = {"worker", 0, "N", "worker", "of this worker", CTL_NUMBER, 0, INT32_MAX},
    [CTL_SORT] = {"sort", 0, "BY", "sort", "age, traffic, queue or hot, the most first", CTL_TEXT,
                  0, 0},
    [CTL_LIMIT] = {"limit", 'n', "N", "limit", "at most so many (default 100)", CTL_NUMBER, 1,
                   INT32_MAX},
    [CTL_CODE] = {"code", 0, "C", "code",
                  "what the client is told: server, waiting, unauthorized, conflicting-login, "
                  "admin-kick-out (the default) or banned",
                  CTL_TEXT, 0, 0},
    [CTL_REASON] = {"reason", 0, "TEXT", "reason", "why: for the log, and for the list of bans",
                    CTL_TEXT, 0, 0},
    [CTL_CONNECTION] = {"connection", 0, "N", "connection", "of this connection", CTL_UNSIGNED, 0,
                        0},
    [CTL_COUNT] = {"count", 0, "N", "count", "ends after so many", CTL_NUMBER, 1, INT64_MAX},
    [CTL_ONCE] = {"once", 0, NULL, "once",
                  "ends with the player's last session; an error if he is not here", CTL_FLAG, 0,
                  0},
    [CTL_FOR] = {"for", 0, "TIME", "for_ms", "for so long, such as 90s, 10m or 24h", CTL_DURATION,
                 0, 0},
    [CTL_INTERVAL] = {"interval", 0, "TIME", "interval_ms",
                      "from look to look, 100ms or more (default 1s)", CTL_DURATION, 100, 0},
    [CTL_MOD] = {"mod", 0, "N", "mod", "the message's module", CTL_NUMBER, INT32_MIN, INT32_MAX},
    [CTL_SEQ] = {"seq", 0, "N", "seq", "its sequence", CTL_NUMBER, INT32_MIN, INT32_MAX},
    [CTL_OBJ] = {"obj", 0, "N", "obj", "its object (default 0)", CTL_NUMBER, INT64_MIN, INT64_MAX},
    [CTL_DATA_VERSION] = {"data-version", 0, "N", "data_version", "its data version (default 0)",
                          CTL_UNSIGNED, 0, 0},
    [CTL_DATA] = {"data", 0, "TEXT", "data", "what it carries (default nothing)", CTL_TEXT_DATA, 0,
                  0},
    [CTL_HEX] = {"hex", 0, "BYTES", "data", "the same in hexadecimal", CTL_HEX_DATA, 0, 0},
    [CTL_TIER] = {"tier", 't', "TIER", "tier", "of this tier: gateway, player or object",
                  CTL_TIER_NAME, 0, 0},
    [CTL_SERVICE] = {"service", 'S', "NAME", "service",
                     "of this service (default: the first of the tier)", CTL_TEXT, 0, 0},
    [CTL_MODULE] = {"module", 0, "NAME", "module", "of this module alone", CTL_TEXT, 0, 0},
    [CTL_TIMEOUT] = {"timeout", 0, "TIME", "timeout_ms",
                     "how long players may stay before they are sent away", CTL_DURATION, 0, 0},
    [CTL_SPREAD] = {"spread", 0, "TIME", "spread_ms",
                    "over how long they are then sent away, so that they do not all come back at "
                    "once",
                    CTL_DURATION, 0, 0},
    [CTL_WAIT] = {"wait", 0, NULL, "wait", "shows progress until it is done: the default", CTL_FLAG,
                  0, 0},
    [CTL_NO_WAIT] = {"no-wait", 0, NULL, "no_wait", "returns at once", CTL_FLAG, 0, 0},
    [CTL_PROGRAM] = {"program", 0, "PATH", "program",
                     "the new janusd (default: the path of the one that runs)", CTL_TEXT, 0, 0},
    [CTL_LEVEL] = {NULL, 0, "LEVEL", "level", NULL, CTL_TEXT, 0, 0},
    [CTL_OID] = {NULL, 0, "OID", "oid", NULL, CTL_NUMBER, INT64_MIN, INT64_MAX},
};

static bool number_parse(const char *text, int64_t least, int64_t most, json_int_t *number) {
  char *end;
  errno = 0;
  *number = strtoll(text, &end, 10);
  return errno == 0 && end != text && *end == '\0' && *number >= least && *number <= most;
}

static bool unsigned_parse(const char *text, json_int_t *number) {
  char *end;
  errno = 0;
  *number = (json_int_t)strtoull(text, &end, 10);
  return errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0';
}

static bool is_tier(const char *text) {
  return strcmp(text, "gateway") == 0 || strcmp(text, "player") == 0 || strcmp(text, "object") == 0;
}

static json_t *base64_of(const uint8_t *bytes, size_t len) {
  size_t room = sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL);
  char *text = malloc(room);
  json_t *value = NULL;
  if (text) {
    value = json_string(sodium_bin2base64(text, room, bytes, len, sodium_base64_VARIANT_ORIGINAL));
  }
  free(text);
  return value;
}

static json_t *hex_decode(const char *text) {
  size_t len = strlen(text);
  uint8_t *bytes = malloc(len + 1);
  size_t decoded = 0;
  json_t *value = NULL;
  if (bytes && sodium_hex2bin(bytes, len, text, len, ": ", &decoded, NULL) == 0 &&
      len >= 2 * decoded) {
    value = base64_of(bytes, decoded);
  }
  free(bytes);
  return value;
}

const char *ctl_option_take(json_t *request, enum ctl_option_id id, const char *text) {
  static const char *const wanted[] = {
      [CTL_TEXT] = "UTF-8",
      [CTL_NUMBER] = "a whole number in its range",
      [CTL_UNSIGNED] = "a whole number of 64 bits, 0 or more",
      [CTL_FLAG] = "nothing",
      [CTL_TIER_NAME] = "gateway, player or object",
      [CTL_DURATION] = "a time such as 90s, 10m or 24h",
      [CTL_TEXT_DATA] = "text",
      [CTL_HEX_DATA] = "hexadecimal digits",
  };
  const struct ctl_option *option = &ctl_options[id];
  json_int_t number;
  int64_t ms;
  json_t *value = NULL;
  switch (option->kind) {
    case CTL_TEXT: value = json_string(text); break;
    case CTL_FLAG: value = json_true(); break;
    case CTL_TIER_NAME: value = is_tier(text) ? json_string(text) : NULL; break;
    case CTL_NUMBER:
      value =
          number_parse(text, option->least, option->most, &number) ? json_integer(number) : NULL;
      break;
    case CTL_UNSIGNED: value = unsigned_parse(text, &number) ? json_integer(number) : NULL; break;
    case CTL_DURATION:
      value =
          config_value_parse_duration(text, &ms) && ms >= option->least ? json_integer(ms) : NULL;
      break;
    case CTL_TEXT_DATA: value = base64_of((const uint8_t *)text, strlen(text)); break;
    case CTL_HEX_DATA: value = hex_decode(text); break;
  }
  if (!value && id == CTL_INTERVAL) {
    return "a time of 100ms or more";
  }
  if (!value) {
    return wanted[option->kind];
  }
  json_object_set_new(request, option->member, value);
  return NULL;
}
