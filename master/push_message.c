#include "master/push_message.h"

#include <stdlib.h>

typedef Broadcaster__Service__Push__V1__PushBody PushBody;

int push_message_init(PushMessage *message, const struct push_body *bodies, size_t count) {
  broadcaster__service__push__v1__push_message__init(message);
  // The pointers, and behind them what they point to.
  // NOLINTNEXTLINE(bugprone-sizeof-expression): pointers are meant
  PushBody **pointers = malloc(count * (sizeof *pointers + sizeof **pointers));
  PushBody *all = (PushBody *)(void *)(pointers + count);
  if (!pointers) {
    return ERROR_MEMORY;
  }
  for (size_t i = 0; i < count; i++) {
    broadcaster__service__push__v1__push_body__init(&all[i]);
    all[i].data = (ProtobufCBinaryData){bodies[i].data_len, (uint8_t *)(uintptr_t)bodies[i].data};
    all[i].data_version = bodies[i].data_version;
    all[i].obj = bodies[i].obj;
    all[i].mod = bodies[i].mod;
    all[i].seq = bodies[i].seq;
    pointers[i] = &all[i];
  }
  message->bodies = pointers;
  message->n_bodies = count;
  return 0;
}

void push_message_fini(PushMessage *message) { free(message->bodies); }

struct push_body *push_message_bodies(PushBody *const *bodies, size_t count) {
  struct push_body *all =
      count > 0 && count <= PUSH_BODIES_MAX ? malloc(count * sizeof *all) : NULL;
  for (size_t i = 0; all && i < count; i++) {
    all[i] = (struct push_body){.data = bodies[i]->data.data,
                                .data_len = bodies[i]->data.len,
                                .data_version = bodies[i]->data_version,
                                .obj = bodies[i]->obj,
                                .mod = bodies[i]->mod,
                                .seq = bodies[i]->seq};
  }
  return all;
}
