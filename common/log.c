#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log_output.h"

enum {
  LOG_MESSAGE_BYTES = 2048,  // the formatted fields; longer ones are cut
  LOG_WHO_BYTES = 64,
  LOG_LIMIT_PER_S = 10,
  LOG_LIMIT_BURST = 20,
  LOG_LIMIT_QUIET_MS = 1000,  // after which what was held back is told of without a further line
};

// Set once before there are threads, only read afterwards.
static struct {
  enum log_type type;
  char who[LOG_WHO_BYTES];  // as fields
} settings = {LOG_TYPE_TEXT, "process=janus"};

_Atomic unsigned char log_levels[LOG_MODULE_COUNT] = {
#define X(identifier, name) LOG_LEVEL_INFO,
    LOG_MODULES(X)
#undef X
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const module_names[] = {
#define X(identifier, name) name,
    LOG_MODULES(X)
#undef X
};

void log_setup(enum log_type type, enum log_level level, const char *who) {
  settings.type = type;
  snprintf(settings.who, sizeof settings.who, "process=%.*s%s%s", (int)strcspn(who, "="), who,
           strchr(who, '=') ? " " : "", strchr(who, '=') ? who : "");
  for (int i = 0; i < LOG_MODULE_COUNT; i++) {
    log_set_level((enum log_module)i, level);
  }
}

void log_set_type(enum log_type type) { settings.type = type; }

static int find_name(const char *const *names, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++) {
    if (strcmp(name, names[i]) == 0) {
      return (int)i;
    }
  }
  return -1;
}

bool log_level_from_name(const char *name, enum log_level *level) {
  int found = find_name(level_names, sizeof level_names / sizeof *level_names, name);
  if (found >= 0) {
    *level = (enum log_level)found;
  }
  return found >= 0;
}

bool log_module_from_name(const char *name, enum log_module *module) {
  int found = find_name(module_names, LOG_MODULE_COUNT, name);
  if (found >= 0) {
    *module = (enum log_module)found;
  }
  return found >= 0;
}

const char *log_level_name(enum log_level level) { return level_names[level]; }

const char *log_module_name(enum log_module module) { return module_names[module]; }

void log_set_level(enum log_module module, enum log_level level) {
  atomic_store_explicit(&log_levels[module], (unsigned char)level, memory_order_relaxed);
}

#define LOG_MODULE LOG_MODULE_LOG

// --- Building a line --------------------------------------------------------

// A bounded string: what no longer fits sets `full` and is left out.
struct line {
  char *at;
  char *end;
  bool full;
};

static void line_put(struct line *line, const char *bytes, size_t len) {
  if (line->full || len > (size_t)(line->end - line->at)) {
    line->full = true;
    return;
  }
  memcpy(line->at, bytes, len);
  line->at += len;
}

static void line_text(struct line *line, const char *text) { line_put(line, text, strlen(text)); }

static void line_time(struct line *line) {
  struct timespec now;
  struct tm utc;
  char text[32], stamp[48];
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(stamp, sizeof stamp, "%s.%03dZ", text, (int)(now.tv_nsec / 1000000));
  line_text(line, stamp);
}

// One byte inside a JSON string. Bytes beyond ASCII are taken as Latin-1, so that
// the line is valid JSON whatever they were.
static void line_json_byte(struct line *line, unsigned char byte) {
  char escape[8];
  if (byte == '"' || byte == '\\') {
    line_put(line, (char[]){'\\', (char)byte}, 2);
  } else if (byte < 0x20 || byte >= 0x7f) {
    snprintf(escape, sizeof escape, "\\u%04x", byte);
    line_text(line, escape);
  } else {
    line_put(line, (char[]){(char)byte}, 1);
  }
}

static void line_json_string(struct line *line, const char *text, size_t len) {
  line_text(line, "\"");
  for (size_t i = 0; i < len; i++) {
    line_json_byte(line, (unsigned char)text[i]);
  }
  line_text(line, "\"");
}

static int hex_digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// A quoted value as log_quote makes it; text stands after the opening quote.
// Returns what follows the closing one.
static const char *line_json_unquoted(struct line *line, const char *text) {
  line_text(line, "\"");
  while (*text != '\0' && *text != '"') {
    unsigned char byte = (unsigned char)*text++;
    if (byte == '\\' && *text == 'x' && hex_digit(text[1]) >= 0 && hex_digit(text[2]) >= 0) {
      byte = (unsigned char)(hex_digit(text[1]) * 16 + hex_digit(text[2]));
      text += 3;
    } else if (byte == '\\' && *text != '\0') {
      byte = (unsigned char)*text++;
    }
    line_json_byte(line, byte);
  }
  line_text(line, "\"");
  return *text == '"' ? text + 1 : text;
}

// A plain decimal integer that JSON can show as a number.
static bool is_integer(const char *text, size_t len) {
  if (len > 0 && *text == '-') {
    text++;
    len--;
  }
  if (len == 0 || len > 18 || (*text == '0' && len > 1)) {
    return false;
  }
  return strspn(text, "0123456789") >= len;
}

// The key=value fields of text as `,"key":value`; a field that no longer fits is
// left out whole, with all that follow it.
static void line_json_fields(struct line *line, const char *text) {
  while (*text != '\0') {
    text += strspn(text, " ");
    size_t key_len = strcspn(text, " =\"");
    if (*text == '\0') {
      return;
    }
    char *field = line->at;
    line_text(line, ",");
    if (key_len == 0 || text[key_len] != '=') {  // a bare word
      size_t word_len = strcspn(text, " ");
      line_text(line, "\"text\":");
      line_json_string(line, text, word_len);
      text += word_len;
    } else {
      line_json_string(line, text, key_len);
      line_text(line, ":");
      text += key_len + 1;
      if (*text == '"') {
        text = line_json_unquoted(line, text + 1);
      } else {
        size_t value_len = strcspn(text, " ");
        if (is_integer(text, value_len)) {
          line_put(line, text, value_len);
        } else {
          line_json_string(line, text, value_len);
        }
        text += value_len;
      }
    }
    if (line->full) {
      line->at = field;
      return;
    }
  }
}

static void line_json(struct line *line, const char *head, const char *message) {
  static const char tail[] = ",\"cut\":true";
  line->end -= sizeof tail;  // and room for the closing brace
  line_text(line, "{\"time\":\"");
  line_time(line);
  line_text(line, "\"");
  line_json_fields(line, head);
  line_json_fields(line, message);
  line->end += sizeof tail;
  if (line->full) {
    line->full = false;
    line_text(line, tail);
  }
  line_text(line, "}");
}

static void line_logfmt(struct line *line, const char *head, const char *message) {
  line_text(line, "time=");
  line_time(line);
  line_text(line, " ");
  line_text(line, head);
  if (*message != '\0') {
    line_text(line, " ");
    line_text(line, message);
  }
}

void log_line(enum log_module module, enum log_level level, const char *event, const char *format,
              ...) {
  int saved_errno = errno;
  char message[LOG_MESSAGE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  int len = vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (len < 0) {
    message[0] = '\0';
  }
  // A line stays one line, whatever got into it.
  for (char *c = message; *c != '\0'; c++) {
    if ((unsigned char)*c < 0x20 || *c == 0x7f) {
      *c = ' ';
    }
  }

  char head[LOG_WHO_BYTES + 192];
  char bytes[LOG_OUTPUT_LINE_BYTES];
  struct line line = {bytes, bytes + sizeof bytes - 1, false};
  snprintf(head, sizeof head, "level=%s %s module=%s event=%.80s", level_names[level], settings.who,
           module_names[module], event);
  if (settings.type == LOG_TYPE_JSON) {
    line_json(&line, head, message);
  } else {
    line_logfmt(&line, head, message);
  }
  *line.at++ = '\n';
  log_output_write(level, bytes, (size_t)(line.at - bytes));
  errno = saved_errno;
}

// --- Limits -----------------------------------------------------------------

// Those with a kind that have ever held a line back.
static struct log_limit *limits;

// By all of them, on any thread, since log_held_back was asked last.
static _Atomic uint64_t held_back;

uint64_t log_held_back(void) { return atomic_exchange(&held_back, 0); }

static void count_left_out(struct log_limit *limit) {
  limit->left_out++;
  atomic_fetch_add(&held_back, 1);
  if (limit->kind != NULL && !limit->listed) {
    limit->listed = true;
    limit->next = limits;
    limits = limit;
  }
}

void log_limits_tick(int64_t now_ms) {
  for (struct log_limit *limit = limits; limit != NULL; limit = limit->next) {
    if (limit->left_out > 0 && now_ms - limit->refilled_ms >= LOG_LIMIT_QUIET_MS) {
      log_warn("log_suppressed", "kind=%s count=%" PRIu64, limit->kind, limit->left_out);
      limit->left_out = 0;
    }
  }
}

bool log_limit_allow(struct log_limit *limit, int64_t now_ms, uint64_t *suppressed) {
  if (limit->refilled_ms == 0) {
    limit->tokens = LOG_LIMIT_BURST;
  } else if (now_ms > limit->refilled_ms) {
    limit->tokens += (double)(now_ms - limit->refilled_ms) * LOG_LIMIT_PER_S / 1000.0;
    if (limit->tokens > LOG_LIMIT_BURST) {
      limit->tokens = LOG_LIMIT_BURST;
    }
  }
  limit->refilled_ms = now_ms;
  if (limit->tokens < 1) {
    count_left_out(limit);
    *suppressed = 0;
    return false;
  }
  limit->tokens -= 1;
  *suppressed = limit->left_out;
  limit->left_out = 0;
  return true;
}

const char *log_quote(char *buffer, size_t size, const char *text, size_t len) {
  if (size < 3) {  // no room for the quotes
    if (size > 0) {
      buffer[0] = '\0';
    }
    return buffer;
  }
  size_t at = 0, room = size - 2;  // for the closing quote and the NUL
  buffer[at++] = '"';
  for (size_t i = 0; i < len; i++) {
    unsigned char byte = (unsigned char)text[i];
    char escaped[5];
    size_t escaped_len;
    if (byte == '"' || byte == '\\') {
      escaped_len = (size_t)snprintf(escaped, sizeof escaped, "\\%c", byte);
    } else if (byte < 0x20 || byte >= 0x7f) {
      escaped_len = (size_t)snprintf(escaped, sizeof escaped, "\\x%02x", byte);
    } else {
      escaped_len = (size_t)snprintf(escaped, sizeof escaped, "%c", byte);
    }
    if (escaped_len > room - at) {
      break;
    }
    memcpy(buffer + at, escaped, escaped_len);
    at += escaped_len;
  }
  buffer[at++] = '"';
  buffer[at] = '\0';
  return buffer;
}
