#include "master/push_access.h"

#include <inttypes.h>
#include <sodium.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/log.h"

#define LOG_MODULE LOG_MODULE_PUSH

// Compared as hashes, which are of one length: how long it takes tells nothing.
static bool token_is(const char *wanted, const char *given) {
  unsigned char hashes[2][crypto_generichash_BYTES];
  crypto_generichash(hashes[0], sizeof hashes[0], (const unsigned char *)wanted, strlen(wanted),
                     NULL, 0);
  crypto_generichash(hashes[1], sizeof hashes[1], (const unsigned char *)given, strlen(given), NULL,
                     0);
  return sodium_memcmp(hashes[0], hashes[1], sizeof hashes[0]) == 0;
}

static bool shows_token(const struct push_access *access, const char *authorization) {
  static const char scheme[] = "Bearer ";
  const char *wanted = access->secrets->push_token;
  if (wanted[0] == '\0') {
    return true;
  }
  return authorization && strncasecmp(authorization, scheme, sizeof scheme - 1) == 0 &&
         token_is(wanted, authorization + sizeof scheme - 1);
}

static bool is_allowed(const struct push_access *access, const char *peer) {
  uint8_t address[NETWORK_ADDRESS_BYTES];
  return network_parse_address(peer, address) == 0 &&
         networks_have(&access->config->push.allow, address);
}

enum push_access_result push_access_check(const struct push_access *access, const char *peer,
                                          const char *authorization) {
  static struct log_limit limit = {.kind = "push_denied"};
  uint64_t suppressed;
  bool allowed = is_allowed(access, peer);
  if (allowed && shows_token(access, authorization)) {
    return PUSH_ACCESS_GRANTED;
  }
  counters_add(access->counters, COUNTER_PUSH_ORDERS_DENIED, 1);
  if (log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
    log_warn("push_denied", "peer=%s why=\"%s\" suppressed=%" PRIu64, peer,
             allowed ? "no token, or a wrong one" : "the address is not in push.allow", suppressed);
  }
  return allowed ? PUSH_ACCESS_TOKEN : PUSH_ACCESS_ADDRESS;
}
