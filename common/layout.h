// Whether two builds understand each other's bytes: what master and workers say to one another, and
// the memory that they share. A master that takes over from another keeps its workers only then.
#ifndef JANUS_COMMON_LAYOUT_H
#define JANUS_COMMON_LAYOUT_H

#include <stdint.h>

// A number that differs when a message or a segment has another form. Pure.
uint64_t layout_id(void);

#endif
