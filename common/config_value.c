#include "common/config_value.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DISTANCE_MAX_BYTES = 128, ADDRESS_MAX_BYTES = 1023 };

static const struct {
  const char *unit;
  int64_t ms;
} duration_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}};

bool config_value_parse_duration(const char *text, int64_t *ms) {
  int64_t number = 0, scale = 1;
  size_t digits = 0;
  bool fraction = false;
  for (; isdigit((unsigned char)*text) || (*text == '.' && !fraction && digits > 0); text++) {
    if (*text == '.') {
      fraction = true;
      continue;
    }
    if (++digits > 11) {
      return false;
    }
    number = number * 10 + (*text - '0');
    scale *= fraction ? 10 : 1;
  }
  if (digits == 0 || text[-1] == '.') {
    return false;
  }
  for (size_t i = 0; i < sizeof duration_units / sizeof *duration_units; i++) {
    if (strcmp(text, duration_units[i].unit) == 0) {
      number *= duration_units[i].ms;
      *ms = number / scale;
      return number % scale == 0;
    }
  }
  return false;
}

const char *config_value_print_duration(int64_t ms, char *buffer, size_t size) {
  bool whole = ms % 1000 == 0;
  snprintf(buffer, size, "%" PRId64 "%s", whole ? ms / 1000 : ms, whole ? "s" : "ms");
  return buffer;
}

// Whether text begins as the shape is, where 0 is any digit and a letter is of either case.
static bool has_shape(const char *text, const char *shape) {
  for (; *shape != '\0'; text++, shape++) {
    if (*shape == '0' ? *text < '0' || *text > '9' : toupper((unsigned char)*text) != *shape) {
      return false;
    }
  }
  return true;
}

// "Z", or hours and minutes from UTC as "+02:00".
static bool parse_offset(const char *text, int64_t *seconds) {
  unsigned hours = 0, minutes = 0;
  bool is_utc = has_shape(text, "Z") && text[1] == '\0';
  if (!is_utc && ((!has_shape(text, "+00:00") && !has_shape(text, "-00:00")) || text[6] != '\0' ||
                  sscanf(text + 1, "%2u:%2u", &hours, &minutes) != 2)) {
    return false;
  }
  *seconds = (text[0] == '-' ? -1 : 1) * (int64_t)(hours * 3600 + minutes * 60);
  return hours < 24 && minutes < 60;
}

bool config_value_parse_moment(const char *text, int64_t *ms) {
  static const char shape[] = "0000-00-00T00:00:00";
  struct tm tm = {0}, normal;
  int64_t offset_s;
  if (!has_shape(text, shape)) {
    return false;
  }
  const char *rest = text + strlen(shape);
  if (*rest == '.') {  // a part of a second: not looked at
    size_t digits = strspn(rest + 1, "0123456789");
    rest += digits > 0 ? 1 + digits : 0;
  }
  if (sscanf(text, "%4d-%2d-%2d%*c%2d:%2d:%2d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
             &tm.tm_min, &tm.tm_sec) != 6 ||
      !parse_offset(rest, &offset_s)) {
    return false;
  }
  tm.tm_year -= 1900;
  tm.tm_mon -= 1;
  normal = tm;
  time_t seconds = timegm(&normal);
  // What there is not, such as the 31st of June, has become something else.
  if (normal.tm_mon != tm.tm_mon || normal.tm_mday != tm.tm_mday || normal.tm_hour != tm.tm_hour ||
      normal.tm_min != tm.tm_min || normal.tm_sec != tm.tm_sec) {
    return false;
  }
  *ms = ((int64_t)seconds - offset_s) * 1000;
  return true;
}

bool config_value_parse_integer(const char *text, int64_t *number) {
  char *end;
  errno = 0;
  *number = strtoll(text, &end, 10);
  return errno == 0 && end != text && *end == '\0' && !isspace((unsigned char)*text);
}

static bool text_is_of(const char *text, size_t len, const char *allowed) {
  for (size_t i = 0; i < len; i++) {
    if (!isalnum((unsigned char)text[i]) && strchr(allowed, text[i]) == NULL) {
      return false;
    }
  }
  return len > 0;
}

bool config_value_is_address(const char *text, int64_t min_port) {
  const char *colon = strrchr(text, ':');
  int64_t port;
  if (colon == NULL || !isdigit((unsigned char)colon[1]) ||
      !config_value_parse_integer(colon + 1, &port) || port < min_port || port > 65535) {
    return false;
  }
  size_t host_len = (size_t)(colon - text);
  if (text[0] == '[') {  // IPv6
    return host_len > 2 && text[host_len - 1] == ']' && text_is_of(text + 1, host_len - 2, ":.%");
  }
  return text_is_of(text, host_len, ".-_");
}

bool config_value_next_address(const char **rest, char *address, size_t size) {
  size_t len;
  do {
    *rest += strspn(*rest, ", ");
    len = strcspn(*rest, ", ");
    snprintf(address, size, "%.*s", (int)len, *rest);
    *rest += len;
  } while (len >= size);
  return len > 0;
}

const char *config_value_skip_scheme(const char *text, bool *tls) {
  *tls = strncmp(text, "https://", 8) == 0;
  return *tls ? text + 8 : strncmp(text, "http://", 7) == 0 ? text + 7 : text;
}

bool config_value_is_url(const char *text) {
  bool tls;
  const char *host = config_value_skip_scheme(text, &tls);
  size_t host_len = strcspn(host, "/");
  char address[ADDRESS_MAX_BYTES + 1];
  bool has_port = memchr(host, ':', host_len) && host[host_len - 1] != ']';
  if (host == text || host_len + sizeof ":80" > sizeof address) {
    return false;
  }
  snprintf(address, sizeof address, "%.*s%s", (int)host_len, host, has_port ? "" : ":80");
  return config_value_is_address(address, 1) &&
         (host[host_len] == '\0' || text_is_of(host + host_len, strlen(host + host_len), "/._-~%"));
}

bool config_value_is_addresses(const char *text, int64_t min_port, bool urls) {
  char one[ADDRESS_MAX_BYTES + 1];
  size_t count = 0;
  while (config_value_next_address(&text, one, sizeof one)) {
    bool tls;
    const char *address = urls ? config_value_skip_scheme(one, &tls) : one;
    if (!config_value_is_address(address, min_port)) {
      return false;
    }
    count++;
  }
  return count > 0;
}

bool config_value_is_method(const char *text) {
  const char *slash = strrchr(text, '/');
  return text[0] == '/' && slash != text &&
         text_is_of(text + 1, (size_t)(slash - text - 1), "._") &&
         text_is_of(slash + 1, strlen(slash + 1), "_");
}

int config_value_parse_choice(const char *choices, const char *text) {
  size_t len = strlen(text);
  for (int i = 0;; i++) {
    size_t choice_len = strcspn(choices, "|");
    if (choice_len == len && memcmp(choices, text, len) == 0) {
      return i;
    }
    if (choices[choice_len] == '\0') {
      return -1;
    }
    choices += choice_len + 1;
  }
}

void config_value_print_choice(const char *choices, int64_t number, char *buffer, size_t size) {
  while (number-- > 0) {
    choices += strcspn(choices, "|") + 1;
  }
  snprintf(buffer, size, "%.*s", (int)strcspn(choices, "|"), choices);
}

size_t config_value_distance(const char *a, const char *b) {
  size_t row[DISTANCE_MAX_BYTES + 1], b_len = strlen(b);
  if (b_len > DISTANCE_MAX_BYTES) {
    return SIZE_MAX;
  }
  for (size_t j = 0; j <= b_len; j++) {
    row[j] = j;
  }
  for (size_t i = 1; a[i - 1] != '\0'; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b_len; j++) {
      size_t best = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      best = best < row[j] + 1 ? best : row[j] + 1;
      row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
    }
  }
  return row[b_len];
}
