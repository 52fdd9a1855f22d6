// Packets and events for people, or one JSON object a line for programs.
#ifndef JANUS_TOOLS_CLIENT_SHOW_H
#define JANUS_TOOLS_CLIENT_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/packet.h"

// How to show, and the time that the lines count from (show_now_ns).
struct show {
  bool json;
  int64_t start_ns;
};

struct show_packet {
  const char *event;  // "sent" or "received"
  const struct packet *packet;
  size_t wire_bytes;      // 0: not known
  size_t packed_bytes;    // of data as it came, where packet->compress is set
  bool with_compression;  // sent so
  int64_t answer_ns;      // since the message that it answers was sent; -1: not known
};

void show_packet(const struct show *show, const struct show_packet *shown);

// Another event: in JSON {"event": event, "text": text}.
__attribute__((format(printf, 3, 4))) void show_event(const struct show *show, const char *event,
                                                      const char *format, ...);

int64_t show_now_ns(void);

// The code of a logout message's data; -1 when it is malformed.
int32_t show_logout_code(const struct packet *packet);

#endif
