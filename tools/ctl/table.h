// JSON as tables and lines for people.
#ifndef JANUS_TOOLS_CTL_TABLE_H
#define JANUS_TOOLS_CTL_TABLE_H

#include <jansson.h>
#include <stddef.h>

enum { CELL_BYTES = 192 };

enum cell {
  CELL_TEXT,
  CELL_NUMBER,
  CELL_TIME,
  CELL_DURATION,      // from tenths of a second on
  CELL_MILLISECONDS,  // each of them counts
  CELL_PERCENT,
  CELL_FLAG,
};

struct column {
  const char *title;
  const char *field;
  enum cell cell;
};

// "-" for what the answer does not have or leaves empty.
void cell_format(const json_t *value, enum cell cell, char text[CELL_BYTES]);

// Prints an array of objects with a line of titles; numbers to the right.
void table_print(const json_t *rows, const struct column *columns, size_t column_count,
                 const char *when_empty);
#define TABLE_PRINT(rows, columns, when_empty) \
  table_print(rows, columns, sizeof columns / sizeof *columns, when_empty)

// One value behind its title; some text behind it.
void line_print(const char *title, const json_t *value, enum cell cell);
void line_printf(const char *title, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
