// The login of a session: its client's first message is checked (worker/handshake.h), the
// master is asked, and the client answered.
//
// A client that has passed its handshake waits for the master's word before it is
// answered: so the master has it in its directory before it can know that it is in,
// and one player's sessions, whichever worker they are in, are judged in one place.
//
// Loop thread only. Each of these may close the session.
#ifndef JANUS_WORKER_LOGIN_H
#define JANUS_WORKER_LOGIN_H

#include <stddef.h>
#include <stdint.h>

#include "common/channel.h"

struct session;
struct worker;

// The client's first message.
void login_on_handshake(struct session *session, const uint8_t *bytes, size_t len);

// The session ends: if its handshake waits for its turn, it does no longer. Closes nothing.
void login_forget(struct session *session);

// The master's answer about a login.
void login_on_answer(struct worker *worker, const struct channel_login_answer *answer);

// The master is gone: those who wait for its answer are let in without.
// For a session whose admission was asked of a master that another one took over from.
void login_ask_again(struct session *session);
void login_admit_all(struct worker *worker);

#endif
