#include "tools/client/kcp_dialer.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/kcp/link.h"
#include "common/kcp_settings.h"
#include "common/timer_wheel.h"

enum {
  BATCH = 16,  // datagrams read or written in one call
  SLOT_BYTES = 2048,
  STREAMS_MAX = 256,         // of one connection
  WHEEL_GRANULARITY_MS = 2,  // finer than the wire's interval: a client's delay is measured
  LINGER_POLL_MS = 20,
};

struct kcp_stream {
  LIST_ENTRY(kcp_stream) entry;
  struct connection *connection;
  struct smux_stream *stream;  // NULL: the connection is at its end
  void *owner;
  bool is_idle;       // nobody's
  bool is_resuming;   // with the next flush
  bool has_told_end;  // to the owner, which has still to close it
};

LIST_HEAD(stream_list, kcp_stream);

struct connection {
  TAILQ_ENTRY(connection) entry;
  TAILQ_ENTRY(connection) dirty;  // while is_dirty
  struct stream_list streams;
  struct kcp_dialer *dialer;
  struct link *link;
  struct event readable;
  struct wheel_timer timer;
  int64_t give_up_ms;  // of one whose streams are all closed; 0: not yet
  size_t users;        // streams that are not idle
  int path_errno;
  bool is_dirty;
  bool is_failing;    // its streams are being told
  bool has_resuming;  // streams
};

TAILQ_HEAD(connection_list, connection);

struct batch {
  struct mmsghdr messages[BATCH];
  struct iovec pieces[BATCH];
  uint8_t bytes[BATCH][SLOT_BYTES];
  unsigned count;
};

struct kcp_dialer {
  struct event_base *base;
  const struct kcp_stream_events *events;
  struct link_settings settings;
  struct reed_solomon *code;
  unsigned idle_streams;
  struct connection_list connections;
  struct connection_list dirty;
  struct event *flush;  // made active while something is dirty
  struct event *tick;
  int64_t tick_ms;  // when that is due; TIMER_WHEEL_NEVER
  struct timer_wheel *wheel;
  struct batch in;
  struct batch out;
  uint8_t scratch[LINK_SCRATCH_BYTES];
};

static int64_t now_ms(void) { return clock_monotonic_us() / 1000; }

// --- Settings --------------------------------------------------------------------------------

int kcp_wire_parse_fec(const char *text, struct kcp_wire *wire) {
  unsigned data = 0;
  unsigned parity = 0;
  int end = 0;
  if (strcmp(text, "off") != 0) {
    bool is_pair = sscanf(text, "%3u+%3u%n", &data, &parity, &end) == 2 && text[end] == '\0';
    if (!is_pair || data == 0 || parity == 0 || data + parity > REED_SOLOMON_SHARDS_MAX) {
      return ERROR_INVALID;
    }
  }
  wire->has_fec = true;
  wire->data_shards = data;
  wire->parity_shards = parity;
  return 0;
}

int kcp_wire_parse_profile(const char *text, struct kcp_wire *wire) {
  wire->low_latency = strcmp(text, "low-latency") == 0;
  return wire->low_latency || strcmp(text, "default") == 0 ? 0 : ERROR_INVALID;
}

// The gateway's settings by default, but that a client may have more streams.
static bool set_up(struct kcp_dialer *dialer, const struct kcp_wire *wire) {
  struct config_kcp kcp;
  enum kcp_profile profile = wire->low_latency ? KCP_PROFILE_LOW_LATENCY : KCP_PROFILE_DEFAULT;
  if (config_kcp_of_profile(profile, &kcp) != 0) {
    return false;
  }
  unsigned data = wire->has_fec ? wire->data_shards : (unsigned)kcp.data_shards;
  unsigned parity = wire->has_fec ? wire->parity_shards : (unsigned)kcp.parity_shards;
  if (data > 0) {
    dialer->code = reed_solomon_new(data, parity);
    if (!dialer->code) {
      return false;
    }
  }
  dialer->idle_streams = wire->idle_streams;
  dialer->settings = kcp_settings_for_link(&kcp);
  dialer->settings.code = dialer->code;
  dialer->settings.scratch = dialer->scratch;
  dialer->settings.smux.client = true;
  dialer->settings.smux.streams_max = STREAMS_MAX;
  return true;
}

// --- Datagrams -------------------------------------------------------------------------------

static void batch_init(struct batch *batch) {
  for (unsigned i = 0; i < BATCH; i++) {
    batch->pieces[i] = (struct iovec){batch->bytes[i], SLOT_BYTES};
    batch->messages[i].msg_hdr = (struct msghdr){.msg_iov = &batch->pieces[i], .msg_iovlen = 1};
  }
}

static void note_path(struct connection *connection) {
  if (errno != EAGAIN && errno != EINTR) {
    connection->path_errno = errno;
  }
}

// What the socket does not take is lost, as it may be anywhere else on the way.
static void send_batch(struct connection *connection) {
  struct batch *batch = &connection->dialer->out;
  int fd = event_get_fd(&connection->readable);
  unsigned sent = 0;
  while (sent < batch->count) {
    int result =
        sendmmsg(fd, batch->messages + sent, batch->count - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (result < 0) {
      note_path(connection);
    }
    // An error is told of the first one: it may be of one sent before, so the next are tried.
    sent += result > 0 ? (unsigned)result : 1;
  }
  batch->count = 0;
}

static void on_output(const uint8_t *datagram, size_t len, void *owner) {
  struct connection *connection = owner;
  struct batch *batch = &connection->dialer->out;
  memcpy(batch->bytes[batch->count], datagram, len);
  batch->pieces[batch->count].iov_len = len;
  if (++batch->count == BATCH) {
    send_batch(connection);
  }
}

// --- What comes after anything done with a connection ----------------------------------------

static void make_clean(struct connection *connection) {
  if (connection->is_dirty) {
    connection->is_dirty = false;
    TAILQ_REMOVE(&connection->dialer->dirty, connection, dirty);
  }
}

static void disconnect(struct connection *connection) {
  make_clean(connection);
  timer_wheel_cancel(connection->dialer->wheel, &connection->timer);
  event_del(&connection->readable);
  link_free(connection->link);
  connection->link = NULL;
}

static void connection_free(struct connection *connection) {
  int fd = event_get_fd(&connection->readable);
  disconnect(connection);
  TAILQ_REMOVE(&connection->dialer->connections, connection, entry);
  close(fd);
  free(connection);
}

static void stream_free(struct kcp_stream *stream) {
  stream->connection->users -= !stream->is_idle;
  LIST_REMOVE(stream, entry);
  free(stream);
}

static void close_idle(struct connection *connection) {
  struct kcp_stream *stream = LIST_FIRST(&connection->streams);
  while (stream) {
    struct kcp_stream *next = LIST_NEXT(stream, entry);
    if (stream->is_idle) {
      if (stream->stream) {
        smux_close(stream->stream, true);
      }
      stream_free(stream);
    }
    stream = next;
  }
}

static struct kcp_stream *next_to_tell(struct connection *connection) {
  struct kcp_stream *stream;
  LIST_FOREACH(stream, &connection->streams, entry) {
    if (!stream->has_told_end) {
      return stream;
    }
  }
  return NULL;
}

// Its streams are told, and may close; the connection stays for those that do not.
static void fail(struct connection *connection, int error) {
  struct kcp_stream *stream;
  disconnect(connection);
  LIST_FOREACH(stream, &connection->streams, entry) { stream->stream = NULL; }
  close_idle(connection);
  connection->is_failing = true;
  while ((stream = next_to_tell(connection))) {
    stream->has_told_end = true;
    connection->dialer->events->on_ended(error, stream->owner);
  }
  connection->is_failing = false;
}

static void set_tick(struct kcp_dialer *dialer, int64_t now) {
  int64_t next_ms = timer_wheel_next(dialer->wheel);
  if (next_ms < dialer->tick_ms) {
    struct timeval after = clock_timeval(next_ms > now ? next_ms - now : 0);
    dialer->tick_ms = next_ms;
    event_add(dialer->tick, &after);
  }
}

// The connection may be gone after this.
static void go_on(struct connection *connection, int error, int64_t now) {
  struct kcp_dialer *dialer = connection->dialer;
  if (connection->link && error != 0) {
    fail(connection, error);
  }
  if (!connection->link) {
    if (connection->users == 0) {
      connection_free(connection);
    }
    return;
  }
  int64_t due_ms = link_due(connection->link, now);
  if (connection->give_up_ms > 0) {
    bool is_settled = !connection->is_dirty && link_is_settled(connection->link);
    if (is_settled || now >= connection->give_up_ms) {
      connection_free(connection);
      return;
    }
    due_ms = due_ms < connection->give_up_ms ? due_ms : connection->give_up_ms;
  }
  timer_wheel_set(dialer->wheel, &connection->timer, due_ms);
  set_tick(dialer, now);
}

static struct kcp_stream *next_to_resume(struct connection *connection) {
  struct kcp_stream *stream;
  LIST_FOREACH(stream, &connection->streams, entry) {
    if (stream->is_resuming) {
      return stream;
    }
  }
  return NULL;
}

// Each may close any of them.
static void resume(struct connection *connection) {
  struct kcp_stream *stream;
  connection->has_resuming = false;
  while ((stream = next_to_resume(connection))) {
    stream->is_resuming = false;
    smux_resume(stream->stream);
  }
}

static int flush(struct connection *connection, int64_t now) {
  if (connection->has_resuming) {
    resume(connection);
  }
  make_clean(connection);
  if (connection->give_up_ms == 0 && connection->users == 0) {
    close_idle(connection);  // which end with those that were used
    connection->give_up_ms = now + KCP_DIALER_LINGER_MS;
  }
  int error = link_flush(connection->link, now);
  send_batch(connection);
  return error;
}

static void on_dirty(void *owner) {
  struct connection *connection = owner;
  struct kcp_dialer *dialer = connection->dialer;
  if (connection->is_dirty) {
    return;
  }
  if (TAILQ_EMPTY(&dialer->dirty)) {
    event_active(dialer->flush, EV_TIMEOUT, 0);
  }
  connection->is_dirty = true;
  TAILQ_INSERT_TAIL(&dialer->dirty, connection, dirty);
}

static void flush_all(struct kcp_dialer *dialer) {
  int64_t now = now_ms();
  struct connection *connection;
  while ((connection = TAILQ_FIRST(&dialer->dirty))) {
    go_on(connection, flush(connection, now), now);
  }
}

static void on_flush(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  flush_all(argument);
}

// Takes in what is there, up to a batch, and answers it.
static void receive(struct connection *connection) {
  struct batch *batch = &connection->dialer->in;
  int fd = event_get_fd(&connection->readable);
  int count = recvmmsg(fd, batch->messages, BATCH, MSG_DONTWAIT, NULL);
  int64_t now = now_ms();
  int error = 0;
  if (count < 0) {
    note_path(connection);
    return;
  }
  connection->path_errno = 0;
  for (int i = 0; i < count && error == 0; i++) {
    error = link_input(connection->link, batch->bytes[i], batch->messages[i].msg_len, now);
  }
  if (error == 0 && connection->is_dirty) {
    error = flush(connection, now);
  }
  go_on(connection, error, now);
}

static void on_readable(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  receive(argument);
}

static void on_due(void *timer_owner) {
  struct connection *connection = timer_owner;
  int64_t now = now_ms();
  int error = link_tick(connection->link, now);
  send_batch(connection);
  go_on(connection, error, now);
}

static void advance(struct kcp_dialer *dialer) {
  dialer->tick_ms = TIMER_WHEEL_NEVER;
  timer_wheel_advance(dialer->wheel, now_ms());
  set_tick(dialer, now_ms());
}

static void on_tick(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  advance(argument);
}

// --- Streams ---------------------------------------------------------------------------------

static void *on_open(struct smux_stream *stream, void *owner) {
  (void)stream;
  (void)owner;
  return NULL;  // the gateway opens none
}

static size_t on_bytes(uint8_t *bytes, size_t len, void *stream_owner) {
  struct kcp_stream *stream = stream_owner;
  const struct kcp_stream_events *events = stream->connection->dialer->events;
  return stream->is_idle ? len : events->on_bytes(bytes, len, stream->owner);
}

static void on_ended(void *stream_owner) {
  struct kcp_stream *stream = stream_owner;
  if (!stream->is_idle) {
    stream->has_told_end = true;
    stream->connection->dialer->events->on_ended(0, stream->owner);
    return;
  }
  smux_close(stream->stream, true);
  stream_free(stream);
}

static void on_sent(void *stream_owner) { (void)stream_owner; }

static const struct link_events link_events = {
    on_output, on_dirty, {on_open, on_bytes, on_ended, on_sent}};

static struct kcp_stream *open_stream(struct connection *connection, bool is_idle, void *owner) {
  struct kcp_stream *stream = calloc(1, sizeof *stream);
  if (!stream) {
    errno = ENOMEM;
    return NULL;
  }
  stream->connection = connection;
  stream->owner = owner;
  stream->is_idle = is_idle;
  stream->stream = smux_open(link_smux(connection->link), stream);
  if (!stream->stream) {
    free(stream);
    errno = ENOBUFS;
    return NULL;
  }
  LIST_INSERT_HEAD(&connection->streams, stream, entry);
  connection->users += !is_idle;
  link_touch(connection->link);
  return stream;
}

int kcp_stream_write(struct kcp_stream *stream, const uint8_t *bytes, size_t len) {
  if (!stream->stream) {
    return 0;
  }
  int error = smux_write(stream->stream, bytes, len);
  link_touch(stream->connection->link);
  return error == ERROR_INVALID ? 0 : error;
}

size_t kcp_stream_unsent_bytes(const struct kcp_stream *stream) {
  if (!stream->stream) {
    return 0;
  }
  struct link_state state;
  link_describe(stream->connection->link, &state);
  return smux_queued_bytes(stream->stream) + state.kcp.unacked_bytes;
}

void kcp_stream_pause(struct kcp_stream *stream, bool paused) {
  struct connection *connection = stream->connection;
  if (!stream->stream) {
    return;
  }
  stream->is_resuming = !paused;
  if (paused) {
    smux_pause(stream->stream);
  } else {
    connection->has_resuming = true;
    link_touch(connection->link);
  }
}

int kcp_stream_path_errno(const struct kcp_stream *stream) {
  return stream->connection->path_errno;
}

void kcp_stream_close(struct kcp_stream *stream) {
  if (!stream) {
    return;
  }
  struct connection *connection = stream->connection;
  if (stream->stream) {
    smux_close(stream->stream, true);
    link_touch(connection->link);
  }
  stream_free(stream);
  if (!connection->link && !connection->is_failing && connection->users == 0) {
    connection_free(connection);
  }
}

// --- Connections -----------------------------------------------------------------------------

// A socket connected to the peer; -1 with errno.
static int open_socket(const struct sockaddr *address, socklen_t address_len,
                       struct in_addr source) {
  int fd = socket(address->sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return -1;
  }
  struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = source};
  bool has_source = address->sa_family == AF_INET && source.s_addr != INADDR_ANY;
  if ((has_source && bind(fd, (const struct sockaddr *)&from, sizeof from) != 0) ||
      connect(fd, address, address_len) != 0) {
    int kept = errno;
    close(fd);
    errno = kept;
    return -1;
  }
  return fd;
}

static struct connection *connect_to(struct kcp_dialer *dialer, const struct sockaddr *address,
                                     socklen_t address_len, struct in_addr source) {
  int fd = open_socket(address, address_len, source);
  if (fd < 0) {
    return NULL;
  }
  struct connection *connection = calloc(1, sizeof *connection);
  struct link *link = NULL;
  if (connection) {
    link = link_new(randombytes_random(), &dialer->settings, &link_events, connection, now_ms());
  }
  if (!link) {
    free(connection);
    close(fd);
    errno = ENOMEM;
    return NULL;
  }
  connection->dialer = dialer;
  connection->link = link;
  connection->timer.owner = connection;
  LIST_INIT(&connection->streams);
  TAILQ_INSERT_TAIL(&dialer->connections, connection, entry);
  event_assign(&connection->readable, dialer->base, fd, EV_READ | EV_PERSIST, on_readable,
               connection);
  if (event_add(&connection->readable, NULL) != 0) {
    connection_free(connection);
    errno = ENOMEM;
    return NULL;
  }
  return connection;
}

struct kcp_stream *kcp_dial(struct kcp_dialer *dialer, const struct sockaddr *address,
                            socklen_t address_len, struct in_addr source, struct kcp_stream *beside,
                            void *owner) {
  if (beside && beside->stream) {
    return open_stream(beside->connection, false, owner);
  }
  struct connection *connection = connect_to(dialer, address, address_len, source);
  if (!connection) {
    return NULL;
  }
  struct kcp_stream *stream = open_stream(connection, false, owner);
  for (unsigned i = 0; stream && i < dialer->idle_streams; i++) {
    open_stream(connection, true, NULL);  // it works without
  }
  if (!stream) {
    int kept = errno;
    connection_free(connection);
    errno = kept;
  }
  return stream;
}

// --- The whole -------------------------------------------------------------------------------

struct kcp_dialer *kcp_dialer_new(struct event_base *base, const struct kcp_wire *wire,
                                  const struct kcp_stream_events *events) {
  struct kcp_dialer *dialer = calloc(1, sizeof *dialer);
  if (!dialer) {
    return NULL;
  }
  dialer->base = base;
  dialer->events = events;
  dialer->tick_ms = TIMER_WHEEL_NEVER;
  TAILQ_INIT(&dialer->connections);
  TAILQ_INIT(&dialer->dirty);
  batch_init(&dialer->in);
  batch_init(&dialer->out);
  dialer->wheel = timer_wheel_new(WHEEL_GRANULARITY_MS, now_ms(), on_due);
  dialer->flush = evtimer_new(base, on_flush, dialer);
  dialer->tick = evtimer_new(base, on_tick, dialer);
  if (!dialer->wheel || !dialer->flush || !dialer->tick || !set_up(dialer, wire)) {
    kcp_dialer_free(dialer);
    return NULL;
  }
  return dialer;
}

// Those whose streams are all closed but which still have something under way.
static size_t poll_lingering(struct kcp_dialer *dialer, struct pollfd *fds, size_t most) {
  struct connection *connection;
  size_t count = 0;
  TAILQ_FOREACH(connection, &dialer->connections, entry) {
    if (connection->link && connection->give_up_ms > 0 && count < most) {
      fds[count++] = (struct pollfd){event_get_fd(&connection->readable), POLLIN, 0};
    }
  }
  if (count > 0) {
    poll(fds, (nfds_t)count, LINGER_POLL_MS);
  }
  return count;
}

static void linger(struct kcp_dialer *dialer) {
  int64_t until_ms = now_ms() + KCP_DIALER_LINGER_MS;
  size_t most = 0;
  struct connection *connection;
  flush_all(dialer);
  TAILQ_FOREACH(connection, &dialer->connections, entry) { most++; }
  struct pollfd *fds = most > 0 ? calloc(most, sizeof *fds) : NULL;
  while (fds && now_ms() < until_ms && poll_lingering(dialer, fds, most) > 0) {
    struct connection *next;
    for (connection = TAILQ_FIRST(&dialer->connections); connection; connection = next) {
      next = TAILQ_NEXT(connection, entry);
      if (connection->link && connection->give_up_ms > 0) {
        receive(connection);
      }
    }
    advance(dialer);
    flush_all(dialer);
  }
  free(fds);
}

void kcp_dialer_free(struct kcp_dialer *dialer) {
  if (!dialer) {
    return;
  }
  if (dialer->wheel && dialer->flush && dialer->tick) {
    linger(dialer);
  }
  struct connection *next;
  for (struct connection *at = TAILQ_FIRST(&dialer->connections); at; at = next) {
    next = TAILQ_NEXT(at, entry);
    close_idle(at);
    connection_free(at);
  }
  timer_wheel_free(dialer->wheel);
  if (dialer->flush) {
    event_free(dialer->flush);
  }
  if (dialer->tick) {
    event_free(dialer->tick);
  }
  reed_solomon_free(dialer->code);
  free(dialer);
}
