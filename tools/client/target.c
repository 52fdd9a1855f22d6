#include "tools/client/target.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

static const struct scheme {
  const char *prefix;
  bool tls;
  bool websocket;
  bool kcp;
} schemes[] = {
    {"tcp://", false, false, false}, {"tls://", true, false, false}, {"ws://", false, true, false},
    {"wss://", true, true, false},   {"kcp://", false, false, true},
};

static int resolve(struct client_target *target, const char *port, const char **detail) {
  struct addrinfo hints = {.ai_socktype = target->kcp ? SOCK_DGRAM : SOCK_STREAM,
                           .ai_flags = AI_NUMERICSERV};
  struct addrinfo *found;
  int failure = getaddrinfo(target->host, port, &hints, &found);
  if (failure != 0) {
    *detail = gai_strerror(failure);
    return ERROR_INVALID;
  }
  memcpy(&target->address, found->ai_addr, found->ai_addrlen);
  target->address_len = found->ai_addrlen;
  freeaddrinfo(found);
  return 0;
}

// Only what may stand in a request line, so that nothing can be slipped in behind it.
static bool is_path(const char *path) {
  for (const char *c = path; *c; c++) {
    if (*c <= ' ' || *c > '~' || *c == '#') {
      return false;
    }
  }
  return true;
}

static int take_path(struct client_target *target, const char *path, const char **detail) {
  if (*path != '\0' && !target->websocket) {
    *detail = "only ws:// and wss:// have a path";
    return ERROR_INVALID;
  }
  if (!is_path(path) || strlen(path) >= sizeof target->path) {
    *detail = "its path is too long, or not one of a URL";
    return ERROR_INVALID;
  }
  strcpy(target->path, *path ? path : "/");
  return 0;
}

int client_target_parse(const char *text, struct client_target *target, const char **detail) {
  *target = (struct client_target){0};
  for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
    if (strncmp(text, schemes[i].prefix, strlen(schemes[i].prefix)) == 0) {
      text += strlen(schemes[i].prefix);
      target->tls = schemes[i].tls;
      target->websocket = schemes[i].websocket;
      target->kcp = schemes[i].kcp;
      break;
    }
  }
  size_t authority_len = strcspn(text, "/?");
  char authority[sizeof target->authority];
  *detail = "it must be host:port, or tcp://, tls://, ws://, wss:// or kcp:// and host:port";
  if (authority_len >= sizeof authority) {
    return ERROR_INVALID;
  }
  memcpy(authority, text, authority_len);
  authority[authority_len] = '\0';
  char *colon = strrchr(authority, ':');
  if (!colon || colon[1] == '\0' || (size_t)(colon - authority) >= sizeof target->host) {
    return ERROR_INVALID;
  }
  *colon = '\0';
  const char *host = authority;
  size_t len = strlen(host);
  bool bracketed = len >= 2 && host[0] == '[' && host[len - 1] == ']';
  snprintf(target->host, sizeof target->host, "%.*s", (int)(bracketed ? len - 2 : len),
           bracketed ? host + 1 : host);
  if (target->host[0] == '\0') {
    strcpy(target->host, "127.0.0.1");
  }
  const char *around = strchr(target->host, ':') ? "[]" : "";
  snprintf(target->authority, sizeof target->authority, "%.1s%s%s:%s", around, target->host,
           *around ? around + 1 : "", colon + 1);
  int error = take_path(target, text + authority_len, detail);
  return error != 0 ? error : resolve(target, colon + 1, detail);
}
