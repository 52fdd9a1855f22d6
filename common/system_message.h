// The messages of module 1 that the gateway itself sends (client protocol, "after the
// handshake"). Pure functions, any thread.
#ifndef JANUS_COMMON_SYSTEM_MESSAGE_H
#define JANUS_COMMON_SYSTEM_MESSAGE_H

#include "common/close_reason.h"
#include "common/packet.h"

enum { SYSTEM_MESSAGE_MAX_BYTES = 256 };

// SCServerUnexpectedErr: what the client asked with mod and seq, or was to get, can't be
// served. text is cut where it is too long. The packet's data stands in data.
struct packet system_message_unexpected_error(int32_t mod, int32_t seq, const char *text,
                                              uint8_t data[SYSTEM_MESSAGE_MAX_BYTES]);

// SCServerLogout.
struct packet system_message_logout(enum logout_code code, uint8_t data[SYSTEM_MESSAGE_MAX_BYTES]);

#endif
