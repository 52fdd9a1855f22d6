// Who may come in: asked by the workers for each client that has passed its handshake,
// and answered before the client is. Refuses a handshake that was sent before and whoever
// is banned, and settles what happens when a player comes a second time (login.conflict).
//
// Who is admitted is in the directory when the answer goes out.
#ifndef JANUS_MASTER_ADMISSION_H
#define JANUS_MASTER_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/channel.h"
#include "common/config.h"
#include "common/counters.h"
#include "master/bans.h"
#include "master/directory.h"
#include "master/other_gateways.h"

struct admission;

struct admission_options {
  const struct config *config;
  struct directory *directory;
  const struct bans *bans;
  struct other_gateways *others;  // NULL where there are none
  struct counters *counters;
  // The word on a login: CHANNEL_LOGIN_ADMITTED with the session as it stands in the
  // directory, or a close reason and NULL.
  void (*on_answer)(int worker, uint64_t connection, struct directory_session *session,
                    int32_t refusal, void *owner);
  // The session has to give way to a newer one.
  void (*on_conflict)(const struct directory_session *session, void *owner);
  // A route was taken for a player who has gone meanwhile.
  void (*on_unused_route)(int64_t uid, const char *color, void *owner);
  void *owner;
};

// All in options is borrowed for the life of the result. NULL when out of memory.
struct admission *admission_new(const struct admission_options *options);
void admission_free(struct admission *admission);  // accepts NULL; after redis_link_close

// A client of this worker wants to come in. on_answer comes once, maybe from inside.
void admission_ask(struct admission *admission, int worker, const struct channel_login *login);
// Whether a login of the player waits for Redis' word on his route, which may be taken already.
bool admission_expects(const struct admission *admission, int64_t uid, const char *color);
// A client that has not been answered yet is gone; all of a worker are.
void admission_cancel(struct admission *admission, int worker, uint64_t connection);
void admission_worker_gone(struct admission *admission, int worker);

#endif
