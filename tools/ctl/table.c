#include "tools/ctl/table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { COLUMNS_MAX = 70 };  // of stats: name, total, and each worker

static void duration_format(int64_t ms, char *text, size_t size) {
  int64_t s = ms / 1000;
  if (s >= 24 * 3600) {
    snprintf(text, size, "%" PRId64 "d%02" PRId64 "h", s / 86400, s / 3600 % 24);
  } else if (s >= 3600) {
    snprintf(text, size, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
  } else if (s >= 60) {
    snprintf(text, size, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
  } else {
    snprintf(text, size, "%" PRId64 ".%" PRId64 "s", s, ms / 100 % 10);
  }
}

void cell_format(const json_t *value, enum cell cell, char text[CELL_BYTES]) {
  int64_t number = json_integer_value(value);
  time_t seconds = (time_t)(number / 1000);
  struct tm utc;
  if (json_is_string(value) && json_string_length(value) > 0) {
    snprintf(text, CELL_BYTES, "%s", json_string_value(value));
    for (char *c = text; *c != '\0'; c++) {  // nothing that steers the terminal
      *c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
    }
  } else if (cell == CELL_FLAG) {
    snprintf(text, CELL_BYTES, "%s", json_is_true(value) ? "yes" : "no");
  } else if (cell == CELL_PERCENT && json_is_number(value)) {
    snprintf(text, CELL_BYTES, "%.1f %%", json_number_value(value));
  } else if (!json_is_integer(value)) {
    snprintf(text, CELL_BYTES, "-");
  } else if (cell == CELL_TIME && gmtime_r(&seconds, &utc) != NULL) {
    strftime(text, CELL_BYTES, "%Y-%m-%d %H:%M:%SZ", &utc);
  } else if (cell == CELL_DURATION) {
    duration_format(number, text, CELL_BYTES);
  } else if (cell == CELL_MILLISECONDS) {
    snprintf(text, CELL_BYTES, "%" PRId64 " ms", number);
  } else {
    snprintf(text, CELL_BYTES, "%" PRId64, number);
  }
}

void table_print(const json_t *rows, const struct column *columns, size_t column_count,
                 const char *when_empty) {
  size_t width[COLUMNS_MAX], i;
  char text[CELL_BYTES];
  const json_t *row;
  if (json_array_size(rows) == 0) {
    printf("%s\n", when_empty);
    return;
  }
  for (size_t c = 0; c < column_count; c++) {
    width[c] = strlen(columns[c].title);
    json_array_foreach(rows, i, row) {
      cell_format(json_object_get(row, columns[c].field), columns[c].cell, text);
      width[c] = strlen(text) > width[c] ? strlen(text) : width[c];
    }
  }
  for (size_t line = 0; line <= json_array_size(rows); line++) {
    for (size_t c = 0; c < column_count; c++) {
      bool right = columns[c].cell == CELL_NUMBER || columns[c].cell == CELL_DURATION;
      if (line == 0) {
        snprintf(text, sizeof text, "%s", columns[c].title);
      } else {
        cell_format(json_object_get(json_array_get(rows, line - 1), columns[c].field),
                    columns[c].cell, text);
      }
      // No blanks at the end of a line.
      int pad = c + 1 < column_count || right ? (int)width[c] : 0;
      printf("%s%*s", c == 0 ? "" : "  ", right ? pad : -pad, text);
    }
    printf("\n");
  }
}

void line_print(const char *title, const json_t *value, enum cell cell) {
  char text[CELL_BYTES];
  cell_format(value, cell, text);
  line_printf(title, "%s", text);
}

void line_printf(const char *title, const char *format, ...) {
  va_list arguments;
  printf("%-13s ", title);
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  printf("\n");
}
