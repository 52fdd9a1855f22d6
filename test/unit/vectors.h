// Reads test/vectors.txt: lines "name = hex", some with a note in brackets after the
// name. Tests run from the top of the repository.
#ifndef JANUS_TEST_UNIT_VECTORS_H
#define JANUS_TEST_UNIT_VECTORS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VECTOR_MAX_BYTES = 1024 };

struct vector {
  char text[2 * VECTOR_MAX_BYTES + 1];  // what stands behind the "="
  uint8_t bytes[VECTOR_MAX_BYTES];      // the same as hex, if it is
  size_t len;
};

// The line that begins with name; ends the program when there is none.
static inline struct vector vector_read(const char *name) {
  static char line[8192];
  struct vector vector = {.len = 0};
  FILE *file = fopen("test/vectors.txt", "r");
  while (file && fgets(line, sizeof line, file)) {
    char *value = strstr(line, " = ");
    size_t name_len = strlen(name);
    if (!value || strncmp(line, name, name_len) != 0 || line[name_len] != ' ') {
      continue;
    }
    value += 3;
    value[strcspn(value, "\r\n")] = '\0';
    snprintf(vector.text, sizeof vector.text, "%s", value);
    unsigned byte;
    while (vector.len < VECTOR_MAX_BYTES && sscanf(value + 2 * vector.len, "%2x", &byte) == 1) {
      vector.bytes[vector.len++] = (uint8_t)byte;
    }
    fclose(file);
    return vector;
  }
  fprintf(stderr, "test/vectors.txt has no %s\n", name);
  exit(1);
}

#endif
