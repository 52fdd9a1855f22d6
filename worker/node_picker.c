#include "worker/node_picker.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct entry {
  struct node node;
  int64_t suspect_until_ms;
  int64_t turn;  // of smooth weighted round-robin
  bool is_new;   // while entries are taken over
};

// A node that is not in the registry: gone, or not yet come.
struct absent {
  uint64_t hash;          // of service, color and address; 0: none
  int64_t since_ms;       // when it was first asked for; 0: it was here before
  int64_t gone_until_ms;  // so long it counts as gone: INT64_MAX for one that has left
};

// As many as a fleet may lose at a time: one that is forgotten again and again before its grace is
// over would be waited for for ever. They lie in sets by their hash, the newest first; where a set
// is full, its oldest is forgotten for one more.
enum { ABSENT_SETS = 256, ABSENT_IN_SET = 16 };

// Sorted by service, color and address, so that those to choose from lie side by
// side.
struct node_picker {
  struct entry *entries;
  size_t count;
  uint64_t version;
  uint64_t seed;
  struct absent absent[ABSENT_SETS][ABSENT_IN_SET];
  struct node unseen;  // what node_picker_unseen returned last
};

struct node_picker *node_picker_new(uint64_t seed) {
  struct node_picker *picker = calloc(1, sizeof *picker);
  if (picker) {
    picker->seed = seed;
    picker->version = UINT64_MAX;  // none that a table has
  }
  return picker;
}

void node_picker_free(struct node_picker *picker) {
  if (picker) {
    free(picker->entries);
    free(picker);
  }
}

// FNV-1a with a finalizer that spreads its weak high bits. Unkeyed on purpose:
// gateways must agree without talking.
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t len) {
  const unsigned char *at = bytes;
  for (size_t i = 0; i < len; i++) {
    hash = (hash ^ at[i]) * 0x100000001b3;
  }
  return hash;
}

static uint64_t finish_hash(uint64_t hash) {
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111eb;
  return hash ^ (hash >> 31);
}

static uint64_t hash_node(const char *service, const char *color, const char *address) {
  uint64_t hash = hash_bytes(0xcbf29ce484222325, service, strlen(service) + 1);
  hash = hash_bytes(hash, color, strlen(color) + 1);
  return finish_hash(hash_bytes(hash, address, strlen(address))) | 1;
}

static int compare_group(const struct node *node, const char *service, const char *color) {
  int order = strcmp(node->service, service);
  return order != 0 ? order : strcmp(node->color, color);
}

static int compare(const void *a, const void *b) {
  const struct node *left = &((const struct entry *)a)->node;
  const struct node *right = &((const struct entry *)b)->node;
  int order = compare_group(left, right->service, right->color);
  return order != 0 ? order : strcmp(left->address, right->address);
}

// Gives the nodes that came, of the group that begins at start, their places in its round. The
// turns of all lie in a range as wide as their weights together, and a node that comes may be
// anywhere in it: so far above the one whose turn is next that it comes before that as often as
// its weight says. Were it the same place for every picker, then a thousand of them, which pick
// less often than there are nodes, would all pick the same few; were it higher, they would all
// pick the one that came.
static void place_new(const struct node_picker *picker, struct entry *entries, size_t start,
                      size_t end) {
  int64_t group_weight = 0;
  int64_t highest = INT64_MIN;
  for (size_t i = start; i < end; i++) {
    const struct entry *entry = &entries[i];
    group_weight += entry->node.weight;
    // One that takes nothing new stands still, wherever it is.
    if (!entry->is_new && entry->node.weight > 0 && entry->turn > highest) {
      highest = entry->turn;
    }
  }
  highest = highest == INT64_MIN ? 0 : highest;
  for (size_t i = start; i < end; i++) {
    struct entry *entry = &entries[i];
    if (entry->is_new) {
      const struct node *node = &entry->node;
      uint64_t hash =
          finish_hash(picker->seed ^ hash_node(node->service, node->color, node->address));
      entry->is_new = false;
      if (picker->seed != 0 && group_weight > 0) {
        entry->turn = highest + node->weight - (int64_t)(hash % (uint64_t)group_weight);
      }
    }
  }
}

// Builds the sorted entries of nodes, each address of a group once, with the turn
// and suspicion of those known before.
static size_t take_over(const struct node_picker *picker, const struct node *nodes, size_t count,
                        struct entry *entries) {
  for (size_t i = 0; i < count; i++) {
    entries[i] = (struct entry){.node = nodes[i]};
  }
  if (count > 1) {
    qsort(entries, count, sizeof *entries, compare);
  }
  size_t kept = 0;
  size_t group = 0;  // where it begins
  for (size_t i = 0; i < count; i++) {
    if (kept > 0 && compare(&entries[kept - 1], &entries[i]) == 0) {
      continue;
    }
    entries[kept] = entries[i];
    const struct node *node = &entries[kept].node;
    if (compare_group(&entries[group].node, node->service, node->color) != 0) {
      place_new(picker, entries, group, kept);
      group = kept;
    }
    const struct entry *known = picker->count > 0 ? bsearch(&entries[kept], picker->entries,
                                                            picker->count, sizeof *entries, compare)
                                                  : NULL;
    if (known) {
      entries[kept].suspect_until_ms = known->suspect_until_ms;
      entries[kept].turn = known->turn;
    }
    entries[kept].is_new = !known;
    kept++;
  }
  place_new(picker, entries, group, kept);
  return kept;
}

// --- Nodes that are not there ------------------------------------------------------

static struct absent *absent_set(struct node_picker *picker, uint64_t hash) {
  return picker->absent[(hash >> 32) % ABSENT_SETS];
}

static struct absent *find_absent(struct node_picker *picker, uint64_t hash) {
  struct absent *set = absent_set(picker, hash);
  for (size_t i = 0; i < ABSENT_IN_SET; i++) {
    if (set[i].hash == hash) {
      return &set[i];
    }
  }
  return NULL;
}

// The place for one more: before the others of its set, of which the oldest goes if none is free.
static struct absent *add_absent(struct node_picker *picker, uint64_t hash) {
  struct absent *set = absent_set(picker, hash);
  size_t before = 0;
  while (before < ABSENT_IN_SET - 1 && set[before].hash != 0) {
    before++;
  }
  memmove(&set[1], &set[0], before * sizeof *set);
  return &set[0];
}

static struct absent *note_absent(struct node_picker *picker, uint64_t hash, int64_t since_ms,
                                  int64_t gone_until_ms) {
  struct absent *absent = find_absent(picker, hash);
  if (!absent) {
    absent = add_absent(picker, hash);
  }
  *absent = (struct absent){.hash = hash, .since_ms = since_ms, .gone_until_ms = gone_until_ms};
  return absent;
}

// Those that were here before and are not in entries have left for good; those that came
// are absent no more.
static void note_changes(struct node_picker *picker, const struct entry *entries, size_t count) {
  for (size_t i = 0; i < picker->count; i++) {
    const struct node *node = &picker->entries[i].node;
    if (count == 0 || !bsearch(&picker->entries[i], entries, count, sizeof *entries, compare)) {
      note_absent(picker, hash_node(node->service, node->color, node->address), 0, INT64_MAX);
    }
  }
  for (size_t i = 0; i < count; i++) {
    const struct node *node = &entries[i].node;
    struct absent *absent =
        find_absent(picker, hash_node(node->service, node->color, node->address));
    if (absent) {
      *absent = (struct absent){0};
    }
  }
}

void node_picker_forget_table(struct node_picker *picker) { picker->version = UINT64_MAX; }

void node_picker_refresh(struct node_picker *picker, const struct node_table *table) {
  struct node *nodes;
  size_t count;
  uint64_t version;
  if (node_table_version(table) == picker->version ||
      node_table_read(table, &nodes, &count, &version) != 0) {
    return;  // what cannot be read now is read next time
  }
  struct entry *entries = count > 0 ? malloc(count * sizeof *entries) : NULL;
  if (count == 0 || entries) {
    count = take_over(picker, nodes, count, entries);
    note_changes(picker, entries, count);
    free(picker->entries);
    picker->entries = entries;
    picker->count = count;
    picker->version = version;
  }
  free(nodes);
}

// The first entry that is not before (service, color).
static size_t group_start(const struct node_picker *picker, const char *service,
                          const char *color) {
  size_t low = 0;
  size_t high = picker->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (compare_group(&picker->entries[middle].node, service, color) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

static bool in_group(const struct node_picker *picker, size_t i, const char *service,
                     const char *color) {
  return i < picker->count && compare_group(&picker->entries[i].node, service, color) == 0;
}

static bool trusted(const struct entry *entry, int64_t now_ms) {
  return entry->node.weight > 0 && entry->suspect_until_ms <= now_ms;
}

// The nodes to choose from: [start, end) of the group. Those under suspicion are
// passed over only while there are others: a lone node that was restarted is tried
// again as soon as the next try comes round.
struct choice {
  size_t start;
  size_t end;
  bool only_trusted;
};

static struct choice choose_from(const struct node_picker *picker, const char *service,
                                 const char *color, int64_t now_ms) {
  struct choice choice = {.start = group_start(picker, service, color)};
  for (choice.end = choice.start; in_group(picker, choice.end, service, color); choice.end++) {
    choice.only_trusted = choice.only_trusted || trusted(&picker->entries[choice.end], now_ms);
  }
  return choice;
}

static bool is_here(const struct node_picker *picker, const struct choice *choice,
                    const char *address) {
  for (size_t i = choice->start; i < choice->end; i++) {
    if (strcmp(picker->entries[i].node.address, address) == 0) {
      return true;
    }
  }
  return false;
}

bool node_picker_may_come(struct node_picker *picker, const char *service, const char *color,
                          const char *address, int64_t grace_ms, int64_t now_ms) {
  struct choice choice = choose_from(picker, service, color, now_ms);
  if (is_here(picker, &choice, address)) {
    return false;  // and under suspicion
  }
  uint64_t hash = hash_node(service, color, address);
  const struct absent *absent = find_absent(picker, hash);
  if (!absent) {
    absent = note_absent(picker, hash, now_ms, 0);
  }
  return absent->gone_until_ms <= now_ms && now_ms - absent->since_ms < grace_ms;
}

bool node_picker_is_gone(struct node_picker *picker, const char *service, const char *color,
                         const char *address, int64_t grace_ms, int64_t now_ms) {
  struct choice choice = choose_from(picker, service, color, now_ms);
  return !is_here(picker, &choice, address) &&
         !node_picker_may_come(picker, service, color, address, grace_ms, now_ms);
}

static bool uses_tls(const struct node_picker *picker, const char *service) {
  for (size_t i = 0; i < picker->count; i++) {
    const struct node *node = &picker->entries[i].node;
    if (node->secure && strcmp(node->service, service) == 0) {
      return true;
    }
  }
  return false;
}

const struct node *node_picker_unseen(struct node_picker *picker, const char *service,
                                      const char *color, const char *address, int64_t now_ms) {
  struct choice choice = choose_from(picker, service, color, now_ms);
  const struct absent *absent = find_absent(picker, hash_node(service, color, address));
  if (is_here(picker, &choice, address) || (absent && absent->gone_until_ms > now_ms)) {
    return NULL;
  }
  // Nothing else is known of it, but no player is to be spoken of in plain text whose service
  // uses TLS.
  picker->unseen = (struct node){.secure = uses_tls(picker, service)};
  strncpy(picker->unseen.service, service, sizeof picker->unseen.service - 1);
  strncpy(picker->unseen.color, color, sizeof picker->unseen.color - 1);
  strncpy(picker->unseen.address, address, sizeof picker->unseen.address - 1);
  return &picker->unseen;
}

static bool takes_new(const struct choice *choice, const struct entry *entry, int64_t now_ms) {
  return choice->only_trusted ? trusted(entry, now_ms) : entry->node.weight > 0;
}

const struct node *node_picker_find(struct node_picker *picker, const char *service,
                                    const char *color, const char *address, int64_t now_ms) {
  struct choice choice = choose_from(picker, service, color, now_ms);
  for (size_t i = choice.start; i < choice.end; i++) {
    const struct entry *entry = &picker->entries[i];
    if (strcmp(entry->node.address, address) == 0) {
      return entry->suspect_until_ms <= now_ms || !choice.only_trusted ? &entry->node : NULL;
    }
  }
  return NULL;
}

const struct node *node_picker_pick(struct node_picker *picker, const char *service,
                                    const char *color, int64_t now_ms) {
  struct choice choice = choose_from(picker, service, color, now_ms);
  struct entry *best = NULL;
  int64_t total = 0;
  for (size_t i = choice.start; i < choice.end; i++) {
    struct entry *entry = &picker->entries[i];
    if (takes_new(&choice, entry, now_ms)) {
      entry->turn += entry->node.weight;
      total += entry->node.weight;
      if (!best || entry->turn > best->turn) {
        best = entry;
      }
    }
  }
  if (!best) {
    return NULL;
  }
  best->turn -= total;
  return &best->node;
}

// Weighted rendezvous hashing: of the scores weight / -ln(uniform), the highest.
static double score(const struct node *node, int64_t oid) {
  unsigned char number[8];
  for (int i = 0; i < 8; i++) {
    number[i] = (unsigned char)((uint64_t)oid >> (8 * i));
  }
  uint64_t hash = 0xcbf29ce484222325;
  hash = hash_bytes(hash, node->service, strlen(node->service) + 1);
  hash = hash_bytes(hash, node->color, strlen(node->color) + 1);
  hash = hash_bytes(hash, number, sizeof number);
  hash = finish_hash(hash_bytes(hash, node->address, strlen(node->address)));
  double uniform = ((double)(hash >> 11) + 0.5) / 9007199254740992.0;  // 2^53
  return node->weight / -log(uniform);
}

const struct node *node_picker_fallback(struct node_picker *picker, const char *service,
                                        const char *color, int64_t oid, int64_t now_ms) {
  struct choice choice = choose_from(picker, service, color, now_ms);
  const struct node *best = NULL;
  double best_score = 0;
  for (size_t i = choice.start; i < choice.end; i++) {
    const struct entry *entry = &picker->entries[i];
    double its_score = takes_new(&choice, entry, now_ms) ? score(&entry->node, oid) : 0;
    if (its_score > best_score) {
      best = &entry->node;
      best_score = its_score;
    }
  }
  return best;
}

void node_picker_suspect(struct node_picker *picker, const char *service, const char *color,
                         const char *address, int64_t until_ms) {
  bool known = false;
  for (size_t i = 0; i < picker->count; i++) {
    struct entry *entry = &picker->entries[i];
    if (strcmp(entry->node.address, address) == 0 && strcmp(entry->node.service, service) == 0) {
      entry->suspect_until_ms = until_ms;
      known = true;
    }
  }
  if (!known) {
    uint64_t hash = hash_node(service, color, address);
    struct absent *absent = find_absent(picker, hash);
    if (!absent || absent->gone_until_ms < until_ms) {
      note_absent(picker, hash, 0, until_ms);
    }
  }
}
