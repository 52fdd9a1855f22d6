#include "master/other_gateways.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/redis_routes.h"
#include "common/system_message.h"
#include "master/gateway_route.h"
#include "master/push_message.h"

#define LOG_MODULE LOG_MODULE_SESSION

enum {
  SESSIONS_MAX = 8,      // of one player that are looked at
  DOUBTS_MAX = 10000,    // players whose route is to be looked at again
  LOOK_AGAIN_MS = 5000,  // what is being settled between two gateways is settled by then
  NOTICES_MAX = 10000,   // players whose other gateway is still to hear of it
  NOTICE_TRIES = 10,     // one each second; a gateway that lives listens again by then
};

// A player whose route has been found to name another gateway.
struct doubt {
  TAILQ_ENTRY(doubt) link;
  int64_t uid;
  int64_t due_ms;
  char color[ROUTE_COLOR_MAX_BYTES + 1];
};

TAILQ_HEAD(doubts, doubt);

// What another gateway is to hear: that one of its players is here.
struct notice {
  TAILQ_ENTRY(notice) link;  // while it waits for the next try
  struct other_gateways *others;
  int64_t uid;
  int64_t since_ms;
  bool late;
  unsigned tries;
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  char gateway[ROUTE_ADDRESS_MAX_BYTES + 1];
};

TAILQ_HEAD(notices, notice);

struct other_gateways {
  struct other_gateways_options options;
  struct doubts doubts;  // by due_ms
  size_t doubt_count;
  struct notices unheard;
  size_t unheard_count;
};

// --- Who gives way ------------------------------------------------------------------

// The question where the player is, and who gives way if that is not here. Sessions that
// came later, or whose own route is not written when the answer comes, do not: their
// turn is when theirs is written. (It is asked over the connection that writes.)
struct whereabouts {
  struct other_gateways *others;
  int64_t uid;
  int64_t since_ms;  // of the other gateway's login, 0: it is later than any of these
  bool late;         // its route was written
  size_t count;
  uint64_t connections[SESSIONS_MAX];
  char color[ROUTE_COLOR_MAX_BYTES + 1];
};

static bool note_session(struct directory_session *session, void *context) {
  struct whereabouts *asked = context;
  if (strcmp(session->session.color, asked->color) == 0) {
    asked->connections[asked->count++] = session->session.connection;
  }
  return asked->count < SESSIONS_MAX;
}

// Logins that come so close together may be written in either order. But the clocks of two
// gateways are not trusted further than they have to be.
// Siblings stay or go together.
static bool came_later(const struct directory_session *session, const struct whereabouts *asked) {
  const struct directory *directory = asked->others->options.directory;
  int64_t later_ms = directory_latest_since_ms(directory, session) - asked->since_ms;
  return later_ms > 0 && (asked->late || later_ms < ROUTE_LATE_MS);
}

static void on_found(int error, const char *address, int64_t ttl_ms, void *context) {
  struct whereabouts *asked = context;
  const struct other_gateways_options *options = &asked->others->options;
  (void)ttl_ms;
  bool elsewhere = error == 0 && strcmp(address, options->config->server.grpc.advertise) != 0;
  for (size_t i = 0; elsewhere && i < asked->count; i++) {
    const struct directory_session *session =
        directory_find(options->directory, asked->connections[i]);
    if (!session || !session->route_written) {
      continue;
    }
    if (came_later(session, asked)) {
      routes_player_stays(options->routes, session);
    } else {
      log_limited(LOG_LEVEL_INFO, "player_elsewhere", "connection=%" PRIu64 " uid=%lld gateway=%s",
                  asked->connections[i], (long long)asked->uid, address);
      options->on_conflict(session, options->owner);
    }
  }
  free(asked);
}

static void look(struct other_gateways *others, const struct login_elsewhere *elsewhere) {
  const char *color = elsewhere->color;
  const struct other_gateways_options *options = &others->options;
  struct whereabouts *asked = calloc(1, sizeof *asked);
  const struct route_key key = gateway_route_key(options->config, elsewhere->uid, color);
  if (!asked || strlen(color) >= sizeof asked->color) {
    free(asked);
    return;
  }
  asked->others = others;
  asked->uid = elsewhere->uid;
  asked->since_ms = elsewhere->since_ms;
  asked->late = elsewhere->late;
  strcpy(asked->color, color);
  directory_each_of(options->directory, asked->uid, note_session, asked);
  if (asked->count == 0 || routes_get(options->routes, &key, on_found, asked) != 0) {
    free(asked);
  }
}

void other_gateways_told(struct other_gateways *others, const struct login_elsewhere *elsewhere) {
  look(others, elsewhere);
}

// Not at once: the two gateways may be about to settle it.
void other_gateways_lost(struct other_gateways *others, int64_t uid, const char *color) {
  struct doubt *doubt = others->doubt_count < DOUBTS_MAX ? calloc(1, sizeof *doubt) : NULL;
  if (doubt && strlen(color) < sizeof doubt->color) {
    doubt->uid = uid;
    doubt->due_ms = clock_monotonic_ms() + LOOK_AGAIN_MS;
    strcpy(doubt->color, color);
    TAILQ_INSERT_TAIL(&others->doubts, doubt, link);
    others->doubt_count++;
  } else {
    free(doubt);  // it is found again at the next renewal
  }
}

static void drop_doubt(struct other_gateways *others, struct doubt *doubt) {
  TAILQ_REMOVE(&others->doubts, doubt, link);
  others->doubt_count--;
  free(doubt);
}

static void look_again(struct other_gateways *others) {
  int64_t now_ms = clock_monotonic_ms();
  struct doubt *doubt;
  // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
  while ((doubt = TAILQ_FIRST(&others->doubts)) && doubt->due_ms <= now_ms) {
    const struct login_elsewhere elsewhere = {.uid = doubt->uid, .color = doubt->color};
    look(others, &elsewhere);
    drop_doubt(others, doubt);
  }
}

// --- Telling the other gateway -----------------------------------------------------

// The length, 0 when it can't be had.
static size_t pack_notice(const struct notice *notice, uint8_t *bytes, size_t max) {
  uint8_t data[SYSTEM_MESSAGE_MAX_BYTES];
  int64_t uid = notice->uid;
  // For a gateway that does not know of LoginElsewhere, this is a push that logs out.
  const struct packet logout = system_message_logout(LOGOUT_CONFLICTING_LOGIN, data);
  const struct push_body body = {
      .data = logout.data, .data_len = logout.data_len, .mod = logout.mod, .seq = logout.seq};
  PushMessage message;
  Broadcaster__Service__Push__V1__LoginElsewhere content =
      BROADCASTER__SERVICE__PUSH__V1__LOGIN_ELSEWHERE__INIT;
  if (push_message_init(&message, &body, 1) != 0) {
    return 0;
  }
  content.uid = notice->uid;
  content.color = (char *)(uintptr_t)notice->color;
  content.since_ms = notice->since_ms;
  content.late = notice->late;
  message.elsewhere = &content;
  message.uids = &uid;
  message.n_uids = 1;
  size_t len = broadcaster__service__push__v1__push_message__get_packed_size(&message);
  if (len <= max) {
    broadcaster__service__push__v1__push_message__pack(&message, bytes);
  }
  push_message_fini(&message);
  return len <= max ? len : 0;
}

static void tell_later(struct notice *notice) {
  struct other_gateways *others = notice->others;
  if (++notice->tries < NOTICE_TRIES && others->unheard_count < NOTICES_MAX) {
    TAILQ_INSERT_TAIL(&others->unheard, notice, link);
    others->unheard_count++;
  } else {
    free(notice);  // if it lives, it finds out when it renews its route
  }
}

static void on_told(int64_t listeners, void *context) {
  struct notice *notice = context;
  if (listeners > 0) {
    free(notice);
  } else {
    tell_later(notice);  // it has lost its topic, as after an outage, or is gone
  }
}

static void tell(struct notice *notice) {
  const struct other_gateways_options *options = &notice->others->options;
  uint8_t bytes[256 + ROUTE_COLOR_MAX_BYTES];
  size_t len = pack_notice(notice, bytes, sizeof bytes);
  if (len == 0 ||
      push_topics_publish(options->topics, notice->gateway, bytes, len, on_told, notice) != 0) {
    tell_later(notice);
  }
}

void other_gateways_taken_over(struct other_gateways *others,
                               const struct route_taken_over *taken_over) {
  struct notice *notice = calloc(1, sizeof *notice);
  if (!notice || strlen(taken_over->color) >= sizeof notice->color ||
      strlen(taken_over->from) >= sizeof notice->gateway) {
    free(notice);
    return;
  }
  notice->others = others;
  notice->uid = taken_over->uid;
  notice->since_ms = taken_over->since_ms;
  notice->late = taken_over->late;
  strcpy(notice->color, taken_over->color);
  strcpy(notice->gateway, taken_over->from);
  tell(notice);
}

static void drop_notice(struct other_gateways *others, struct notice *notice) {
  TAILQ_REMOVE(&others->unheard, notice, link);
  others->unheard_count--;
}

static void tell_again(struct other_gateways *others) {
  // Those that are put off again stand behind the last of now.
  for (size_t left = others->unheard_count; left > 0; left--) {
    struct notice *notice = TAILQ_FIRST(&others->unheard);
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    drop_notice(others, notice);
    if (directory_has_player(others->options.directory, notice->uid, notice->color)) {
      tell(notice);
    } else {
      free(notice);
    }
  }
}

void other_gateways_tick(struct other_gateways *others) {
  look_again(others);
  tell_again(others);
}

// --- Refusing the second ---------------------------------------------------------------

struct asking {
  struct other_gateways *others;
  other_gateways_on_answer *on_answer;
  void *context;
  int64_t uid;
  bool looked;  // whether the other gateway lives
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  char holder[ROUTE_ADDRESS_MAX_BYTES + 1];
};

static void answer(struct asking *asking, bool may_come, bool route_written) {
  asking->on_answer(may_come, route_written, asking->context);
  free(asking);
}

static void on_settled(const struct redis_routes_settled *settled, void *context);

// Takes the route if there is none, or it is ours or the dead gateway's.
static int settle(struct asking *asking, const char *dead) {
  const struct other_gateways_options *options = &asking->others->options;
  const struct config *config = options->config;
  const struct route_key key = gateway_route_key(config, asking->uid, asking->color);
  return redis_routes_settle(options->link, &key, config->server.grpc.advertise,
                             config->data.gateway_route_table_alive_duration_ms, dead, on_settled,
                             asking);
}

// Nobody listens on the topic of a gateway that is gone. One that can't be asked counts as
// alive: its player is not to be thrown out.
static void on_published(int64_t listeners, void *context) {
  struct asking *asking = context;
  if (listeners != 0) {
    answer(asking, false, false);
  } else if (settle(asking, asking->holder) != 0) {
    answer(asking, true, false);
  }
}

static void on_settled(const struct redis_routes_settled *settled, void *context) {
  struct asking *asking = context;
  const struct other_gateways_options *options = &asking->others->options;
  if (settled->error != 0) {
    answer(asking, true, false);  // without Redis, each gateway for itself
  } else if (!settled->lost) {
    answer(asking, true, true);
  } else if (asking->looked) {
    answer(asking, false, false);  // another was quicker
  } else {
    asking->looked = true;
    strncpy(asking->holder, settled->address, sizeof asking->holder - 1);
    // An empty message is none; how many get it is what matters.
    if (push_topics_publish(options->topics, asking->holder, (const uint8_t *)"", 0, on_published,
                            asking) != 0) {
      answer(asking, true, false);
    }
  }
}

bool other_gateways_ask(struct other_gateways *others, int64_t uid, const char *color,
                        other_gateways_on_answer *on_answer, void *context) {
  struct asking *asking = calloc(1, sizeof *asking);
  if (!asking || strlen(color) >= sizeof asking->color) {
    free(asking);
    return false;
  }
  asking->others = others;
  asking->on_answer = on_answer;
  asking->context = context;
  asking->uid = uid;
  strcpy(asking->color, color);
  if (settle(asking, "") != 0) {
    free(asking);
    return false;
  }
  return true;
}

// --- Beginning and end -----------------------------------------------------------------

struct other_gateways *other_gateways_new(const struct other_gateways_options *options) {
  struct other_gateways *others = calloc(1, sizeof *others);
  if (others) {
    others->options = *options;
    TAILQ_INIT(&others->doubts);
    TAILQ_INIT(&others->unheard);
  }
  return others;
}

void other_gateways_free(struct other_gateways *others) {
  struct doubt *doubt;
  struct notice *notice;
  if (!others) {
    return;
  }
  while ((doubt = TAILQ_FIRST(&others->doubts))) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    drop_doubt(others, doubt);
  }
  while ((notice = TAILQ_FIRST(&others->unheard))) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    drop_notice(others, notice);
    free(notice);
  }
  free(others);
}
