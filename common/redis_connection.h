// One connection to one Redis server: hiredis' formatter and parser on a libevent
// bufferevent. hiredis' own asynchronous client (0.14, as Debian 12 has it) knows
// neither TLS nor time limits, and its host look-up blocks; here none of that is so.
//
// Commands go out in the order in which they are given and are answered in that order.
// A connection that does not answer within the time limits, or says what can't be
// understood, is broken: every command under way is answered with NULL, and the owner
// makes a new one. Loop thread only.
#ifndef JANUS_COMMON_REDIS_CONNECTION_H
#define JANUS_COMMON_REDIS_CONNECTION_H

#include <event2/dns.h>
#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct redis_connection;

// What connections to the same servers share; all of it borrowed for their life.
struct redis_options {
  struct event_base *base;
  struct counters *counters;  // for the time that calls take; NULL: not kept
  struct evdns_base *dns;
  SSL_CTX *tls;             // NULL: without
  const char *server_name;  // that the certificate must be for; "": the host
  const char *username;     // "": the default user
  const char *password;     // "": none
  int64_t db;
  bool masters_only;  // a server that is no master is not taken
  int64_t dial_timeout_ms;
  int64_t read_timeout_ms;
  int64_t write_timeout_ms;
};

// reply is valid for the call; NULL when there was no answer.
typedef void redis_on_reply(const redisReply *reply, void *context);

struct redis_connection_events {
  // Connected, authenticated, and answering.
  void (*on_ready)(void *owner);
  // A message to a connection that has subscribed.
  void (*on_push)(const redisReply *reply, void *owner);
  // It is of no use any more. why is valid for the call; commands under way have been
  // answered. The owner is to free it (may do so here).
  void (*on_broken)(const char *why, void *owner);
};

// Starts to connect to host:port. NULL when out of memory.
struct redis_connection *redis_connection_new(const struct redis_options *options,
                                              const char *address,
                                              const struct redis_connection_events *events,
                                              void *owner);
// Commands under way are answered with NULL first. Accepts NULL; from callbacks too.
void redis_connection_free(struct redis_connection *connection);

bool redis_connection_ready(const struct redis_connection *connection);

// Queues a command, also before the connection is ready. on_reply, which may be NULL,
// comes later. ERROR_NOT_FOUND: the connection is broken; ERROR_EXHAUSTED: too much is
// under way; ERROR_MEMORY. In each of these on_reply never comes.
int redis_connection_send(struct redis_connection *connection, int argc, const char *const *argv,
                          const size_t *lens, redis_on_reply *on_reply, void *context) MUST_CHECK;
// The same for a command that is formatted already.
int redis_connection_send_text(struct redis_connection *connection, const char *text, size_t len,
                               redis_on_reply *on_reply, void *context) MUST_CHECK;
// SUBSCRIBE: the answer and all that follows comes through on_push.
int redis_connection_subscribe(struct redis_connection *connection, const char *channel) MUST_CHECK;
// From all channels; each says so by a push.
int redis_connection_unsubscribe(struct redis_connection *connection) MUST_CHECK;

#endif
