#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_loader.h"
#include "common/config_value.h"

enum { QUOTE_BYTES = 64 };  // of a bad value, in a fault

static void field_set_number(void *field, size_t size, int64_t number) {
  if (size == sizeof number) {
    memcpy(field, &number, sizeof number);
  } else if (size == sizeof(int32_t)) {
    int32_t narrow = (int32_t)number;
    memcpy(field, &narrow, sizeof narrow);
  }
}

static int64_t field_number(const void *field, size_t size) {
  int64_t number = 0;
  int32_t narrow;
  if (size == sizeof number) {
    memcpy(&number, field, sizeof number);
  } else if (size == sizeof narrow) {
    memcpy(&narrow, field, sizeof narrow);
    number = narrow;
  }
  return number;
}

bool loader_add_network(struct loader *loader, struct networks *networks, struct origin origin,
                        const char *name, const char *text, size_t len) {
  char one[NETWORK_TEXT_BYTES], quoted[QUOTE_BYTES];
  snprintf(one, sizeof one, "%.*s", (int)len, text);
  if (networks->count == NETWORKS_MAX) {
    loader_fault(loader, origin, name, "has more than %d networks", NETWORKS_MAX);
    return false;
  }
  if (len >= sizeof one || network_parse(one, &networks->networks[networks->count]) != 0) {
    loader_fault(loader, origin, name,
                 "must be addresses and networks, such as \"192.0.2.7\" or \"10.0.0.0/8\", not %s",
                 log_quote(quoted, sizeof quoted, text, len));
  } else {
    networks->count++;
  }
  return true;
}

// Those in text, with commas between them.
static void networks_set(struct loader *loader, struct networks *networks, struct origin origin,
                         const char *name, const char *text) {
  memset(networks, 0, sizeof *networks);
  for (text += strspn(text, ", "); *text != '\0'; text += strspn(text, ", ")) {
    size_t len = strcspn(text, ", ");
    if (!loader_add_network(loader, networks, origin, name, text, len)) {
      return;
    }
    text += len;
  }
}

// Whether each entry between the commas has something in it; or the list is empty.
static bool list_is_whole(const char *text) {
  size_t len = strlen(text);
  return len == 0 || (text[0] != ',' && text[len - 1] != ',' && strstr(text, ",,") == NULL);
}

// The text for a key, and where it stands.
struct entry {
  struct loader *loader;
  const struct key *key;
  struct origin origin;
  const char *name;
  const char *text;
  char quoted[QUOTE_BYTES];  // for a fault
};

#define FAULT(entry, ...) loader_fault((entry)->loader, (entry)->origin, (entry)->name, __VA_ARGS__)

// --- Numbers, and what is kept as one ------------------------------------------------

static void set_bool(const struct entry *entry, bool *field) {
  if (strcmp(entry->text, "true") != 0 && strcmp(entry->text, "false") != 0) {
    FAULT(entry, "must be true or false, not %s", entry->quoted);
  } else {
    *field = entry->text[0] == 't';
  }
}

static bool is_in_range(const struct key *key, int64_t number) {
  return number >= key->min && number <= key->max;
}

static void set_integer(const struct entry *entry, void *field) {
  const struct key *key = entry->key;
  int64_t number;
  if (config_value_parse_integer(entry->text, &number) && is_in_range(key, number)) {
    field_set_number(field, key->size, number);
  } else {
    bool plain = entry->text[strspn(entry->text, "-0123456789")] == '\0';
    FAULT(entry, "must be a whole number from %" PRId64 " to %" PRId64 ", not %s", key->min,
          key->max, plain ? entry->text : entry->quoted);
  }
}

static void set_duration(const struct entry *entry, void *field) {
  const struct key *key = entry->key;
  char least[32], most[32];
  int64_t ms;
  if (config_value_parse_duration(entry->text, &ms) && is_in_range(key, ms)) {
    field_set_number(field, key->size, ms);
  } else {
    FAULT(entry, "must be a duration from \"%s\" to \"%s\", a number with ms, s, m or h, not %s",
          config_value_print_duration(key->min, least, sizeof least),
          config_value_print_duration(key->max, most, sizeof most), entry->quoted);
  }
}

static void set_choice(const struct entry *entry, void *field) {
  const struct key *key = entry->key;
  int64_t number = config_value_parse_choice(key->choices, entry->text);
  if (number >= 0) {
    field_set_number(field, key->size, number);
  } else {
    FAULT(entry, "must be one of %s, not %s", key->choices, entry->quoted);
  }
}

// --- Text ----------------------------------------------------------------------------

// Whether it has the form that is wanted of its kind.
static bool has_form(const struct entry *entry) {
  const struct key *key = entry->key;
  const char *text = entry->text;
  switch (key->kind) {
    case KEY_ADDRESS:
      if (!(key->max == 1 && text[0] == '\0') && !config_value_is_address(text, key->min)) {
        FAULT(entry, "must be host:port, the port from %" PRId64 " to 65535, not %s", key->min,
              entry->quoted);
        return false;
      }
      return true;
    case KEY_ADDRESSES:
      if (!config_value_is_addresses(text, key->min, key->max == 1)) {
        FAULT(entry, "must be host:port%s, several separated by commas, not %s",
              key->max == 1 ? ", or http(s)://host:port" : "", entry->quoted);
        return false;
      }
      return true;
    case KEY_PATHS:
    case KEY_TEXTS:
      if (!list_is_whole(text)) {
        FAULT(entry, "must not have empty entries, as in %s", entry->quoted);
        return false;
      }
      return true;
    case KEY_METHOD:
      if (!config_value_is_method(text)) {
        FAULT(entry, "must be of the form /package.Service/Method, not %s", entry->quoted);
        return false;
      }
      return true;
    default: return true;
  }
}

static bool has_control_characters(const char *text) {
  for (; *text != '\0'; text++) {
    if ((unsigned char)*text < 0x20 || *text == 0x7f) {
      return true;
    }
  }
  return false;
}

static void set_text(const struct entry *entry, char *field) {
  const struct key *key = entry->key;
  size_t len = strlen(entry->text);
  if (!has_form(entry)) {
    return;
  }
  if (len >= key->size) {
    FAULT(entry, "must be shorter than %zu bytes", key->size);
  } else if (len < (size_t)key->min && key->kind == KEY_TEXT) {
    FAULT(entry, "must not be empty");
  } else if (has_control_characters(entry->text)) {
    FAULT(entry, "must not have control characters, as in %s", entry->quoted);
  } else {
    memset(field, 0, key->size);
    memcpy(field, entry->text, len);
  }
}

void loader_set(struct loader *loader, const struct key *key, void *base, struct origin origin,
                const char *name, const char *text) {
  void *field = (char *)base + key->offset;
  struct entry entry = {.loader = loader, .key = key, .origin = origin, .name = name, .text = text};
  log_quote(entry.quoted, sizeof entry.quoted, text, strlen(text));
  switch (key->kind) {
    case KEY_BOOL: set_bool(&entry, field); return;
    case KEY_INTEGER: set_integer(&entry, field); return;
    case KEY_DURATION: set_duration(&entry, field); return;
    case KEY_CHOICE: set_choice(&entry, field); return;
    case KEY_NETWORKS: networks_set(loader, field, origin, name, text); return;
    default: set_text(&entry, field); return;
  }
}

static void networks_text(const struct networks *networks, char *buffer, size_t size) {
  size_t len = 0;
  buffer[0] = '\0';
  for (size_t i = 0; i < networks->count && len < size; i++) {
    char one[NETWORK_TEXT_BYTES];
    len += (size_t)snprintf(buffer + len, size - len, "%s%s", i > 0 ? "," : "",
                            network_format(&networks->networks[i], one));
  }
}
_Static_assert((size_t)LOADER_VALUE_BYTES >= (size_t)NETWORKS_MAX * NETWORK_TEXT_BYTES,
               "a whole list fits");
_Static_assert((size_t)LOADER_VALUE_BYTES >= CONFIG_ADDRESSES_BYTES,
               "and the addresses of a large Cluster");

void key_text(const struct key *key, const void *base, char *buffer, size_t size) {
  const void *field = (const char *)base + key->offset;
  int64_t number = field_number(field, key->size);
  switch (key->kind) {
    case KEY_BOOL: snprintf(buffer, size, "%s", *(const bool *)field ? "true" : "false"); break;
    case KEY_INTEGER: snprintf(buffer, size, "%" PRId64, number); break;
    case KEY_DURATION: config_value_print_duration(number, buffer, size); break;
    case KEY_CHOICE: config_value_print_choice(key->choices, number, buffer, size); break;
    case KEY_NETWORKS: networks_text(field, buffer, size); break;
    default: snprintf(buffer, size, "%s", (const char *)field); break;
  }
}
