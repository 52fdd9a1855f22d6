#include "tools/client/names.h"

#include <stddef.h>
#include <strings.h>

#include "common/close_reason.h"
#include "common/packet.h"
#include "tools/client/script.h"

static const char *const modules[] = {
    [1] = "system", [2] = "dev", [3] = "user", [4] = "storage", [5] = "hero", [6] = "room"};
static const char *const system_sequences[] = {
    [1] = "handshake", [2] = "heartbeat", [3] = "unexpected-error", [4] = "logout"};

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static const char *name_of(const char *const *table, size_t count, int32_t number) {
  return number >= 0 && (size_t)number < count ? table[number] : NULL;
}

static int parse(const char *const *table, size_t count, const char *text, int32_t *number) {
  for (size_t i = 0; i < count; i++) {
    if (table[i] && strcasecmp(table[i], text) == 0) {
      *number = (int32_t)i;
      return 0;
    }
  }
  int64_t value;
  if (number_parse(text, INT32_MIN, INT32_MAX, &value) != 0) {
    return ERROR_INVALID;
  }
  *number = (int32_t)value;
  return 0;
}

const char *module_name(int32_t mod) { return name_of(modules, COUNT(modules), mod); }

const char *sequence_name(int32_t mod, int32_t seq) {
  return mod == MODULE_SYSTEM ? name_of(system_sequences, COUNT(system_sequences), seq) : NULL;
}

int module_parse(const char *text, int32_t *mod) {
  return parse(modules, COUNT(modules), text, mod);
}

int sequence_parse(int32_t mod, const char *text, int32_t *seq) {
  size_t count = mod == MODULE_SYSTEM ? COUNT(system_sequences) : 0;
  return parse(system_sequences, count, text, seq);
}

int logout_code_parse(const char *text, int32_t *code) {
  enum logout_code named = logout_code_named(text);
  *code = named;
  return named != LOGOUT_NONE ? 0 : parse(NULL, 0, text, code);
}
