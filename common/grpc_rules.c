#include "common/grpc_rules.h"

#include <inttypes.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/stream.h"

enum {
  STATUS_MAX = 16,
  TIMEOUT_MAX = 99999999,  // of any unit: 8 digits
};

int grpc_status_of_http(int http_status) {
  switch (http_status) {
    case 400:
    case 431: return STREAM_INTERNAL;
    case 401: return STREAM_UNAUTHENTICATED;
    case 403: return STREAM_PERMISSION_DENIED;
    case 404: return STREAM_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504: return STREAM_UNAVAILABLE;
    default: return STREAM_UNKNOWN;
  }
}

int grpc_status_of_reset(uint32_t error_code) {
  switch (error_code) {
    case NGHTTP2_NO_ERROR:
    case NGHTTP2_PROTOCOL_ERROR:
    case NGHTTP2_INTERNAL_ERROR:
    case NGHTTP2_FLOW_CONTROL_ERROR:
    case NGHTTP2_SETTINGS_TIMEOUT:
    case NGHTTP2_FRAME_SIZE_ERROR:
    case NGHTTP2_COMPRESSION_ERROR:
    case NGHTTP2_CONNECT_ERROR: return STREAM_INTERNAL;
    case NGHTTP2_REFUSED_STREAM: return STREAM_UNAVAILABLE;
    case NGHTTP2_CANCEL: return STREAM_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM: return STREAM_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY: return STREAM_PERMISSION_DENIED;
    default: return STREAM_UNKNOWN;
  }
}

int grpc_status_parse(const uint8_t *text, size_t len) {
  int status = 0;
  if (len < 1 || len > 2) {
    return STREAM_UNKNOWN;
  }
  for (size_t i = 0; i < len; i++) {
    if (text[i] < '0' || text[i] > '9') {
      return STREAM_UNKNOWN;
    }
    status = status * 10 + (text[i] - '0');
  }
  return status <= STATUS_MAX ? status : STREAM_UNKNOWN;
}

static int hex_value(uint8_t digit) {
  if (digit >= '0' && digit <= '9') {
    return digit - '0';
  }
  digit |= 0x20;
  return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

void grpc_message_decode(const uint8_t *text, size_t len, char *out, size_t size) {
  size_t used = 0;
  for (size_t i = 0; i < len && used + 1 < size; i++) {
    bool is_escape =
        text[i] == '%' && len - i > 2 && hex_value(text[i + 1]) >= 0 && hex_value(text[i + 2]) >= 0;
    out[used++] =
        (char)(is_escape ? hex_value(text[i + 1]) << 4 | hex_value(text[i + 2]) : text[i]);
    i += is_escape ? 2 : 0;
  }
  out[used] = '\0';
}

void grpc_timeout_write(int64_t ms, char out[GRPC_TIMEOUT_BYTES]) {
  static const struct {
    char name;
    int64_t ms;
  } units[] = {{'m', 1}, {'S', 1000}, {'M', 60000}, {'H', 3600000}};
  size_t unit = 0;
  int64_t count = ms;
  while (count > TIMEOUT_MAX && unit + 1 < sizeof units / sizeof units[0]) {
    unit++;
    count = ms / units[unit].ms + (ms % units[unit].ms != 0);
  }
  count = count < TIMEOUT_MAX ? count : TIMEOUT_MAX;
  snprintf(out, GRPC_TIMEOUT_BYTES, "%" PRId64 "%c", count, units[unit].name);
}

bool grpc_key_is_legal(const char *key) {
  if (key[0] == '\0' || key[0] == ':' || strncmp(key, "grpc-", 5) == 0) {
    return false;
  }
  for (; *key != '\0'; key++) {
    bool is_legal = (*key >= 'a' && *key <= 'z') || (*key >= '0' && *key <= '9') || *key == '-' ||
                    *key == '_' || *key == '.';
    if (!is_legal) {
      return false;
    }
  }
  return true;
}

bool grpc_value_is_legal(const char *value) {
  for (; *value != '\0'; value++) {
    if (*value < 0x20 || *value > 0x7e) {
      return false;
    }
  }
  return true;
}

bool grpc_key_is_binary(const char *key) {
  size_t len = strlen(key);
  return len >= 4 && strcmp(key + len - 4, "-bin") == 0;
}

bool grpc_content_type_is_ours(const uint8_t *text, size_t len) {
  static const char ours[] = "application/grpc";
  size_t ours_len = sizeof ours - 1;
  return len >= ours_len && strncasecmp((const char *)text, ours, ours_len) == 0 &&
         (len == ours_len || text[ours_len] == '+' || text[ours_len] == ';');
}
