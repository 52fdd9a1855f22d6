// Which worker has which player: all sessions of this gateway, by connection and
// by uid. One player may have several.
#ifndef JANUS_MASTER_DIRECTORY_H
#define JANUS_MASTER_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/channel.h"
#include "common/error.h"

struct directory_session {
  struct channel_session session;
  int worker;
  int64_t renew_at_ms;                     // when its gateway route is to be renewed
  bool route_written;                      // that has been with Redis, since the login
  LIST_ENTRY(directory_session) same_uid;  // the latest first
  bool unwritten;                          // its write was dropped for want of room
  TAILQ_ENTRY(directory_session) due;      // all but the unwritten, by renew_at_ms; or those
  UT_hash_handle hh;                       // by connection
};

struct directory;

struct directory *directory_new(void);
void directory_free(struct directory *directory);

// NULL when out of memory or the connection is known already.
struct directory_session *directory_add(struct directory *directory,
                                        const struct channel_session *session, int worker);
struct directory_session *directory_find(struct directory *directory, uint64_t connection);
void directory_remove(struct directory *directory, struct directory_session *session);

// Whether a session of this uid and color is there.
bool directory_has_player(const struct directory *directory, int64_t uid, const char *color);

// The session that a push for the player goes to: of the client that came last, the oldest;
// NULL when the player is not here.
const struct directory_session *directory_session_of(const struct directory *directory,
                                                     int64_t uid);

// Whether it is the oldest of its siblings, the sessions of one player on one client.
bool directory_is_oldest_sibling(const struct directory_session *session);
// When the latest of its siblings logged in, or itself: wall clock.
int64_t directory_latest_since_ms(const struct directory *directory,
                                  const struct directory_session *session);

// Visits the sessions, of one uid or of all, until visit returns false. visit may
// remove the one it is shown.
typedef bool directory_visit(struct directory_session *session, void *context);
void directory_each_of(struct directory *directory, int64_t uid, directory_visit *visit,
                       void *context);
void directory_each(struct directory *directory, directory_visit *visit, void *context);

size_t directory_count(const struct directory *directory);

// The session whose gateway route is to be renewed first, NULL if there is none;
// and putting it at the end of that order.
struct directory_session *directory_first_due(struct directory *directory);
void directory_renewed(struct directory *directory, struct directory_session *session,
                       int64_t renew_at_ms);
// The write of its gateway route was dropped: it is not to be renewed, but written when there
// is room (then directory_renewed). The first of those, NULL if there is none.
void directory_put_off(struct directory *directory, struct directory_session *session);
struct directory_session *directory_first_unwritten(struct directory *directory);
// Makes the renewal of one player's, or of all, due now.
void directory_renew_player(struct directory *directory, int64_t uid, const char *color);
void directory_renew_all(struct directory *directory);

#endif
