// One player at one gateway: what happens when a player who is here comes to another
// gateway, or the other way round. (Within this gateway: admission.h.)
//
// Redis decides, by the gateway route: who writes it last has the player. Whoever writes
// over another gateway's route tells that gateway, on its topic; that one looks at the
// route itself before it closes anything, so that a message that is late or forged does no
// harm. One that nobody hears is said again for a while; after that, it is made up for when
// the other gateway renews its route.
//
// Where the order of writing says nothing about that of the logins (within a second, or
// while Redis was away) the later one wins, by the clocks of the gateways.
//
// With login.conflict = "refuse_second" the route is asked for first, and a player who is
// at another gateway that lives is not let in. Loop thread only.
#ifndef JANUS_MASTER_OTHER_GATEWAYS_H
#define JANUS_MASTER_OTHER_GATEWAYS_H

#include "master/directory.h"
#include "master/push_topics.h"
#include "master/routes.h"

struct other_gateways;

// What a gateway says of a player who has come to it (proto/push.proto).
struct login_elsewhere {
  int64_t uid;
  const char *color;
  int64_t since_ms;  // of the login, wall clock
  bool late;         // its route was not written within ROUTE_LATE_MS
};

struct other_gateways_options {
  const struct config *config;
  struct directory *directory;
  struct routes *routes;
  struct redis_link *link;
  struct push_topics *topics;
  // The session has to give way to one at another gateway.
  void (*on_conflict)(const struct directory_session *session, void *owner);
  void *owner;
};

// All in options is borrowed. NULL when out of memory.
struct other_gateways *other_gateways_new(const struct other_gateways_options *options);
void other_gateways_free(struct other_gateways *others);  // after redis_link_close

// From the routes: this gateway has written over another's route; one of its own names
// another now.
void other_gateways_taken_over(struct other_gateways *others,
                               const struct route_taken_over *taken_over);
void other_gateways_lost(struct other_gateways *others, int64_t uid, const char *color);
// From the topics: another gateway says that it has the player.
void other_gateways_told(struct other_gateways *others, const struct login_elsewhere *elsewhere);

// Looks again at what was in doubt, says again what was not heard; each second.
void other_gateways_tick(struct other_gateways *others);

// Whether the player may come here, when a second login is to be refused. on_answer comes
// once, later, unless this returns false: then there is no way to ask, and the answer is
// yes. With may_come the route is written already if it is said so.
typedef void other_gateways_on_answer(bool may_come, bool route_written, void *context);
bool other_gateways_ask(struct other_gateways *others, int64_t uid, const char *color,
                        other_gateways_on_answer *on_answer, void *context);

#endif
