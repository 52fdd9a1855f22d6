// What janusctl top shows: two answers of `stats` compared, as lines of text, as a screen. Asks
// nobody and knows no terminal.
#ifndef JANUS_TOOLS_CTL_LOOK_H
#define JANUS_TOOLS_CTL_LOOK_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

// What there was between two answers of `stats`, seconds apart: {"seconds", "total", "workers"}.
// To be released; NULL when out of memory.
json_t *ctl_look_compare(const json_t *before, const json_t *now, double seconds);

// Such a look, with "sessions" and "complete" of an answer of `sessions` in it.
void ctl_look_print(FILE *out, const json_t *look);

// Over what is on the screen: as much of the text as it has room for, and below it the last line.
void ctl_look_paint(FILE *out, const char *text, const char *last, size_t columns, size_t lines);

#endif
