#include "common/channel.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

enum { QUEUE_MAX_BYTES = 2 * CHANNEL_PUSHES_MAX_BYTES, TURN_US = 50 };

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
  size_t tail_max;  // bytes that may follow
};

#define TEXT(type, field) \
  { offsetof(struct type, field), sizeof(((struct type *)NULL)->field) }

static const struct message_form forms[CHANNEL_TYPE_END] = {
    [CHANNEL_READY] = {.size = 0},
    [CHANNEL_LOGIN] = {.size = sizeof(struct channel_login),
                       .texts = {TEXT(channel_login, session.color),
                                 TEXT(channel_login, session.address),
                                 TEXT(channel_login, session.transport)}},
    [CHANNEL_LOGIN_ANSWER] = {.size = sizeof(struct channel_login_answer)},
    [CHANNEL_SESSION_CLOSE] = {.size = sizeof(struct channel_session_close)},
    [CHANNEL_SESSION_CLOSED] = {.size = sizeof(struct channel_session_closed)},
    [CHANNEL_ROUTE_CLAIM] = {.size = sizeof(struct channel_route_claim),
                             .texts = {TEXT(channel_route_claim, color),
                                       TEXT(channel_route_claim, candidate),
                                       TEXT(channel_route_claim, dead)}},
    [CHANNEL_ROUTE_HELD] = {.size = sizeof(struct channel_route_held),
                            .texts = {TEXT(channel_route_held, color),
                                      TEXT(channel_route_held, address)}},
    [CHANNEL_ROUTE_RELEASED] = {.size = sizeof(struct channel_route_released),
                                .texts = {TEXT(channel_route_released, color)}},
    [CHANNEL_ROUTE_MOVED] = {.size = sizeof(struct channel_route_held),
                             .texts = {TEXT(channel_route_held, color),
                                       TEXT(channel_route_held, address)}},
    [CHANNEL_ROUTE_ANSWER] = {.size = sizeof(struct channel_route_answer),
                              .texts = {TEXT(channel_route_answer, address)}},
    [CHANNEL_PUSH] = {.size = sizeof(struct channel_push),
                      .texts = {TEXT(channel_push, color)},
                      .tail_max = CHANNEL_PUSH_RECEIVERS_MAX * sizeof(uint64_t) +
                                  CHANNEL_PUSH_PACKET_MAX_BYTES},
    [CHANNEL_REPORT_ASK] = {.size = sizeof(struct channel_report_ask)},
    [CHANNEL_SESSION_REPORT] = {.size = sizeof(struct channel_session_report)},
    [CHANNEL_PATH_REPORT] = {.size = sizeof(struct channel_path_report)},
    [CHANNEL_TUNNEL_REPORT] = {.size = sizeof(struct channel_tunnel_report),
                               .texts = {TEXT(channel_tunnel_report, state),
                                         TEXT(channel_tunnel_report, address)}},
    [CHANNEL_REPORT_END] = {.size = sizeof(struct channel_report_end)},
    [CHANNEL_WATCH] = {.size = sizeof(struct channel_watch)},
    [CHANNEL_WATCHED_PACKET] = {.size = sizeof(struct channel_watched_packet),
                                .texts = {TEXT(channel_watched_packet, address)}},
    [CHANNEL_SPANS] = {.size = sizeof(struct channel_spans), .tail_max = CHANNEL_SPANS_MAX_BYTES},
    [CHANNEL_REDIS_HEALTH] = {.size = sizeof(struct redis_link_health),
                              .texts = {TEXT(redis_link_health, last_error)}},
    [CHANNEL_BROADCAST_DONE] = {.size = sizeof(struct channel_broadcast_done)},
    [CHANNEL_SETTINGS] = {.size = sizeof(struct channel_settings),
                          .tail_max = CHANNEL_SETTINGS_MAX_BYTES},
    [CHANNEL_TLS_CHANGED] = {.size = 0},
    [CHANNEL_LOG_LEVELS] = {.size = sizeof(struct channel_log_levels)},
    [CHANNEL_LOG_REOPEN] = {.size = 0},
    [CHANNEL_HOLDING] = {.size = 0},
    [CHANNEL_SESSION_HERE] = {.size = sizeof(struct channel_session),
                              .texts = {TEXT(channel_session, color),
                                        TEXT(channel_session, address),
                                        TEXT(channel_session, transport)}},
    [CHANNEL_HOLD] = {.size = 0},
    [CHANNEL_RESUME] = {.size = 0},
    [CHANNEL_TAKE_OVER] = {.size = 0},
    [CHANNEL_DRAIN] = {.size = sizeof(struct channel_drain)},
    [CHANNEL_UNDRAIN] = {.size = 0},
    [CHANNEL_STOP] = {.size = 0},
};
_Static_assert(sizeof(struct channel_push) % sizeof(uint64_t) == 0, "receivers are aligned");

struct channel {
  struct bufferevent *buffer;
  struct event *next_turn;
  struct channel_events events;
  void *owner;
  struct evbuffer *kept_back;  // NULL: nothing is
  struct event *readable;      // while it is: descriptors may come
  int fds[CHANNEL_FDS];        // that came
  bool unbounded;              // nothing that is sent is too much
  bool paused;                 // by the owner: nothing is given out
  bool full;                   // what has come is still to be given out: no more is read
  bool over;                   // broken or freed: nothing more is read
  bool reading;                // messages are being given out,
  bool freed;                  // after which it is to be released
};

static bool size_fits(const struct header *header) {
  if (header->type == 0 || header->type >= CHANNEL_TYPE_END) {
    return false;
  }
  const struct message_form *form = &forms[header->type];
  return header->size >= form->size && header->size - form->size <= form->tail_max;
}

// Whether what is listed is as many spans, each of the size that it says.
static bool spans_fit(const struct channel_spans *spans, size_t tail) {
  const uint8_t *at = (const uint8_t *)(spans + 1);
  size_t left = tail;
  uint32_t count = 0;
  for (uint32_t size; left >= sizeof size; left -= size, at += size, count++) {
    memcpy(&size, at, sizeof size);
    left -= sizeof size;
    at += sizeof size;
    if (size > left) {
      return false;
    }
  }
  return left == 0 && spans->bytes == tail && spans->count == count;
}

// Returns what is wrong with it, or NULL.
static const char *find_fault(const struct header *header, const void *content) {
  const struct message_form *form = &forms[header->type];
  for (size_t i = 0; i < sizeof form->texts / sizeof form->texts[0]; i++) {
    const struct text_field *text = &form->texts[i];
    if (text->size > 0 && !memchr((const char *)content + text->offset, '\0', text->size)) {
      return "a text without an end";
    }
  }
  const struct channel_push *push = content;
  if (header->type == CHANNEL_PUSH &&
      (push->receiver_count > CHANNEL_PUSH_RECEIVERS_MAX ||
       header->size - form->size != push->receiver_count * sizeof(uint64_t) + push->packet_bytes)) {
    return "a push of another length than it says";
  }
  if (header->type == CHANNEL_SPANS && !spans_fit(content, header->size - form->size)) {
    return "spans of another length than they say";
  }
  const struct channel_settings *settings = content;
  if (header->type == CHANNEL_SETTINGS &&
      (settings->bytes == 0 || header->size - form->size != settings->bytes ||
       channel_settings_text(settings)[settings->bytes - 1] != '\0')) {
    return "settings of another length than they say";
  }
  return NULL;
}

// The owner may free the channel in answer.
static void channel_break(struct channel *channel, const char *why) {
  channel->over = true;
  bufferevent_disable(channel->buffer, EV_READ | EV_WRITE);
  channel->events.on_broken(why, channel->owner);
}

// Takes one message off the input and gives it to the owner.
static void take_message(struct channel *channel, struct evbuffer *input,
                         const struct header *header) {
  _Alignas(16) unsigned char small[512];
  unsigned char *content = header->size <= sizeof small ? small : malloc(header->size);
  if (!content) {
    channel_break(channel, "out of memory");
    return;
  }
  evbuffer_drain(input, sizeof *header);
  evbuffer_remove(input, content, header->size);
  const char *fault = find_fault(header, content);
  if (fault) {
    channel_break(channel, fault);
  } else {
    channel->events.on_message((enum channel_type)header->type, content, channel->owner);
  }
  if (content != small) {
    free(content);
  }
}

static void close_fds(struct channel *channel) {
  for (int i = 0; i < CHANNEL_FDS; i++) {
    if (channel->fds[i] >= 0) {
      close(channel->fds[i]);
      channel->fds[i] = -1;
    }
  }
}

static void release(struct channel *channel) {
  close_fds(channel);
  if (channel->readable) {
    event_free(channel->readable);
  }
  if (channel->kept_back) {
    evbuffer_free(channel->kept_back);
  }
  event_free(channel->next_turn);
  bufferevent_free(channel->buffer);
  free(channel);
}

static const struct timeval at_once = {0};

// No more is read than can be worked off; the rest waits where it came from.
static void set_full(struct channel *channel, bool full) {
  if (channel->full != full) {
    channel->full = full;
    if (channel->readable) {
      (void)!(full ? event_del(channel->readable) : event_add(channel->readable, NULL));
    } else {
      (full ? bufferevent_disable : bufferevent_enable)(channel->buffer, EV_READ);
    }
  }
}

static void give_out(struct channel *channel) {
  struct evbuffer *input = bufferevent_get_input(channel->buffer);
  int64_t until_us = clock_monotonic_us() + TURN_US;
  struct header header;

  bool full = false;
  channel->reading = true;
  while (!channel->over && !full &&
         evbuffer_copyout(input, &header, sizeof header) == (ev_ssize_t)sizeof header) {
    if (!size_fits(&header)) {
      channel_break(channel, "a message of no known type or size");
    } else if (evbuffer_get_length(input) < sizeof header + header.size) {
      break;
    } else if (channel->paused || clock_monotonic_us() >= until_us) {
      full = true;
    } else {
      take_message(channel, input, &header);
    }
  }
  channel->reading = false;
  if (!channel->over) {
    set_full(channel, full);
  }
  if (full && !channel->paused) {
    event_add(channel->next_turn, &at_once);
  }
  if (channel->freed) {
    release(channel);
  }
}

static void on_read(struct bufferevent *buffer, void *owner) {
  (void)buffer;
  give_out(owner);
}

static void on_next_turn(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  give_out(owner);
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
  for (int i = 0; i < CHANNEL_FDS; i++) {
    channel->fds[i] = -1;
  }
  evutil_make_socket_nonblocking(fd);
  channel->buffer = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
  channel->next_turn = evtimer_new(base, on_next_turn, channel);
  if (!channel->buffer || !channel->next_turn) {
    if (channel->next_turn) {
      event_free(channel->next_turn);
    }
    if (channel->buffer) {
      bufferevent_free(channel->buffer);
    } else {
      evutil_closesocket(fd);
    }
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
  channel->over = true;
  if (channel->reading) {
    channel->freed = true;
  } else {
    release(channel);
  }
}

void channel_pause(struct channel *channel) { channel->paused = true; }

void channel_resume(struct channel *channel) {
  channel->paused = false;
  event_add(channel->next_turn, &at_once);
}

void channel_gather(struct channel *channel) {
  if (!channel->over) {
    bufferevent_disable(channel->buffer, EV_WRITE);
  }
}

void channel_send_gathered(struct channel *channel) {
  if (!channel->over) {
    bufferevent_enable(channel->buffer, EV_WRITE);
  }
}

// Where what is sent goes.
static struct evbuffer *outgoing(const struct channel *channel) {
  return channel->kept_back ? channel->kept_back : bufferevent_get_output(channel->buffer);
}

int channel_send(struct channel *channel, enum channel_type type, const void *content) {
  struct header header = {.type = (uint32_t)type, .size = (uint32_t)forms[type].size};
  struct evbuffer *output = outgoing(channel);
  if (evbuffer_get_length(output) > QUEUE_MAX_BYTES && !channel->unbounded) {
    return ERROR_EXHAUSTED;
  }
  // Room first: half a message would break the channel.
  if (evbuffer_expand(output, sizeof header + header.size) != 0) {
    return ERROR_MEMORY;
  }
  evbuffer_add(output, &header, sizeof header);
  evbuffer_add(output, content, header.size);
  return 0;
}

size_t channel_push_bytes(size_t packet_bytes) {
  return sizeof(struct header) + sizeof(struct channel_push) + packet_bytes;
}

size_t channel_room(const struct channel *channel) {
  size_t queued = evbuffer_get_length(outgoing(channel));
  return queued < CHANNEL_PUSHES_MAX_BYTES ? CHANNEL_PUSHES_MAX_BYTES - queued : 0;
}

struct part {
  const void *bytes;
  size_t len;
};

// A message of these parts, if it has room among those that may not fill all.
static int send_listed(struct channel *channel, enum channel_type type, const struct part *parts,
                       size_t count) {
  struct header header = {.type = (uint32_t)type};
  struct evbuffer *output = outgoing(channel);
  for (size_t i = 0; i < count; i++) {
    header.size += (uint32_t)parts[i].len;
  }
  if (sizeof header + header.size > channel_room(channel)) {
    return ERROR_EXHAUSTED;
  }
  // Room first: half a message would break the channel.
  if (evbuffer_expand(output, sizeof header + header.size) != 0) {
    return ERROR_MEMORY;
  }
  evbuffer_add(output, &header, sizeof header);
  for (size_t i = 0; i < count; i++) {
    evbuffer_add(output, parts[i].bytes, parts[i].len);
  }
  return 0;
}

int channel_send_push(struct channel *channel, const struct channel_push *push,
                      const uint64_t *receivers, const uint8_t *packet) {
  const struct part parts[] = {{push, sizeof *push},
                               {receivers, push->receiver_count * sizeof *receivers},
                               {packet, push->packet_bytes}};
  return send_listed(channel, CHANNEL_PUSH, parts, sizeof parts / sizeof *parts);
}

int channel_send_spans(struct channel *channel, const struct channel_spans *spans,
                       const uint8_t *listed) {
  const struct part parts[] = {{spans, sizeof *spans}, {listed, spans->bytes}};
  return send_listed(channel, CHANNEL_SPANS, parts, sizeof parts / sizeof *parts);
}

int channel_send_settings(struct channel *channel, const char *text) {
  const struct channel_settings settings = {.bytes = strlen(text) + 1};
  const struct part parts[] = {{&settings, sizeof settings}, {text, settings.bytes}};
  return settings.bytes > CHANNEL_SETTINGS_MAX_BYTES
             ? ERROR_TOO_LARGE
             : send_listed(channel, CHANNEL_SETTINGS, parts, sizeof parts / sizeof *parts);
}

size_t channel_queued_bytes(const struct channel *channel) {
  return evbuffer_get_length(bufferevent_get_output(channel->buffer));
}

void channel_drain(struct channel *channel) {
  struct evbuffer *input = bufferevent_get_input(channel->buffer);
  struct header header;
  bufferevent_disable(channel->buffer, EV_READ);
  evbuffer_unfreeze(input, 0);  // what else may be added to it is what bufferevent reads
  while (evbuffer_read(input, bufferevent_getfd(channel->buffer), -1) > 0) {
  }
  channel->reading = true;
  while (!channel->over &&
         evbuffer_copyout(input, &header, sizeof header) == (ev_ssize_t)sizeof header &&
         size_fits(&header) && evbuffer_get_length(input) >= sizeof header + header.size) {
    take_message(channel, input, &header);
  }
  channel->reading = false;
  if (channel->freed) {
    release(channel);
  }
}

void channel_set_unbounded(struct channel *channel, bool unbounded) {
  channel->unbounded = unbounded;
}

// --- A new master ---------------------------------------------------------------------

// As bufferevent reads, but for the descriptors.
static void on_readable(evutil_socket_t fd, short what, void *owner) {
  struct channel *channel = owner;
  struct evbuffer *input = bufferevent_get_input(channel->buffer);
  char bytes[4096];
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(CHANNEL_FDS * sizeof(int))];
  struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  (void)what;
  ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (got <= 0) {
    channel_break(channel, got == 0 ? "closed by the peer" : "connection error");
    return;
  }
  const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len == CMSG_LEN(sizeof channel->fds)) {
    close_fds(channel);
    memcpy(channel->fds, CMSG_DATA(header), sizeof channel->fds);
  }
  evbuffer_unfreeze(input, 0);
  evbuffer_add(input, bytes, (size_t)got);
  evbuffer_freeze(input, 0);
  give_out(channel);
}

int channel_hold(struct channel *channel) {
  if (channel->kept_back) {
    return 0;
  }
  struct evbuffer *kept_back = evbuffer_new();
  struct event *readable =
      event_new(bufferevent_get_base(channel->buffer), bufferevent_getfd(channel->buffer),
                EV_READ | EV_PERSIST, on_readable, channel);
  int error = kept_back && readable ? channel_send(channel, CHANNEL_HOLDING, NULL) : ERROR_MEMORY;
  if (error != 0) {
    if (readable) {
      event_free(readable);
    }
    if (kept_back) {
      evbuffer_free(kept_back);
    }
    return error;
  }
  bufferevent_disable(channel->buffer, EV_READ);
  channel->readable = readable;
  channel->kept_back = kept_back;
  if (!channel->full) {
    event_add(readable, NULL);
  }
  return 0;
}

// Moves the messages of that type; the others are gone.
static void move_only(struct evbuffer *from, struct evbuffer *to, enum channel_type only) {
  struct header header;
  while (evbuffer_copyout(from, &header, sizeof header) == (ev_ssize_t)sizeof header) {
    size_t size = sizeof header + header.size;
    if (header.type == only) {
      evbuffer_remove_buffer(from, to, size);
    } else {
      evbuffer_drain(from, size);
    }
  }
}

void channel_resume_sending(struct channel *channel, enum channel_type only) {
  struct evbuffer *output = bufferevent_get_output(channel->buffer);
  if (!channel->kept_back) {
    return;
  }
  if (only == CHANNEL_TYPE_ALL) {
    evbuffer_add_buffer(output, channel->kept_back);
  } else {
    move_only(channel->kept_back, output, only);
  }
  evbuffer_free(channel->kept_back);
  channel->kept_back = NULL;
  event_free(channel->readable);
  channel->readable = NULL;
  if (!channel->full) {
    bufferevent_enable(channel->buffer, EV_READ);
  }
}

void channel_take_fds(struct channel *channel, int fds[CHANNEL_FDS]) {
  memcpy(fds, channel->fds, sizeof channel->fds);
  for (int i = 0; i < CHANNEL_FDS; i++) {
    channel->fds[i] = -1;
  }
}

int channel_send_take_over(int fd, const int fds[CHANNEL_FDS]) {
  struct header header = {.type = CHANNEL_TAKE_OVER};
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(CHANNEL_FDS * sizeof(int))] = {0};
  struct iovec part = {.iov_base = &header, .iov_len = sizeof header};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(CHANNEL_FDS * sizeof(int));
  memcpy(CMSG_DATA(rights), fds, CHANNEL_FDS * sizeof(int));
  return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)sizeof header ? 0 : ERROR_SYSTEM;
}

int channel_fd(const struct channel *channel) { return bufferevent_getfd(channel->buffer); }

size_t channel_message_size(enum channel_type type) { return forms[type].size; }

void channel_log_levels_now(struct channel_log_levels *levels) {
  for (int i = 0; i < LOG_MODULE_COUNT; i++) {
    levels->level[i] = (uint8_t)log_level_of((enum log_module)i);
  }
}

void channel_log_levels_take(const struct channel_log_levels *levels) {
  for (int i = 0; i < LOG_MODULE_COUNT; i++) {
    if (levels->level[i] <= LOG_LEVEL_ERROR) {
      log_set_level((enum log_module)i, (enum log_level)levels->level[i]);
    }
  }
}
