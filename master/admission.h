// Who may come in: asked by the workers for each client that has passed its handshake,
// and answered before the client is. Refuses a handshake that was sent before, and
// settles what happens when a player comes a second time (login.conflict).
//
// Who is admitted is in the directory when the answer goes out.
#ifndef JANUS_MASTER_ADMISSION_H
#define JANUS_MASTER_ADMISSION_H

#include <stdint.h>

#include "common/channel.h"
#include "common/config.h"
#include "common/counters.h"
#include "master/directory.h"

struct admission;

struct admission_options {
  const struct config *config;
  struct directory *directory;
  struct counters *counters;
  // The session has to give way to a newer one.
  void (*on_conflict)(const struct directory_session *session, void *owner);
  void *owner;
};

// All in options is borrowed for the life of the result. NULL when out of memory.
struct admission *admission_new(const struct admission_options *options);
void admission_free(struct admission *admission);  // accepts NULL

// A client of this worker wants to come in. *refusal is CHANNEL_LOGIN_ADMITTED, or a
// close reason. Returns the session as it stands in the directory, NULL if refused.
struct directory_session *admission_ask(struct admission *admission, int worker,
                                        const struct channel_login *login, int32_t *refusal);

#endif
