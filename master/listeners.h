// The listening sockets: for each worker one of an SO_REUSEPORT group, bound and
// kept open by the master for good. When a worker dies its successor gets the
// same socket, and with it the clients that were waiting to be accepted.
//
// Of UDP (for KCP) too: there what a client sends comes to the same socket each time, by a hash of
// its address and port, until there are more or fewer sockets to choose from.
#ifndef JANUS_MASTER_LISTENERS_H
#define JANUS_MASTER_LISTENERS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/error.h"

struct listeners {
  int *fds;  // one for each place of a worker
  size_t count;
  size_t preferred;  // of these, the first; 0: strangers are among the group
  int type;          // SOCK_STREAM or SOCK_DGRAM
  bool disordered;   // the kernel may have those of UDP in another order than fds
  int backlog;
  char address[128];  // host:port as bound, also where port 0 was asked for
};

// Binds count sockets to addr (host:port). On failure why (size bytes) says what
// is wrong and what to do. ERROR_INVALID, ERROR_SYSTEM, ERROR_MEMORY.
int listeners_open(struct listeners *listeners, const char *addr, int backlog, size_t count,
                   char *why, size_t why_size) MUST_CHECK;
// The same as listener, one of the configuration's, says, with its options: what is accepted
// inherits them.
int listeners_open_for_clients(struct listeners *listeners, const struct config *config,
                               const struct config_listener *listener, size_t count, char *why,
                               size_t why_size) MUST_CHECK;
// The same, with one socket that nobody else can join: without SO_REUSEPORT.
int listeners_open_alone(struct listeners *listeners, const char *addr, int backlog, char *why,
                         size_t why_size) MUST_CHECK;
void listeners_close(struct listeners *listeners);

// Sockets that are open already, for whoever is the first to open addr for sockets of that type: it
// gets these, as many as there are, and more where it wants more. Its fds, malloc'd, are taken
// over.
void listeners_offer(const char *addr, const struct listeners *listeners);
// Closes those that nobody wanted.
void listeners_withdraw_offers(void);

// Clients are refused, as if nobody listened, until it is resumed; those who wait to be accepted
// too. The port stays ours. Those of UDP stay as they are: what the players send who are here comes
// to them, and it is for the workers to let nobody else in. resume: ERROR_SYSTEM, with errno.
void listeners_suspend(const struct listeners *listeners);
int listeners_resume(const struct listeners *listeners) MUST_CHECK;

// Options of the sockets that the listener has changed; what is accepted from now on has them.
// ERROR_SYSTEM.
int listeners_set_options(struct listeners *listeners, const struct config *config,
                          const struct config_listener *listener, char *why,
                          size_t why_size) MUST_CHECK;

// As many sockets more as it takes to have count, with the options of the first. No client comes to
// them until they are preferred. As listeners_open; ERROR_INVALID also where count would be fewer
// than are preferred and it can't be told which those would be.
int listeners_grow(struct listeners *listeners, const struct config *config,
                   const struct config_listener *listener, size_t count, char *why,
                   size_t why_size) MUST_CHECK;
// New clients come to the first count sockets only. The others still have those who came before,
// until listeners_shrink closes them. ERROR_SYSTEM.
int listeners_prefer(struct listeners *listeners, size_t count) MUST_CHECK;
// Of UDP none is closed: workers of places that are given up go on sending by theirs until their
// last player has left, and a place that comes again finds its own.
void listeners_shrink(struct listeners *listeners, size_t count);

#endif
