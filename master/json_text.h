// Texts of others as JSON. Any thread.
#ifndef JANUS_MASTER_JSON_TEXT_H
#define JANUS_MASTER_JSON_TEXT_H

#include <jansson.h>

// A text of another program's, which need not be UTF-8. NULL when out of memory.
static inline json_t *json_foreign_text(const char *text) {
  json_t *string = json_string(text);
  return string ? string : json_string("(binary)");
}

#endif
