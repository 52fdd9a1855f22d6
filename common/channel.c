#include "common/channel.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNEL_QUEUE_MAX_BYTES = 16 << 20 };

struct header {
  uint32_t type;
  uint32_t size;
};

// A text field that must be terminated within its size.
struct text_field {
  size_t offset;
  size_t size;
};

struct message_form {
  size_t size;
  struct text_field texts[3];
};

#define TEXT(type, field) \
  { offsetof(struct type, field), sizeof(((struct type *)NULL)->field) }

static const struct message_form forms[CHANNEL_TYPE_END] = {
    [CHANNEL_READY] = {0, {{0, 0}}},
    [CHANNEL_LOGIN] = {sizeof(struct channel_login),
                       {TEXT(channel_login, session.color), TEXT(channel_login, session.address)}},
    [CHANNEL_LOGIN_ANSWER] = {sizeof(struct channel_login_answer), {{0, 0}}},
    [CHANNEL_SESSION_CLOSE] = {sizeof(struct channel_session_close), {{0, 0}}},
    [CHANNEL_SESSION_CLOSED] = {sizeof(struct channel_session_closed), {{0, 0}}},
    [CHANNEL_ROUTE_CLAIM] = {sizeof(struct channel_route_claim),
                             {TEXT(channel_route_claim, color),
                              TEXT(channel_route_claim, candidate),
                              TEXT(channel_route_claim, dead)}},
    [CHANNEL_ROUTE_HELD] = {sizeof(struct channel_route_held),
                            {TEXT(channel_route_held, color), TEXT(channel_route_held, address)}},
    [CHANNEL_ROUTE_RELEASED] = {sizeof(struct channel_route_released),
                                {TEXT(channel_route_released, color)}},
    [CHANNEL_ROUTE_MOVED] = {sizeof(struct channel_route_held),
                             {TEXT(channel_route_held, color), TEXT(channel_route_held, address)}},
    [CHANNEL_ROUTE_ANSWER] = {sizeof(struct channel_route_answer),
                              {TEXT(channel_route_answer, address)}},
    [CHANNEL_STOP] = {0, {{0, 0}}},
};

struct channel {
  struct bufferevent *buffer;
  struct channel_events events;
  void *owner;
  bool *freed;  // set while a callback runs, to learn that it freed the channel
};

static bool message_is_sound(const struct message_form *form, const void *content) {
  for (size_t i = 0; i < sizeof form->texts / sizeof form->texts[0]; i++) {
    const struct text_field *text = &form->texts[i];
    if (text->size > 0 && !memchr((const char *)content + text->offset, '\0', text->size)) {
      return false;
    }
  }
  return true;
}

// The owner may free the channel in answer: touch nothing afterwards.
static void channel_break(struct channel *channel, const char *why) {
  channel->freed = NULL;
  bufferevent_disable(channel->buffer, EV_READ | EV_WRITE);
  channel->events.on_broken(why, channel->owner);
}

static void on_read(struct bufferevent *buffer, void *owner) {
  struct channel *channel = owner;
  struct evbuffer *input = bufferevent_get_input(buffer);
  bool freed = false;

  channel->freed = &freed;
  for (;;) {
    struct header header;
    if (evbuffer_copyout(input, &header, sizeof header) < (ev_ssize_t)sizeof header) {
      break;
    }
    if (header.type == 0 || header.type >= CHANNEL_TYPE_END ||
        header.size != forms[header.type].size) {
      channel_break(channel, "a message of no known type or size");
      return;
    }
    if (evbuffer_get_length(input) < sizeof header + header.size) {
      break;
    }
    _Alignas(16) unsigned char content[sizeof(struct channel_route_claim)];
    _Static_assert(sizeof content >= sizeof(struct channel_login), "the largest message");
    evbuffer_drain(input, sizeof header);
    evbuffer_remove(input, content, header.size);
    if (!message_is_sound(&forms[header.type], content)) {
      channel_break(channel, "a text without an end");
      return;
    }
    channel->events.on_message((enum channel_type)header.type, content, channel->owner);
    if (freed) {
      return;
    }
  }
  channel->freed = NULL;
}

static void on_event(struct bufferevent *buffer, short what, void *owner) {
  (void)buffer;
  struct channel *channel = owner;
  channel_break(channel, what & BEV_EVENT_EOF ? "closed by the peer" : "connection error");
}

struct channel *channel_new(struct event_base *base, int fd, const struct channel_events *events,
                            void *owner) {
  struct channel *channel = calloc(1, sizeof *channel);
  if (!channel) {
    evutil_closesocket(fd);
    return NULL;
  }
  channel->events = *events;
  channel->owner = owner;
  evutil_make_socket_nonblocking(fd);
  channel->buffer = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
  if (!channel->buffer) {
    evutil_closesocket(fd);
    free(channel);
    return NULL;
  }
  bufferevent_setcb(channel->buffer, on_read, NULL, on_event, channel);
  bufferevent_enable(channel->buffer, EV_READ | EV_WRITE);
  return channel;
}

void channel_free(struct channel *channel) {
  if (!channel) {
    return;
  }
  if (channel->freed) {
    *channel->freed = true;
  }
  bufferevent_free(channel->buffer);
  free(channel);
}

int channel_send(struct channel *channel, enum channel_type type, const void *content) {
  struct header header = {.type = (uint32_t)type, .size = (uint32_t)forms[type].size};
  struct evbuffer *output = bufferevent_get_output(channel->buffer);
  if (evbuffer_get_length(output) > CHANNEL_QUEUE_MAX_BYTES) {
    return ERROR_EXHAUSTED;
  }
  if (evbuffer_add(output, &header, sizeof header) != 0 ||
      (header.size > 0 && evbuffer_add(output, content, header.size) != 0)) {
    return ERROR_MEMORY;
  }
  return 0;
}
