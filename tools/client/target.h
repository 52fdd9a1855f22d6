// Where a client connects to, and over what: host:port, or a URL.
#ifndef JANUS_TOOLS_CLIENT_TARGET_H
#define JANUS_TOOLS_CLIENT_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "common/error.h"

enum { TARGET_HOST_BYTES = 256, TARGET_PATH_BYTES = 1024 };

struct client_target {
  struct sockaddr_storage address;
  socklen_t address_len;
  bool tls;
  bool websocket;
  bool kcp;
  char host[TARGET_HOST_BYTES];            // without brackets: what a certificate has to be for
  char authority[TARGET_HOST_BYTES + 16];  // host:port, as an HTTP request has it
  char path[TARGET_PATH_BYTES];            // of a WebSocket
};

// host:port (TCP), tcp://host:port, tls://host:port, ws://host:port/path,
// wss://host:port/path or kcp://host:port; the host may be [v6], or nothing for 127.0.0.1. Uses the
// blocking resolver: for start-up. ERROR_INVALID, with the reason in *detail.
int client_target_parse(const char *text, struct client_target *target,
                        const char **detail) MUST_CHECK;

#endif
