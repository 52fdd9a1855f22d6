#include "master/ban.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/config_value.h"

static const char uid_start[] = "uid:";
static const char network_start[] = "net:";

size_t ban_field(const struct ban_subject *subject, char text[BAN_FIELD_BYTES]) {
  char network[NETWORK_TEXT_BYTES];
  int len = subject->kind == BAN_UID
                ? snprintf(text, BAN_FIELD_BYTES, "%s%" PRId64, uid_start, subject->uid)
                : snprintf(text, BAN_FIELD_BYTES, "%s%s", network_start,
                           network_format(&subject->network, network));
  return (size_t)len;
}

int ban_parse_field(const char *text, size_t len, struct ban_subject *subject) {
  char copy[BAN_FIELD_BYTES];
  char again[BAN_FIELD_BYTES];
  if (len >= sizeof copy) {
    return ERROR_MALFORMED;
  }
  memcpy(copy, text, len);
  copy[len] = '\0';
  memset(subject, 0, sizeof *subject);
  bool parsed;
  if (strncmp(copy, uid_start, strlen(uid_start)) == 0) {
    subject->kind = BAN_UID;
    parsed = config_value_parse_integer(copy + strlen(uid_start), &subject->uid);
  } else {
    subject->kind = BAN_NETWORK;
    parsed = strncmp(copy, network_start, strlen(network_start)) == 0 &&
             network_parse(copy + strlen(network_start), &subject->network) == 0;
  }
  // Only the one text: by another one it could be neither found nor removed.
  bool canonical = parsed && ban_field(subject, again) == len && memcmp(again, text, len) == 0;
  return canonical ? 0 : ERROR_MALFORMED;
}

char *ban_value(const struct ban *ban) {
  json_t *value = json_pack("{s:I, s:s, s:s, s:I}", "until_ms", (json_int_t)ban->until_ms, "reason",
                            ban->reason, "by", ban->by, "since_ms", (json_int_t)ban->since_ms);
  char *text = json_dumps(value, JSON_COMPACT);
  json_decref(value);
  return text;
}

static bool is_plain(const char *text) {
  for (; *text != '\0'; text++) {
    if ((unsigned char)*text < 0x20 || *text == 0x7f) {
      return false;
    }
  }
  return true;
}

// A time that must be there, or may be missing.
static bool read_time(const json_t *root, const char *name, bool required, int64_t *time_ms) {
  const json_t *member = json_object_get(root, name);
  *time_ms = json_integer_value(member);
  return member ? json_is_integer(member) && *time_ms >= 0 : !required;
}

static bool read_text(const json_t *root, const char *name, char *text, size_t size) {
  const json_t *member = json_object_get(root, name);
  const char *value = member ? json_string_value(member) : "";
  if (!value || strlen(value) >= size || !is_plain(value)) {
    return false;
  }
  strcpy(text, value);
  return true;
}

int ban_parse(const char *field, size_t field_len, const char *value, size_t value_len,
              struct ban *ban) {
  memset(ban, 0, sizeof *ban);
  if (value_len > BAN_VALUE_MAX_BYTES || ban_parse_field(field, field_len, &ban->subject) != 0) {
    return ERROR_MALFORMED;
  }
  json_t *root = json_loadb(value, value_len, 0, NULL);
  bool sound = json_is_object(root) && read_time(root, "until_ms", true, &ban->until_ms) &&
               read_time(root, "since_ms", false, &ban->since_ms) &&
               read_text(root, "reason", ban->reason, sizeof ban->reason) &&
               read_text(root, "by", ban->by, sizeof ban->by);
  json_decref(root);
  return sound ? 0 : ERROR_MALFORMED;
}

int ban_check_reason(const char *text) {
  if (strlen(text) > BAN_REASON_MAX_BYTES) {
    return ERROR_TOO_LARGE;
  }
  json_t *string = json_string(text);  // UTF-8, or none
  bool sound = string && is_plain(text);
  json_decref(string);
  return sound ? 0 : ERROR_INVALID;
}

bool ban_is_over(const struct ban *ban, int64_t now_ms) {
  return ban->until_ms != 0 && ban->until_ms <= now_ms;
}

bool ban_fits(const struct ban *ban, int64_t uid, const char *address) {
  uint8_t parsed[NETWORK_ADDRESS_BYTES];
  if (ban->subject.kind == BAN_UID) {
    return ban->subject.uid == uid;
  }
  return network_parse_address(address, parsed) == 0 && network_has(&ban->subject.network, parsed);
}
