#include "tools/client/script.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/packet.h"
#include "tools/client/names.h"

enum {
  WORDS_MAX = 32,
  DATA_MAX_BYTES = 16 * 1024 * 1024,
};

const char script_help[] =
    "  send MOD SEQ [obj=N] [data=TEXT | hex=.. | file=PATH | size=N [random]] [version=N] "
    "[compress]\n"
    "  heartbeat                      send a heartbeat with the time of now\n"
    "  expect [mod=M] [seq=N] [obj=N] [data=TEXT | hex=.. | contains=TEXT] [size=N]\n"
    "         [compressed] [within=5s]\n"
    "                                 wait for a packet that matches all that is said; it is\n"
    "                                 taken, the others stay for a later expect\n"
    "  expect-logout [CODE] [within=5s]\n"
    "                                 wait for the gateway's logout message (0-5, or server,\n"
    "                                 waiting, unauthorized, conflicting-login,\n"
    "                                 admin-kick-out, banned)\n"
    "  expect-closed [within=5s]      wait until the gateway has closed the connection\n"
    "  wait MS                        (also 500ms, 2s) do nothing but show what comes\n"
    "  close                          close the connection\n"
    "  help                           show this list\n"
    "MOD is a number or system, dev, user, storage, hero, room; SEQ a number, or for system\n"
    "handshake, heartbeat, unexpected-error, logout.\n"
    "Several commands in a line are separated by `;`, quotes keep a TEXT together:\n"
    "  send user 1 data=\"hello, world\"; expect mod=user data=\"hello, world\" within=2s\n";

struct parser {
  const char *at;
  const char *end;
  unsigned line;
  char *fault;
  size_t fault_bytes;
};

__attribute__((format(printf, 2, 3))) static int fail(struct parser *parser, const char *format,
                                                      ...) {
  int used = snprintf(parser->fault, parser->fault_bytes, "line %u: ", parser->line);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(parser->fault + used, parser->fault_bytes - (size_t)used, format, arguments);
  va_end(arguments);
  return ERROR_INVALID;
}

int number_parse(const char *text, int64_t least, int64_t most, int64_t *number) {
  char *end;
  errno = 0;
  long long value = strtoll(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || isspace((unsigned char)*text) || value < least ||
      value > most) {
    return ERROR_INVALID;
  }
  *number = value;
  return 0;
}

int duration_parse(const char *text, bool bare_ms, int64_t *ms) {
  static const struct {
    const char *suffix;
    int64_t ms;
  } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}};
  char *end;
  errno = 0;
  double value = strtod(text, &end);
  if (errno != 0 || end == text || !(value >= 0 && value <= 1e9)) {
    return ERROR_INVALID;
  }
  if (*end == '\0' && bare_ms) {
    *ms = (int64_t)value;
    return 0;
  }
  for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
    if (strcmp(end, units[i].suffix) == 0) {
      *ms = (int64_t)(value * (double)units[i].ms);
      return 0;
    }
  }
  return ERROR_INVALID;
}

// --- Words -------------------------------------------------------------------

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  c = (char)tolower((unsigned char)c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// One escape behind a backslash, at parser->at. The character, or -1.
static int read_escape(struct parser *parser) {
  if (parser->at == parser->end) {
    return -1;
  }
  switch (*parser->at++) {
    case 'n': return '\n';
    case 't': return '\t';
    case 'r': return '\r';
    case '\\': return '\\';
    case '"': return '"';
    case 'x': {
      if (parser->end - parser->at < 2 || hex_digit(parser->at[0]) < 0 ||
          hex_digit(parser->at[1]) < 0) {
        return -1;
      }
      int value = hex_digit(parser->at[0]) * 16 + hex_digit(parser->at[1]);
      parser->at += 2;
      return value;
    }
    default: return -1;
  }
}

static bool ends_word(char c) {
  return c == ';' || c == '\n' || c == ' ' || c == '\t' || c == '\r';
}

// Reads one word at parser->at to out, which has room for all that is left. A NUL
// byte can come from an escape, so the length counts.
static int read_word(struct parser *parser, char *out, size_t *len) {
  size_t used = 0;
  while (parser->at < parser->end && !ends_word(*parser->at)) {
    char c = *parser->at++;
    if (c != '\'' && c != '"') {
      out[used++] = c;
      continue;
    }
    for (;;) {
      if (parser->at == parser->end) {
        return fail(parser, "a quote %c is not closed", c);
      }
      char inner = *parser->at++;
      if (inner == c) {
        break;
      }
      if (inner == '\\' && c == '"') {
        int escaped = read_escape(parser);
        if (escaped < 0) {
          return fail(parser, "an unknown escape: there are \\n \\t \\r \\\\ \\\" and \\xHH");
        }
        inner = (char)escaped;
      }
      parser->line += inner == '\n';
      out[used++] = inner;
    }
  }
  out[used] = '\0';
  *len = used;
  return 0;
}

struct word {
  char *text;
  size_t len;
};

// The words of the next command, in buffer; 0 of them at an empty one. Stands
// behind its separator afterwards.
static int read_words(struct parser *parser, char *buffer, struct word *words, size_t *count) {
  *count = 0;
  while (parser->at < parser->end) {
    char c = *parser->at;
    if (c == '#') {
      while (parser->at < parser->end && *parser->at != '\n') {
        parser->at++;
      }
    } else if (c == ' ' || c == '\t' || c == '\r') {
      parser->at++;
    } else if (c == '\n' || c == ';') {
      return 0;
    } else {
      if (*count == WORDS_MAX) {
        return fail(parser, "too many words");
      }
      struct word *word = &words[(*count)++];
      *word = (struct word){.text = buffer};
      int error = read_word(parser, buffer, &word->len);
      if (error != 0) {
        return error;
      }
      buffer += word->len + 1;
    }
  }
  return 0;
}

// --- Data --------------------------------------------------------------------

static int set_data(struct command *command, const char *bytes, size_t len) {
  free(command->data);
  command->data = malloc(len + 1);
  if (!command->data) {
    return ERROR_MEMORY;
  }
  memcpy(command->data, bytes, len);
  command->data_len = len;
  command->has_data = true;
  return 0;
}

static int set_hex(struct parser *parser, struct command *command, char *text, size_t len) {
  if (len % 2 != 0) {
    return fail(parser, "hex= needs two digits for each byte");
  }
  for (size_t i = 0; i < len / 2; i++) {
    int high = hex_digit(text[2 * i]);
    int low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) {
      return fail(parser, "hex= takes the digits 0-9 and a-f");
    }
    text[i] = (char)(high * 16 + low);
  }
  return set_data(command, text, len / 2);
}

static int set_file(struct parser *parser, struct command *command, const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) {
    return fail(parser, "%s: %s", path, strerror(errno));
  }
  char *bytes = malloc(DATA_MAX_BYTES + 1);
  size_t len = bytes ? fread(bytes, 1, DATA_MAX_BYTES + 1, file) : 0;
  int error = 0;
  if (!bytes) {
    error = ERROR_MEMORY;
  } else if (ferror(file)) {
    error = fail(parser, "%s: cannot be read", path);
  } else if (len > DATA_MAX_BYTES) {
    error = fail(parser, "%s: larger than %d bytes", path, DATA_MAX_BYTES);
  } else {
    error = set_data(command, bytes, len);
  }
  free(bytes);
  fclose(file);
  return error;
}

// size=N of a send: letters, which compress well, or with `random` bytes that do not.
static int fill_data(struct command *command, size_t len, bool random) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
  char *bytes = malloc(len + 1);
  if (!bytes) {
    return ERROR_MEMORY;
  }
  for (size_t i = 0; i < len; i++) {
    bytes[i] = random ? (char)(lrand48() >> 16) : letters[i % 26];
  }
  int error = set_data(command, bytes, len);
  free(bytes);
  return error;
}

// --- Arguments ---------------------------------------------------------------

// Which argument a command takes, as a bit for each.
enum {
  TAKES_MOD = 1,
  TAKES_SEQ = 2,
  TAKES_OBJ = 4,
  TAKES_DATA = 8,  // data, hex, file
  TAKES_SIZE = 16,
  TAKES_VERSION = 32,
  TAKES_COMPRESS = 64,
  TAKES_CONTAINS = 128,
  TAKES_COMPRESSED = 256,
  TAKES_WITHIN = 512,
};

struct command_form {
  const char *name;
  enum command_kind kind;
  size_t least_words;  // positional, without the name
  size_t most_words;
  unsigned takes;
};

static const struct command_form forms[] = {
    {"send", COMMAND_SEND, 2, 2,
     TAKES_OBJ | TAKES_DATA | TAKES_SIZE | TAKES_VERSION | TAKES_COMPRESS},
    {"heartbeat", COMMAND_HEARTBEAT, 0, 0, 0},
    {"expect", COMMAND_EXPECT, 0, 0,
     TAKES_MOD | TAKES_SEQ | TAKES_OBJ | TAKES_DATA | TAKES_SIZE | TAKES_CONTAINS |
         TAKES_COMPRESSED | TAKES_WITHIN},
    {"expect-logout", COMMAND_EXPECT_LOGOUT, 0, 1, TAKES_WITHIN},
    {"expect-closed", COMMAND_EXPECT_CLOSED, 0, 0, TAKES_WITHIN},
    {"wait", COMMAND_WAIT, 1, 1, 0},
    {"close", COMMAND_CLOSE, 0, 0, 0},
    {"help", COMMAND_HELP, 0, 0, 0},
};

static int set_mod(struct parser *parser, struct command *command, const char *text) {
  command->has_mod = true;
  return module_parse(text, &command->mod) == 0
             ? 0
             : fail(parser, "`%s` is neither a module's name nor a number", text);
}

static int set_seq(struct parser *parser, struct command *command, const char *text) {
  command->has_seq = true;
  return sequence_parse(command->has_mod ? command->mod : 0, text, &command->seq) == 0
             ? 0
             : fail(parser, "`%s` is not a sequence number", text);
}

// `random` belongs to the size, wherever it stands.
struct fill {
  bool wanted;
  bool random;
};

// One named argument: KEY=VALUE, or a flag.
static int set_named(struct parser *parser, const struct command_form *form,
                     struct command *command, struct fill *fill, struct word *word) {
  char *value = memchr(word->text, '=', word->len);
  size_t value_len = 0;
  if (value) {
    *value++ = '\0';
    value_len = word->len - (size_t)(value - word->text);
  }
  const char *key = word->text;
  int64_t number;
#define IS(name, bit, with_value) \
  ((form->takes & (unsigned)(bit)) && strcmp(key, name) == 0 && (value != NULL) == (with_value))
  if (IS("mod", TAKES_MOD, true)) {
    return set_mod(parser, command, value);
  }
  if (IS("seq", TAKES_SEQ, true)) {
    return set_seq(parser, command, value);
  }
  if (IS("obj", TAKES_OBJ, true)) {
    command->has_obj = true;
    return number_parse(value, INT64_MIN, INT64_MAX, &command->obj) == 0
               ? 0
               : fail(parser, "obj=%s is not a number", value);
  }
  if (IS("data", TAKES_DATA, true)) {
    return set_data(command, value, value_len);
  }
  if (IS("hex", TAKES_DATA, true)) {
    return set_hex(parser, command, value, value_len);
  }
  if (IS("file", TAKES_DATA, true)) {
    return set_file(parser, command, value);
  }
  if (IS("contains", TAKES_CONTAINS, true)) {
    command->contains = true;
    return set_data(command, value, value_len);
  }
  if (IS("size", TAKES_SIZE, true)) {
    if (number_parse(value, 0, DATA_MAX_BYTES, &number) != 0) {
      return fail(parser, "size=%s is not a number up to %d", value, DATA_MAX_BYTES);
    }
    command->has_size = true;
    command->size = (size_t)number;
    fill->wanted = command->kind == COMMAND_SEND;
    return 0;
  }
  if (IS("random", TAKES_VERSION, false)) {
    fill->random = true;
    return 0;
  }
  if (IS("version", TAKES_VERSION, true)) {
    if (number_parse(value, 0, INT64_MAX, &number) != 0) {
      return fail(parser, "version=%s is not a number", value);
    }
    command->version = (uint64_t)number;
    return 0;
  }
  if (IS("compress", TAKES_COMPRESS, false) || IS("compressed", TAKES_COMPRESSED, false)) {
    command->compress = true;
    return 0;
  }
  if (IS("within", TAKES_WITHIN, true)) {
    return duration_parse(value, false, &command->duration_ms) == 0
               ? 0
               : fail(parser, "within=%s: write it as 500ms or 5s", value);
  }
#undef IS
  return fail(parser, "`%s` has no argument `%s%s`", form->name, key, value ? "=" : "");
}

static int set_positional(struct parser *parser, struct command *command, size_t place,
                          const char *text) {
  switch (command->kind) {
    case COMMAND_SEND:
      return place == 0 ? set_mod(parser, command, text) : set_seq(parser, command, text);
    case COMMAND_EXPECT_LOGOUT:
      command->has_code = true;
      return logout_code_parse(text, &command->code) == 0
                 ? 0
                 : fail(parser, "`%s` is not a logout code", text);
    default:
      return duration_parse(text, true, &command->duration_ms) == 0
                 ? 0
                 : fail(parser, "`%s`: write the time as 500 (milliseconds), 500ms or 5s", text);
  }
}

static int set_arguments(struct parser *parser, const struct command_form *form,
                         struct command *command, struct word *words, size_t count) {
  struct fill fill = {0};
  size_t positional = 0;
  for (size_t i = 1; i < count; i++) {
    int error = 0;
    if (positional < form->most_words && !memchr(words[i].text, '=', words[i].len)) {
      error = set_positional(parser, command, positional++, words[i].text);
    } else {
      error = set_named(parser, form, command, &fill, &words[i]);
    }
    if (error != 0) {
      return error;
    }
  }
  if (positional < form->least_words) {
    return fail(parser,
                form->kind == COMMAND_SEND ? "`%s` needs a module and a sequence number"
                                           : "`%s` needs a time",
                form->name);
  }
  if (fill.wanted && command->has_data) {
    return fail(parser, "size= makes the data itself: leave out data=, hex= or file=");
  }
  if (fill.random && !fill.wanted) {
    return fail(parser, "`random` goes with size=N");
  }
  return fill.wanted ? fill_data(command, command->size, fill.random) : 0;
}

static int make_command(struct parser *parser, struct word *words, size_t count,
                        struct command **made) {
  for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
    if (strcmp(words[0].text, forms[i].name) != 0) {
      continue;
    }
    struct command *command = calloc(1, sizeof *command);
    if (!command) {
      return ERROR_MEMORY;
    }
    command->kind = forms[i].kind;
    command->line = parser->line;
    command->duration_ms = -1;
    int error = set_arguments(parser, &forms[i], command, words, count);
    if (error != 0) {
      command_free(command);
      return error;
    }
    *made = command;
    return 0;
  }
  return fail(parser, "there is no command `%s`; `help` lists them", words[0].text);
}

// --- All of it ---------------------------------------------------------------

static int parse_all(struct parser *parser, char *buffer, struct command **tail) {
  struct word words[WORDS_MAX];
  while (parser->at < parser->end) {
    const char *start = parser->at;
    size_t count;
    int error = read_words(parser, buffer, words, &count);
    if (error != 0) {
      return error;
    }
    if (count > 0) {
      error = make_command(parser, words, count, tail);
      if (error != 0) {
        return error;
      }
      start += strspn(start, " \t\r");
      (*tail)->text = strndup(start, (size_t)(parser->at - start));
      tail = &(*tail)->next;
    }
    if (parser->at < parser->end) {
      parser->line += *parser->at++ == '\n';
    }
  }
  return 0;
}

int script_parse(const char *text, size_t len, unsigned first_line, struct command **commands,
                 char *fault, size_t fault_bytes) {
  struct parser parser = {text, text + len, first_line, fault, fault_bytes};
  *commands = NULL;
  // Words without their quotes never take more room than with them, and each has
  // a separator behind it that its NUL takes the place of.
  char *buffer = malloc(len + 2);
  int error = buffer ? parse_all(&parser, buffer, commands) : ERROR_MEMORY;
  free(buffer);
  if (error == ERROR_MEMORY) {
    snprintf(fault, fault_bytes, "out of memory");
  }
  if (error != 0) {
    while (*commands) {
      struct command *next = (*commands)->next;
      command_free(*commands);
      *commands = next;
    }
    return ERROR_INVALID;
  }
  return 0;
}

void command_free(struct command *command) {
  if (command) {
    free(command->text);
    free(command->data);
    free(command);
  }
}
