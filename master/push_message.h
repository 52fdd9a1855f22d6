// Pushes as protobuf has them, and as the hub does. Nothing of a body's data is copied.
#ifndef JANUS_MASTER_PUSH_MESSAGE_H
#define JANUS_MASTER_PUSH_MESSAGE_H

#include <stddef.h>

#include "common/error.h"
#include "master/push_hub.h"
#include "proto/push.pb-c.h"

typedef Broadcaster__Service__Push__V1__PushMessage PushMessage;

// For packing: a message with these bodies, and nothing else yet. ERROR_MEMORY.
int push_message_init(PushMessage *message, const struct push_body *bodies,
                      size_t count) MUST_CHECK;
void push_message_fini(PushMessage *message);

// From an unpacked message: malloc'd, for the caller to free; its data stays the message's.
// NULL when there are none, too many, or memory is out.
struct push_body *push_message_bodies(Broadcaster__Service__Push__V1__PushBody *const *bodies,
                                      size_t count);

#endif
