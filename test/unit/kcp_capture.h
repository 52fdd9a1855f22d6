// Reads test/kcp/NAME: the datagrams of a session, with who sent each and when. Tests run from
// the top of the repository.
#ifndef JANUS_TEST_UNIT_KCP_CAPTURE_H
#define JANUS_TEST_UNIT_KCP_CAPTURE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { KCP_CAPTURE_MAX = 64, KCP_CAPTURE_DATAGRAM_MAX_BYTES = 1500 };

struct kcp_capture_datagram {
  double ms;
  char from;  // C or S
  size_t len;
  uint8_t bytes[KCP_CAPTURE_DATAGRAM_MAX_BYTES];
};

struct kcp_capture {
  size_t count;
  struct kcp_capture_datagram datagrams[KCP_CAPTURE_MAX];
};

static inline void kcp_capture_read_line(struct kcp_capture *capture, const char *line) {
  struct kcp_capture_datagram *datagram = &capture->datagrams[capture->count];
  int hex_at = 0;
  if (sscanf(line, "%lfms %c len=%zu %n", &datagram->ms, &datagram->from, &datagram->len,
             &hex_at) != 3 ||
      hex_at == 0 || datagram->len > sizeof datagram->bytes) {
    fprintf(stderr, "not a datagram: %s", line);
    exit(1);
  }
  for (size_t i = 0; i < datagram->len; i++) {
    unsigned byte;
    if (sscanf(line + hex_at + 2 * i, "%2x", &byte) != 1) {
      fprintf(stderr, "shorter than it says: %s", line);
      exit(1);
    }
    datagram->bytes[i] = (uint8_t)byte;
  }
  capture->count++;
}

// Ends the program when the file can't be read.
static inline const struct kcp_capture *kcp_capture_read(const char *path) {
  static struct kcp_capture capture;
  static char line[2 * KCP_CAPTURE_DATAGRAM_MAX_BYTES + 64];
  FILE *file = fopen(path, "r");
  if (!file) {
    fprintf(stderr, "can't open %s\n", path);
    exit(1);
  }
  capture.count = 0;
  while (fgets(line, sizeof line, file) && capture.count < KCP_CAPTURE_MAX) {
    if (line[0] != '#') {
      kcp_capture_read_line(&capture, line);
    }
  }
  fclose(file);
  return &capture;
}

#endif
