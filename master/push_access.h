// Who may push over gRPC and HTTP: those at an address of push.allow, who show the token of
// secret.conf (push_token) where there is one.
#ifndef JANUS_MASTER_PUSH_ACCESS_H
#define JANUS_MASTER_PUSH_ACCESS_H

#include "common/config.h"
#include "common/counters.h"

struct push_access {
  const struct config *config;
  const struct secrets *secrets;
  struct counters *counters;
};

enum push_access_result {
  PUSH_ACCESS_GRANTED,
  PUSH_ACCESS_ADDRESS,  // not from there
  PUSH_ACCESS_TOKEN,    // not without the right token
};

// peer is ip:port or an ip; authorization is the header's value, "Bearer ...", or NULL. What
// is denied is counted and logged.
enum push_access_result push_access_check(const struct push_access *access, const char *peer,
                                          const char *authorization) MUST_CHECK;

#endif
