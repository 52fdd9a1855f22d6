// The header of the PROXY protocol, version 1 or 2, with which a proxy begins a connection to
// tell whose it is (https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt). It is taken
// in piece by piece, and never more than it has: what follows belongs to the client.
//
// Pure functions.
#ifndef JANUS_WORKER_PROXY_HEADER_H
#define JANUS_WORKER_PROXY_HEADER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/error.h"

enum {
  PROXY_HEADER_MORE = 1,
  // Of one version 2 header, with its extensions; those are skipped.
  PROXY_HEADER_MAX_BYTES = 4096,
};

// Zeroed at first.
struct proxy_header {
  uint8_t bytes[108];  // the longest of version 1, or the beginning of version 2
  size_t len;          // that came, with those skipped
};

// How many bytes it takes next, at most.
size_t proxy_header_wanted(const struct proxy_header *header);

// Takes len bytes, not more than are wanted. PROXY_HEADER_MORE; or 0, when it is whole: then
// *address is the client's if the header tells it, and else as before (a health check by the
// proxy itself, a unix socket). ERROR_MALFORMED.
int proxy_header_take(struct proxy_header *header, const uint8_t *bytes, size_t len,
                      struct sockaddr_storage *address, socklen_t *address_len) MUST_CHECK;

#endif
