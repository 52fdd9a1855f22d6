// How routes stand in Redis: `r_<service>_{<color>}_{<oid>}`, the braces literal, holds
// the `host:port` of whoever serves it, always with a time to live. The same for every
// program of the ecosystem, so nothing here is ours to change.
//
// Loop thread only, of master and workers alike.
#ifndef JANUS_COMMON_REDIS_ROUTES_H
#define JANUS_COMMON_REDIS_ROUTES_H

#include "common/redis_link.h"
#include "common/route_table.h"

// Every key of a route starts so.
#define REDIS_ROUTES_PREFIX "r_"

enum {
  // prefix, service, "_{", color, "}_{", oid, "}", NUL
  REDIS_ROUTES_KEY_BYTES = 2 + ROUTE_SERVICE_MAX_BYTES + 2 + ROUTE_COLOR_MAX_BYTES + 3 + 20 + 1 + 1,
};

// Writes the key; key->tier plays no part. Returns its length.
size_t redis_routes_key(const struct route_key *key, char text[REDIS_ROUTES_KEY_BYTES]);

struct redis_routes_name {
  char service[ROUTE_SERVICE_MAX_BYTES + 1];
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  int64_t oid;
};
// And back. ERROR_MALFORMED for anything that redis_routes_key does not write. A color may
// have braces and underscores; a service has no brace.
int redis_routes_parse_key(const char *text, size_t len, struct redis_routes_name *name) MUST_CHECK;

// Copies a value that is an address (ERROR_MALFORMED for any other).
int redis_routes_parse_value(const redisReply *value,
                             char address[ROUTE_ADDRESS_MAX_BYTES + 1]) MUST_CHECK;

// The command that reads a key and what is left of its time, in one; and its answer: 0;
// ERROR_NOT_FOUND: there is no route; ERROR_MALFORMED: what stands there is none;
// ERROR_BUSY: no answer, or an error. ttl_ms is negative for a key without an end.
enum { REDIS_ROUTES_READ_ARGC = 4, REDIS_ROUTES_READ_KEY = 3 };
void redis_routes_read_command(const char *key, size_t len,
                               const char *argv[REDIS_ROUTES_READ_ARGC],
                               size_t lens[REDIS_ROUTES_READ_ARGC]);
int redis_routes_parse_read(const redisReply *reply, char address[ROUTE_ADDRESS_MAX_BYTES + 1],
                            int64_t *ttl_ms) MUST_CHECK;

struct redis_routes_settled {
  int error;            // 0; ERROR_NOT_FOUND: Redis did not answer, or with an error
  const char *address;  // that the route names now
  int64_t ttl_ms;       // that is left to it
  bool lost;            // another's choice holds, not the candidate
  bool restored;        // there was none
  bool repaired;        // what stood there was no address, and was replaced
};
typedef void redis_routes_on_settled(const struct redis_routes_settled *settled, void *context);

// In one round trip: the route there is; or, where there is none, or it names dead, or
// what stands there is no address, candidate, which is set for ttl_ms. A route that names
// candidate already is prolonged to ttl_ms. dead may be "". on_settled comes later; never
// after an error returned here (those of redis_link_send).
int redis_routes_settle(struct redis_link *link, const struct route_key *key, const char *candidate,
                        int64_t ttl_ms, const char *dead, redis_routes_on_settled *on_settled,
                        void *context) MUST_CHECK;

// Sets a route, whatever it was: the reply is what stood there, text or nil. And removes it
// if it still names address.
int redis_routes_set(struct redis_link *link, const struct route_key *key, const char *address,
                     int64_t ttl_ms, redis_on_reply *on_reply, void *context) MUST_CHECK;
int redis_routes_remove(struct redis_link *link, const struct route_key *key, const char *address,
                        redis_on_reply *on_reply, void *context) MUST_CHECK;

#endif
