// janus-routesim: thousands of gateways and nodes in one process, with the gateway's own node
// picker, node table and route table, to see whether routing stays even and agreed while nodes
// and the store come and go.
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tools/client/script.h"
#include "tools/routesim/fleet.h"

enum { EXIT_HELD = 0, EXIT_BROKEN = 1, EXIT_USAGE = 2, EXIT_UNABLE = 3 };

static const char help[] =
    "janus-routesim: routing by thousands of gateways and nodes, simulated in one process.\n"
    "\n"
    "Usage: janus-routesim [options]\n"
    "\n"
    "Each gateway has a node picker and a route table of its own, the gateway's own code. The\n"
    "network, the clock and what is behind it are simulated: the registry is a list of nodes that\n"
    "gateways come to see at different times, and the store is a stand-in for Redis in memory "
    "that\n"
    "sets a route if there is none, or if it names a node that is said to be dead. Players log in\n"
    "at gateways at random and meet in rooms; nodes of different weights come, are drained, die\n"
    "and leave; the store is away for a while, comes back, and loses all that it had.\n"
    "\n"
    "For each phase it prints\n"
    "  chosen     objects (players, rooms) for which a node was chosen\n"
    "  max/fair   of all nodes that got enough to tell, the most one got of its fair share by\n"
    "             weight\n"
    "  cv         the coefficient of variation of what nodes got of their fair shares, and that\n"
    "             of choices made at random, which it must not be above\n"
    "  moved      objects that went from one node to another, and of these those that left a\n"
    "             node that is alive and registered\n"
    "  split      rooms whose players were on different nodes, at the worst time and at the end\n"
    "  disagree   of the objects that nobody has, those for which two gateways name different\n"
    "             nodes by rendezvous hashing, at the worst time and at the end\n"
    "and says which bound was broken, if any.\n"
    "\n"
    "Options:\n"
    "  --gateways N       (default 1000)\n"
    "  --nodes N          at first, half of them for players, half for rooms (default 500)\n"
    "  --players N        at first; rooms are one for 8 of them (default 10000)\n"
    "  --colors N         nodes and players are divided among so many (default 2)\n"
    "  --feed-lag TIME    a gateway hears of a route so late at most (default 200ms)\n"
    "  --registry-lag TIME  and so late of nodes (default 500ms)\n"
    "  --seed N           everything follows from it (default 1)\n"
    "  --fault NAME       do one thing wrong, to see it found: alike (all pickers begin their\n"
    "                     rounds at the same place), deaf (one gateway hears of no change of the\n"
    "                     nodes), believe (what the store had before it was away is\n"
    "                     left as it is), overwrite (the store sets a route whether there is one "
    "or not)\n"
    "  --json             the report as one JSON object\n"
    "  --help, --version\n"
    "\n"
    "A gateway takes about 2 MB, and more with more players and nodes; what is done without\n"
    "options takes some minutes.\n"
    "\n"
    "Example: janus-routesim --gateways 50 --nodes 40 --players 2000\n"
    "         janus-routesim --fault deaf\n"
    "Exit status: 0 all bounds held, 1 one was broken, 2 wrong usage, 3 it could not be run.\n";

enum {
  TICK_MS = 20,
  LONG_TICK_MS = 1000,    // while nothing is to be seen
  LOGIN_MS = 2000,        // over which the players of one phase come
  SETTLE_MAX_MS = 60000,  // longer is never
  PLAYERS_PER_ROOM = 8,
  PHASES_MAX = 32,
  BROKEN_MAX = 64,
  BROKEN_BYTES = 160,
  ASKED_OBJECTS = 200,  // of which a sample of gateways is asked while lists differ
  ASKED_GATEWAYS = 64,
  ASKED_OF_ALL = 64,  // of which all gateways are asked
  // What comes of each phase is a sample: bounds are so many standard deviations away.
  DEVIATIONS = 6,
  // A node that is to get fewer is too small to tell by its share.
  TELLING = 10,
};

struct share {
  double worst;
  double end;
};

struct phase {
  const char *name;
  size_t opened;     // tunnels
  size_t fallbacks;  // nodes named by rendezvous hashing
  size_t chosen;
  double max_to_fair;
  double cv;
  double random_cv;
  size_t moved;
  size_t moved_living;
  struct share split;
  size_t split_before;
  bool asked;
  struct share disagree;
  int64_t settled_ms;  // simulated
};

struct player {
  size_t object;
  size_t room;
  size_t tunnel;
  size_t room_tunnel;
};

struct simulation {
  struct fleet fleet;
  size_t colors;
  struct player *players;
  size_t player_count;
  size_t *rooms;  // all colors' together
  size_t room_count;
  size_t more;  // players that come in each later phase
  struct phase phases[PHASES_MAX];
  size_t phase_count;
  struct phase *phase;
  char broken[BROKEN_MAX][BROKEN_BYTES];
  size_t broken_count;
  int64_t started_ms;
  int64_t oid;  // the next of those asked about, of objects that nobody has
  bool json;
};

__attribute__((format(printf, 2, 3))) static void broken(struct simulation *simulation,
                                                         const char *format, ...) {
  if (simulation->broken_count < BROKEN_MAX) {
    char *text = simulation->broken[simulation->broken_count++];
    int len = snprintf(text, BROKEN_BYTES, "%s: ", simulation->phase->name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + len, BROKEN_BYTES - (size_t)len, format, arguments);
    va_end(arguments);
  }
}

// --- What is measured --------------------------------------------------------------------

static bool is_room(const struct fleet_object *object) { return object->group % 2 == 1; }

static size_t count_split(const struct fleet *fleet) {
  size_t count = 0;
  for (size_t i = 0; i < fleet->object_count; i++) {
    int32_t node = FLEET_NONE;
    bool split = false;
    for (int32_t j = fleet->objects[i].first_tunnel; j >= 0; j = fleet->tunnels[j].next) {
      int32_t its = fleet->tunnels[j].node;
      split = split || (its != FLEET_NONE && node != FLEET_NONE && its != node);
      node = its != FLEET_NONE ? its : node;
    }
    count += is_room(&fleet->objects[i]) && split;
  }
  return count;
}

static void look_at_split(struct simulation *simulation) {
  struct share *split = &simulation->phase->split;
  split->end = (double)count_split(&simulation->fleet);
  split->worst = fmax(split->worst, split->end);
}

// Of so many objects that nobody has, the share for which two of so many gateways differ.
static double ask(struct simulation *simulation, size_t objects, size_t gateways) {
  struct fleet *fleet = &simulation->fleet;
  size_t all = fleet->options.gateways;
  size_t differing = 0;
  for (size_t i = 0; i < objects; i++) {
    int64_t oid = simulation->oid++;
    size_t group = fleet_random(fleet, simulation->colors * 2);
    int32_t named = fleet_rendezvous(fleet, 0, group, oid);
    bool same = true;
    for (size_t j = 1; same && j < all && j < gateways; j++) {
      size_t gateway = gateways < all ? 1 + fleet_random(fleet, all - 1) : j;
      same = fleet_rendezvous(fleet, gateway, group, oid) == named;
    }
    differing += !same;
  }
  return (double)differing / (double)objects;
}

static void look_at_rendezvous(struct simulation *simulation) {
  struct phase *phase = simulation->phase;
  phase->asked = true;
  phase->disagree.end = ask(simulation, ASKED_OBJECTS, ASKED_GATEWAYS);
  phase->disagree.worst = fmax(phase->disagree.worst, phase->disagree.end);
}

static void ask_all(struct simulation *simulation) {
  struct phase *phase = simulation->phase;
  phase->asked = true;
  phase->disagree.end = ask(simulation, ASKED_OF_ALL, SIZE_MAX);
  phase->disagree.worst = fmax(phase->disagree.worst, phase->disagree.end);
  if (phase->disagree.end > 0) {
    broken(simulation, "gateways with the same nodes name different ones for %.3g of the objects",
           phase->disagree.end);
  }
}

static bool takes_new(const struct fleet_node *node) {
  return node->registered && node->alive && node->node.weight > 0;
}

static uint64_t group_weight(const struct fleet *fleet, size_t group) {
  uint64_t sum = 0;
  for (size_t i = 0; i < fleet->node_count; i++) {
    const struct fleet_node *node = &fleet->nodes[i];
    sum += node->group == group && takes_new(node) ? node->node.weight : 0;
  }
  return sum;
}

static void forget_placed(struct fleet *fleet) {
  for (size_t i = 0; i < fleet->object_count; i++) {
    fleet->objects[i].placed = FLEET_NONE;
  }
}

// What each node got since placements were last forgotten, beside its fair share. Only where the
// nodes have been the same all the while, and each gateway's list of them.
static void judge_evenness(struct simulation *simulation) {
  struct fleet *fleet = &simulation->fleet;
  struct phase *phase = simulation->phase;
  size_t groups = simulation->colors * 2;
  size_t *got = calloc(fleet->node_count, sizeof *got);
  size_t *in_group = calloc(groups, sizeof *in_group);
  uint64_t *weight = calloc(groups, sizeof *weight);
  double square = 0;
  double random_square = 0;
  size_t nodes = 0;
  if (!got || !in_group || !weight) {
    fleet->failed = true;
    goto out;
  }
  for (size_t i = 0; i < fleet->object_count; i++) {
    if (fleet->objects[i].placed != FLEET_NONE) {
      got[fleet->objects[i].placed]++;
      in_group[fleet->objects[i].group]++;
      phase->chosen++;
    }
  }
  for (size_t i = 0; i < groups; i++) {
    weight[i] = group_weight(fleet, i);
  }
  for (size_t i = 0; i < fleet->node_count; i++) {
    const struct fleet_node *node = &fleet->nodes[i];
    if (!takes_new(node)) {
      if (got[i] > 0) {
        broken(simulation, "node %zu, which takes nothing new, got %zu objects", i, got[i]);
      }
      continue;
    }
    double fair = (double)in_group[node->group] * node->node.weight / (double)weight[node->group];
    if (fair <= 0) {
      continue;
    }
    double ratio = (double)got[i] / fair;
    if (fair >= TELLING) {
      phase->max_to_fair = fmax(phase->max_to_fair, ratio);
    }
    if ((double)got[i] > fair + DEVIATIONS * (sqrt(fair) + 1)) {
      broken(simulation, "node %zu got %zu objects where %.1f were fair", i, got[i], fair);
    }
    // Weighted by the share, so that small nodes do not drown the rest.
    square += fair * (ratio - 1) * (ratio - 1);
    random_square += 1 - (double)node->node.weight / (double)weight[node->group];
    nodes++;
  }
  if (phase->chosen > 0 && nodes > 0) {
    phase->cv = sqrt(square / (double)phase->chosen);
    phase->random_cv = sqrt(random_square / (double)phase->chosen);
    double slack = 1 + DEVIATIONS / sqrt(2.0 * (double)nodes);
    if (phase->cv > phase->random_cv * slack) {
      broken(simulation, "less even than by chance: cv %.3f, by chance %.3f", phase->cv,
             phase->random_cv);
    }
  }
out:
  free(got);
  free(in_group);
  free(weight);
}

// --- What happens --------------------------------------------------------------------------

static void tick(struct simulation *simulation) {
  fleet_tick(&simulation->fleet, TICK_MS);
  look_at_split(simulation);
}

// Until every gateway has heard of everything and every tunnel is open.
static void settle(struct simulation *simulation) {
  int64_t until_ms = simulation->fleet.now_ms + SETTLE_MAX_MS;
  do {
    tick(simulation);
  } while (!fleet_is_settled(&simulation->fleet) && simulation->fleet.now_ms < until_ms);
  if (!fleet_is_settled(&simulation->fleet)) {
    broken(simulation, "it has not settled within %d s", SETTLE_MAX_MS / 1000);
  }
}

static void wait_ms(struct simulation *simulation, int64_t ms) {
  for (int64_t until_ms = simulation->fleet.now_ms + ms; simulation->fleet.now_ms < until_ms;) {
    tick(simulation);
  }
}

static void begin(struct simulation *simulation, const char *name) {
  simulation->phase = &simulation->phases[simulation->phase_count++];
  *simulation->phase =
      (struct phase){.name = name, .split_before = count_split(&simulation->fleet)};
  simulation->started_ms = simulation->fleet.now_ms;
  fleet_begin_phase(&simulation->fleet);
  fprintf(stderr, "janus-routesim: %s\n", name);
}

// What always holds, if the phase says nothing else: no room is split at its end, and only what
// was on nodes that are gone has moved.
static void end(struct simulation *simulation, size_t split_allowed, size_t left_living_allowed) {
  struct fleet *fleet = &simulation->fleet;
  struct phase *phase = simulation->phase;
  size_t stranded = 0;
  phase->opened = fleet->opened;
  phase->fallbacks = fleet->fallbacks;
  phase->settled_ms = fleet->now_ms - simulation->started_ms;
  for (size_t i = 0; i < fleet->object_count; i++) {
    const struct fleet_object *object = &fleet->objects[i];
    phase->moved += object->moved;
    phase->moved_living += object->left_living;
    stranded += object->first_tunnel >= 0 &&
                (object->home == FLEET_NONE || !fleet->nodes[object->home].alive);
  }
  look_at_split(simulation);
  if ((size_t)phase->split.end > split_allowed) {
    broken(simulation, "%.0f rooms are split, %zu may be", phase->split.end, split_allowed);
  }
  if ((size_t)phase->split.worst > split_allowed + phase->split_before + phase->moved) {
    broken(simulation, "%.0f rooms were split, and only %zu moved", phase->split.worst,
           phase->moved);
  }
  if (phase->moved_living > left_living_allowed) {
    broken(simulation, "%zu objects have left nodes that are alive, %zu may", phase->moved_living,
           left_living_allowed);
  }
  if (stranded > 0) {
    broken(simulation, "%zu objects are on no node that is alive", stranded);
  }
}

static size_t make_room(struct simulation *simulation, size_t color) {
  size_t room = fleet_add_object(&simulation->fleet, color * 2 + 1);
  simulation->rooms[simulation->room_count++] = room;
  return room;
}

// Of the color; a new one for every so many players.
static size_t find_room(struct simulation *simulation, size_t color) {
  struct fleet *fleet = &simulation->fleet;
  if (simulation->room_count < fleet->options.rooms_max &&
      fleet_random(fleet, PLAYERS_PER_ROOM) == 0) {
    return make_room(simulation, color);
  }
  for (int tries = 0; simulation->room_count > 0 && tries < 64; tries++) {
    size_t room = simulation->rooms[fleet_random(fleet, simulation->room_count)];
    if (fleet->objects[room].group == color * 2 + 1) {
      return room;
    }
  }
  return make_room(simulation, color);
}

static void enter(struct simulation *simulation, struct player *player) {
  struct fleet *fleet = &simulation->fleet;
  size_t gateway = fleet_random(fleet, fleet->options.gateways);
  player->tunnel = fleet_open(fleet, player->object, gateway);
  player->room_tunnel = fleet_open(fleet, player->room, gateway);
}

static void log_in(struct simulation *simulation) {
  struct fleet *fleet = &simulation->fleet;
  struct player *player = &simulation->players[simulation->player_count++];
  size_t color = fleet_random(fleet, simulation->colors);
  player->object = fleet_add_object(fleet, color * 2);
  player->room = find_room(simulation, color);
  enter(simulation, player);
}

static void come_again(struct simulation *simulation) {
  struct fleet *fleet = &simulation->fleet;
  struct player *player = &simulation->players[fleet_random(fleet, simulation->player_count)];
  fleet_close(fleet, player->tunnel);
  fleet_close(fleet, player->room_tunnel);
  enter(simulation, player);
}

static void spread(struct simulation *simulation, size_t count,
                   void (*happen)(struct simulation *simulation)) {
  size_t ticks = LOGIN_MS / TICK_MS;
  size_t done = 0;
  for (size_t i = 1; i <= ticks; i++) {
    for (; done < count * i / ticks; done++) {
      happen(simulation);
    }
    tick(simulation);
  }
}

static void logins(struct simulation *simulation, size_t count) {
  forget_placed(&simulation->fleet);
  spread(simulation, count, log_in);
  judge_evenness(simulation);
  settle(simulation);
}

static uint32_t some_weight(struct fleet *fleet) {
  static const uint32_t weights[] = {50, 100, 100, 200};
  return weights[fleet_random(fleet, sizeof weights / sizeof weights[0])];
}

static void add_nodes(struct simulation *simulation, size_t count) {
  struct fleet *fleet = &simulation->fleet;
  for (size_t i = 0; i < count; i++) {
    fleet_add_node(fleet, fleet->node_count % (simulation->colors * 2), some_weight(fleet));
  }
}

// One that takes what is new, at random; never the last of its group.
static size_t some_node(struct simulation *simulation) {
  struct fleet *fleet = &simulation->fleet;
  for (;;) {
    size_t number = fleet_random(fleet, fleet->node_count);
    const struct fleet_node *node = &fleet->nodes[number];
    if (takes_new(node) && group_weight(fleet, node->group) > node->node.weight) {
      return number;
    }
  }
}

// So much is to be expected of a share p of count, at most.
static size_t at_most(double p, double count) {
  return (size_t)ceil(p * count + DEVIATIONS * (sqrt(p * count) + 1));
}

static size_t objects_on(const struct fleet *fleet, const bool *nodes) {
  size_t count = 0;
  for (size_t i = 0; i < fleet->object_count; i++) {
    const struct fleet_object *object = &fleet->objects[i];
    count += object->first_tunnel >= 0 && object->home != FLEET_NONE && nodes[object->home];
  }
  return count;
}

// They die without a word; the registry drops them once their leases have run out.
static void nodes_die(struct simulation *simulation, size_t count) {
  enum { LEASE_MS = 1000 };
  struct fleet *fleet = &simulation->fleet;
  bool *dying = calloc(fleet->options.nodes_max, sizeof *dying);
  if (!dying) {
    fleet->failed = true;
    return;
  }
  begin(simulation, "nodes die");
  size_t before = 0;
  for (size_t i = 0; i < count; i++) {
    size_t node = some_node(simulation);
    dying[node] = true;
    before = objects_on(fleet, dying);
    fleet->nodes[node].registered = false;
  }
  for (size_t i = 0; i < fleet->options.nodes_max; i++) {
    if (dying[i]) {
      // All at once: a gateway that turns to one of the others finds it dead too.
      fleet->nodes[i].alive = false;
    }
  }
  for (size_t i = 0; i < fleet->options.nodes_max; i++) {
    if (dying[i]) {
      fleet_kill_node(fleet, i);
    }
  }
  wait_ms(simulation, LEASE_MS);
  fleet_publish(fleet);
  settle(simulation);
  judge_evenness(simulation);
  end(simulation, 0, 0);
  if (simulation->phase->moved != before) {
    broken(simulation, "%zu objects moved, %zu were on the nodes", simulation->phase->moved,
           before);
  }
  free(dying);
}

// They say that they leave, and go a while later.
static void nodes_leave(struct simulation *simulation, size_t count) {
  enum { NOTICE_MS = 2000 };
  struct fleet *fleet = &simulation->fleet;
  bool *leaving = calloc(fleet->options.nodes_max, sizeof *leaving);
  if (!leaving) {
    fleet->failed = true;
    return;
  }
  begin(simulation, "nodes leave");
  for (size_t i = 0; i < count; i++) {
    size_t node = some_node(simulation);
    leaving[node] = true;
    fleet->nodes[node].registered = false;
  }
  fleet_publish(fleet);
  spread(simulation, simulation->more, come_again);
  wait_ms(simulation, NOTICE_MS);
  for (size_t i = 0; i < fleet->options.nodes_max; i++) {
    if (leaving[i]) {
      fleet_kill_node(fleet, i);
    }
  }
  settle(simulation);
  judge_evenness(simulation);
  end(simulation, 0, 0);
  free(leaving);
}

// The store is away: nobody settles anything. While the lists of nodes differ, so do the
// choices, by no more than the share of the nodes that have changed.
static void without_store(struct simulation *simulation, size_t come, size_t die) {
  struct fleet *fleet = &simulation->fleet;
  begin(simulation, "store away");
  fleet_store_down(fleet);
  logins(simulation, simulation->more);
  spread(simulation, simulation->more, come_again);
  ask_all(simulation);
  end(simulation, 0, 0);
  double in_play = (double)simulation->phase->chosen;

  begin(simulation, "nodes change meanwhile");
  double changed = 0;
  double groups = (double)simulation->colors * 2;
  uint64_t gone = 0;
  uint64_t total = 0;
  for (size_t i = 0; i < simulation->colors * 2; i++) {
    total += group_weight(fleet, i);
  }
  for (size_t i = 0; i < die; i++) {
    size_t node = some_node(simulation);
    gone += fleet->nodes[node].node.weight;
    fleet->nodes[node].registered = false;
    fleet_kill_node(fleet, node);
  }
  size_t first = fleet->node_count;
  add_nodes(simulation, come);
  for (size_t i = first; i < fleet->node_count; i++) {
    gone += fleet->nodes[i].node.weight;
  }
  // Chance gives one group more of the changes than another.
  changed = fmin(1, (double)gone / (double)total * (1 + 1 / sqrt((double)(die + come) / groups)));
  fleet_publish(fleet);
  size_t ticks = LOGIN_MS / TICK_MS;
  for (size_t i = 0, done = 0; i < ticks; i++) {
    for (; done < simulation->more * (i + 1) / ticks; done++) {
      log_in(simulation);
    }
    tick(simulation);
    if (i % 5 == 0) {
      look_at_rendezvous(simulation);
    }
  }
  settle(simulation);
  double bound = (double)at_most(changed, ASKED_OBJECTS) / ASKED_OBJECTS;
  if (simulation->phase->disagree.worst > bound) {
    broken(simulation, "gateways disagreed on %.3g of the objects, %.3g may be",
           simulation->phase->disagree.worst, bound);
  }
  ask_all(simulation);
  in_play += (double)simulation->more;
  size_t at_odds = at_most(changed, in_play);
  // What two gateways put on two nodes counts as having moved.
  end(simulation, at_odds, at_odds);
}

static size_t routes_to_nowhere(const struct fleet *fleet) {
  size_t count = 0;
  for (size_t i = 0; i < fleet->object_count; i++) {
    const struct fleet_object *object = &fleet->objects[i];
    count += object->stored != FLEET_NONE && !fleet->nodes[object->stored].alive;
  }
  return count;
}

static void run(struct simulation *simulation, size_t players) {
  struct fleet *fleet = &simulation->fleet;
  size_t nodes = fleet->node_count;
  fleet_publish(fleet);
  wait_ms(simulation, fleet->options.registry_lag_ms + TICK_MS);

  begin(simulation, "logins");
  logins(simulation, players);
  end(simulation, 0, 0);

  begin(simulation, "players come again");
  spread(simulation, simulation->more, come_again);
  settle(simulation);
  end(simulation, 0, 0);

  begin(simulation, "nodes come");
  for (int i = 0; i < 5; i++) {
    add_nodes(simulation, nodes / 50 + 1);
    fleet_publish(fleet);
    spread(simulation, simulation->more / 5, log_in);
  }
  settle(simulation);
  end(simulation, 0, 0);

  begin(simulation, "logins with them");
  logins(simulation, simulation->more);
  end(simulation, 0, 0);

  begin(simulation, "nodes drain");
  for (size_t i = 0; i < nodes / 20 + 1; i++) {
    fleet->nodes[some_node(simulation)].node.weight = 0;
  }
  fleet_publish(fleet);
  spread(simulation, simulation->more, log_in);
  settle(simulation);
  end(simulation, 0, 0);

  begin(simulation, "logins beside them");
  logins(simulation, simulation->more);
  end(simulation, 0, 0);

  nodes_die(simulation, nodes / 20 + 1);
  nodes_leave(simulation, nodes / 20 + 1);

  begin(simulation, "logins without them");
  logins(simulation, simulation->more);
  end(simulation, 0, 0);

  without_store(simulation, nodes / 20 + 1, nodes / 20 + 1);
  size_t at_odds = count_split(fleet);

  // It has the routes that it had, and some name nodes which died meanwhile: who has tunnels
  // takes them back, so that nothing moves but the rooms that were split.
  begin(simulation, "store back");
  fleet_store_up(fleet, false);
  settle(simulation);
  spread(simulation, simulation->more, come_again);
  settle(simulation);
  end(simulation, 0, at_odds);
  if (routes_to_nowhere(fleet) > 0) {
    broken(simulation, "%zu routes name nodes that are dead", routes_to_nowhere(fleet));
  }

  begin(simulation, "old routes run out");
  for (int64_t until_ms = fleet->now_ms + FLEET_ROUTE_TTL_MS; fleet->now_ms < until_ms;) {
    fleet_tick(fleet, LONG_TICK_MS);
  }
  settle(simulation);
  end(simulation, 0, 0);

  begin(simulation, "store lost all");
  fleet_store_down(fleet);
  spread(simulation, simulation->more, come_again);
  fleet_store_up(fleet, true);
  settle(simulation);
  end(simulation, 0, 0);
}

// --- The report ----------------------------------------------------------------------------

static json_t *share_json(const struct share *share) {
  return json_pack("{s:f, s:f}", "worst", share->worst, "end", share->end);
}

static int report_json(const struct simulation *simulation) {
  const struct fleet *fleet = &simulation->fleet;
  json_t *phases = json_array();
  json_t *faults = json_array();
  for (size_t i = 0; i < simulation->phase_count; i++) {
    const struct phase *phase = &simulation->phases[i];
    json_array_append_new(
        phases, json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:o, s:o, s:I}", "name",
                          phase->name, "tunnels_opened", (json_int_t)phase->opened, "rendezvous",
                          (json_int_t)phase->fallbacks, "chosen", (json_int_t)phase->chosen,
                          "max_to_fair", phase->max_to_fair, "cv", phase->cv, "random_cv",
                          phase->random_cv, "moved", (json_int_t)phase->moved, "moved_from_living",
                          (json_int_t)phase->moved_living, "split", share_json(&phase->split),
                          "disagree", phase->asked ? share_json(&phase->disagree) : json_null(),
                          "simulated_ms", (json_int_t)phase->settled_ms));
  }
  for (size_t i = 0; i < simulation->broken_count; i++) {
    json_array_append_new(faults, json_string(simulation->broken[i]));
  }
  json_t *report = json_pack(
      "{s:I, s:I, s:I, s:I, s:o, s:o}", "gateways", (json_int_t)fleet->options.gateways, "nodes",
      (json_int_t)fleet->node_count, "players", (json_int_t)simulation->player_count, "rooms",
      (json_int_t)simulation->room_count, "phases", phases, "broken", faults);
  if (!report || json_dumpf(report, stdout, JSON_COMPACT) != 0) {
    json_decref(report);
    return EXIT_UNABLE;
  }
  putchar('\n');
  json_decref(report);
  return simulation->broken_count > 0 ? EXIT_BROKEN : EXIT_HELD;
}

static int report_text(const struct simulation *simulation) {
  const struct fleet *fleet = &simulation->fleet;
  printf("%zu gateways, %zu nodes, %zu players, %zu rooms\n\n", fleet->options.gateways,
         fleet->node_count, simulation->player_count, simulation->room_count);
  printf("%-24s %8s %9s %14s %16s %11s %15s\n", "", "chosen", "max/fair", "cv (chance)",
         "moved (living)", "split, end", "disagree, end");
  for (size_t i = 0; i < simulation->phase_count; i++) {
    const struct phase *phase = &simulation->phases[i];
    char even[32] = "";
    char most[16] = "";
    char disagree[32] = "";
    if (phase->chosen > 0) {
      snprintf(even, sizeof even, "%.3f (%.3f)", phase->cv, phase->random_cv);
    }
    if (phase->max_to_fair > 0) {
      snprintf(most, sizeof most, "%.2f", phase->max_to_fair);
    }
    if (phase->asked) {
      snprintf(disagree, sizeof disagree, "%.3f, %.3f", phase->disagree.worst, phase->disagree.end);
    }
    printf("%-24s %8zu %9s %14s %9zu (%zu)%*s %5.0f, %-4.0f %15s\n", phase->name, phase->chosen,
           most, even, phase->moved, phase->moved_living, phase->moved_living > 99 ? 0 : 3, "",
           phase->split.worst, phase->split.end, disagree);
  }
  putchar('\n');
  for (size_t i = 0; i < simulation->broken_count; i++) {
    printf("BROKEN %s\n", simulation->broken[i]);
  }
  puts(simulation->broken_count > 0 ? "a bound was broken" : "all bounds held");
  return simulation->broken_count > 0 ? EXIT_BROKEN : EXIT_HELD;
}

// --- The command line ------------------------------------------------------------------------

__attribute__((noreturn)) static void refuse(const char *what, const char *value) {
  fprintf(stderr, "janus-routesim: %s%s%s (--help tells more)\n", what, value ? ": " : "",
          value ? value : "");
  exit(EXIT_USAGE);
}

static size_t number_option(const char *what, int64_t least, int64_t most) {
  int64_t number;
  if (number_parse(optarg, least, most, &number) != 0) {
    refuse(what, optarg);
  }
  return (size_t)number;
}

static int64_t time_option(const char *what) {
  int64_t ms;
  if (duration_parse(optarg, false, &ms) != 0 || ms > SETTLE_MAX_MS / 4) {
    refuse(what, optarg);
  }
  return ms;
}

static enum fleet_fault fault_option(void) {
  static const char *const names[] = {[FLEET_ALIKE] = "alike",
                                      [FLEET_DEAF] = "deaf",
                                      [FLEET_BELIEVE] = "believe",
                                      [FLEET_OVERWRITE] = "overwrite"};
  for (size_t i = FLEET_ALIKE; i < sizeof names / sizeof names[0]; i++) {
    if (strcmp(optarg, names[i]) == 0) {
      return (enum fleet_fault)i;
    }
  }
  refuse("there is no such fault", optarg);
}

struct wishes {
  struct fleet_options fleet;
  size_t nodes;
  size_t players;
  bool json;
};

static void parse_arguments(struct wishes *wishes, int argc, char **argv) {
  static const struct option options[] = {
      {"gateways", required_argument, NULL, 'g'}, {"nodes", required_argument, NULL, 'n'},
      {"players", required_argument, NULL, 'p'},  {"colors", required_argument, NULL, 'c'},
      {"feed-lag", required_argument, NULL, 'f'}, {"registry-lag", required_argument, NULL, 'r'},
      {"seed", required_argument, NULL, 's'},     {"fault", required_argument, NULL, 'x'},
      {"json", no_argument, NULL, 'j'},           {"help", no_argument, NULL, 'h'},
      {"version", no_argument, NULL, 'V'},        {NULL, 0, NULL, 0}};
  int option;
  while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
    switch (option) {
      case 'g':
        wishes->fleet.gateways = number_option("--gateways is not 2 to 100000", 2, 100000);
        break;
      case 'n': wishes->nodes = number_option("--nodes is not 8 to 5000", 8, 5000); break;
      case 'p':
        wishes->players = number_option("--players is not 10 to 10000000", 10, 10000000);
        break;
      case 'c': wishes->fleet.colors = number_option("--colors is not 1 to 100", 1, 100); break;
      case 'f': wishes->fleet.feed_lag_ms = time_option("--feed-lag is not like 200ms"); break;
      case 'r':
        wishes->fleet.registry_lag_ms = time_option("--registry-lag is not like 500ms");
        break;
      case 's': wishes->fleet.seed = number_option("--seed is not a number", 0, INT64_MAX); break;
      case 'x': wishes->fleet.fault = fault_option(); break;
      case 'j': wishes->json = true; break;
      case 'h': fputs(help, stdout); exit(EXIT_HELD);
      case 'V': puts("janus-routesim " JANUS_VERSION); exit(EXIT_HELD);
      default: exit(EXIT_USAGE);
    }
  }
  if (optind < argc) {
    refuse("there are only options", argv[optind]);
  }
  if (wishes->nodes < wishes->fleet.colors * 8) {
    refuse("--nodes is less than 8 for each color", NULL);
  }
}

// Each gateway's table is a descriptor.
static void raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

int main(int argc, char **argv) {
  static struct simulation simulation;
  struct wishes wishes = {.fleet = {.gateways = 1000,
                                    .colors = 2,
                                    .feed_lag_ms = 200,
                                    .registry_lag_ms = 500,
                                    .seed = 1},
                          .nodes = 500,
                          .players = 10000};
  parse_arguments(&wishes, argc, argv);
  raise_descriptor_limit();
  simulation.colors = wishes.fleet.colors;
  simulation.more = wishes.players / 5;
  simulation.oid = (int64_t)1 << 40;
  // Seven phases in which more come, and eight with tunnels opened anew.
  size_t players_max = wishes.players + 7 * simulation.more;
  wishes.fleet.nodes_max = wishes.nodes + wishes.nodes / 10 + wishes.nodes / 20 + 16;
  wishes.fleet.players_max = players_max;
  wishes.fleet.rooms_max = players_max / PLAYERS_PER_ROOM + 2 * wishes.fleet.colors + 64;
  wishes.fleet.tunnels_max = 2 * (players_max + 8 * simulation.more);
  simulation.players = calloc(players_max, sizeof *simulation.players);
  simulation.rooms = calloc(wishes.fleet.rooms_max + 64, sizeof *simulation.rooms);
  int status = EXIT_UNABLE;
  if (fleet_init(&simulation.fleet, &wishes.fleet) == 0 && simulation.players && simulation.rooms) {
    simulation.phase = &simulation.phases[0];
    add_nodes(&simulation, wishes.nodes);
    run(&simulation, wishes.players);
  } else {
    simulation.fleet.failed = true;
  }
  if (simulation.fleet.failed) {
    fprintf(stderr, "janus-routesim: out of memory, or of descriptors (`ulimit -n`)\n");
  } else {
    status = wishes.json ? report_json(&simulation) : report_text(&simulation);
  }
  fleet_fini(&simulation.fleet);
  free(simulation.players);
  free(simulation.rooms);
  return status;
}
