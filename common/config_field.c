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

void loader_set(struct loader *loader, const struct key *key, void *base, struct origin origin,
                const char *name, const char *text) {
  void *field = (char *)base + key->offset;
  size_t len = strlen(text);
  int64_t number;
  char quoted[QUOTE_BYTES], least[32], most[32];
  log_quote(quoted, sizeof quoted, text, len);
  switch (key->kind) {
    case KEY_BOOL:
      if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
        loader_fault(loader, origin, name, "must be true or false, not %s", quoted);
        return;
      }
      *(bool *)field = text[0] == 't';
      return;
    case KEY_INTEGER:
      if (!config_value_parse_integer(text, &number) || number < key->min || number > key->max) {
        loader_fault(loader, origin, name,
                     "must be a whole number from %" PRId64 " to %" PRId64 ", not %s", key->min,
                     key->max, text[strspn(text, "-0123456789")] == '\0' ? text : quoted);
        return;
      }
      field_set_number(field, key->size, number);
      return;
    case KEY_DURATION:
      if (!config_value_parse_duration(text, &number) || number < key->min || number > key->max) {
        loader_fault(
            loader, origin, name,
            "must be a duration from \"%s\" to \"%s\", a number with ms, s, m or h, not %s",
            config_value_print_duration(key->min, least, sizeof least),
            config_value_print_duration(key->max, most, sizeof most), quoted);
        return;
      }
      field_set_number(field, key->size, number);
      return;
    case KEY_CHOICE:
      number = config_value_parse_choice(key->choices, text);
      if (number < 0) {
        loader_fault(loader, origin, name, "must be one of %s, not %s", key->choices, quoted);
        return;
      }
      field_set_number(field, key->size, number);
      return;
    case KEY_NETWORKS: networks_set(loader, field, origin, name, text); return;
    case KEY_ADDRESS:
      if (!(key->max == 1 && len == 0) && !config_value_is_address(text, key->min)) {
        loader_fault(loader, origin, name,
                     "must be host:port, the port from %" PRId64 " to 65535, not %s", key->min,
                     quoted);
        return;
      }
      break;
    case KEY_ADDRESSES:
      if (!config_value_is_addresses(text, key->min, key->max == 1)) {
        loader_fault(loader, origin, name,
                     "must be host:port%s, several separated by commas, not %s",
                     key->max == 1 ? ", or http(s)://host:port" : "", quoted);
        return;
      }
      break;
    case KEY_PATHS:
    case KEY_TEXTS:
      if (!list_is_whole(text)) {
        loader_fault(loader, origin, name, "must not have empty entries, as in %s", quoted);
        return;
      }
      break;
    case KEY_METHOD:
      if (!config_value_is_method(text)) {
        loader_fault(loader, origin, name, "must be of the form /package.Service/Method, not %s",
                     quoted);
        return;
      }
      break;
    default: break;
  }
  if (len >= key->size) {
    loader_fault(loader, origin, name, "must be shorter than %zu bytes", key->size);
    return;
  }
  if (len < (size_t)key->min && key->kind == KEY_TEXT) {
    loader_fault(loader, origin, name, "must not be empty");
    return;
  }
  for (size_t i = 0; i < len; i++) {
    if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
      loader_fault(loader, origin, name, "must not have control characters, as in %s", quoted);
      return;
    }
  }
  memset(field, 0, key->size);
  memcpy(field, text, len);
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
