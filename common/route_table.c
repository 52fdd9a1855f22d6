#include "common/route_table.h"

#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

// How it lies in memory: a header, and the buckets of all tiers.
//
// A bucket is two cache lines: a sequence counter and seven slots of two words:
//   oid | when it expires, whether it is in doubt, its scope, its address
// The scope stands for (tier, service, color), as a number; so does the address. A route
// may stand in either of two buckets that its key hashes to, so a lookup reads at most two,
// and the table takes well over its capacity before a put finds both full. A slot whose
// second word is 0 is free.
//
// The writer makes a bucket's sequence odd, stores, and makes it even. Every word
// is stored with release and loaded with acquire order, so that a reader that saw
// a new word also sees that the sequence has moved, and throws the read away. An
// address is only written when no slot refers to it, that is, after the sequence
// of each bucket that did has moved: the reader checks the sequence after it has
// copied the address too. A scope's number is given to another in the same way, and the
// reader looks whether it is still its own.
//
// The hashes are keyed at random: oids and colors come from outside, and must not be
// chosen so that they fall into one bucket. The scope's is SipHash; with the oid it goes
// through two multiplications by secret factors, each folded: the high word of the product
// over the low one. Oids often come in sequence, and a hash that is linear in them (one
// multiply-shift) fills single buckets early: 1 table in 70 did not reach its capacity,
// with this one none in 60,000.
//
// What a lookup costs is waiting for memory. So slots are small (a million routes take 32
// MB, which large caches hold), the four cache lines of both buckets are asked for at once,
// and all fourteen slots compared without a branch that would have to be guessed.
enum {
  SLOTS = 7,
  ROUTES_PER_BUCKET = 4,  // on average, in a full table
  BUCKETS_MIN = 64,
  LOOKUP_TRIES = 8,
  ADDRESSES = 8192,
  SCOPES = 8191,
  ADDRESS_WORDS = (ROUTE_ADDRESS_MAX_BYTES + 1) / 8,
  // The second word, from below. The scope's number counts from 1.
  ADDRESS_BITS = 13,
  SCOPE_BITS = 13,
  SCOPE_SHIFT = ADDRESS_BITS,
  DOUBT_SHIFT = SCOPE_SHIFT + SCOPE_BITS,
  EXPIRY_SHIFT = DOUBT_SHIFT + 1,
  EXPIRY_UNIT_MS = 8,  // of the 37 bits that are left: good until 2059
};
_Static_assert(ADDRESSES <= 1 << ADDRESS_BITS, "an address number fits its bits");
_Static_assert(SCOPES < 1 << SCOPE_BITS, "a scope's number fits its bits");
static const uint64_t doubt_bit = (uint64_t)1 << DOUBT_SHIFT;
static const uint64_t scope_field = (((uint64_t)1 << SCOPE_BITS) - 1) << SCOPE_SHIFT;
static const int64_t expiry_epoch_ms = 1735689600000;  // 2025-01-01

static const uint64_t magic = 0x6a616e75732d7232;  // "janus-r2"

struct slot {
  _Atomic uint64_t oid;
  _Atomic uint64_t place;
};

struct bucket {
  _Atomic uint64_t sequence;
  struct slot slots[SLOTS];
  uint64_t unused;
};
_Static_assert(sizeof(struct bucket) == 128, "two cache lines");

struct address {
  _Atomic uint64_t words[ADDRESS_WORDS];
};

struct scope {
  char service[ROUTE_SERVICE_MAX_BYTES + 1];
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  uint64_t references;  // 0: free
};

struct tier_layout {
  uint64_t capacity;
  uint64_t first_bucket;
  uint64_t bucket_count;
};

struct header {
  uint64_t magic;
  uint64_t size;  // of the whole segment
  uint8_t hash_key[crypto_shorthash_KEYBYTES];
  uint64_t factor[2];        // odd
  _Atomic uint64_t trusted;  // route_table_trust; beside what never changes
  struct tier_layout tiers[ROUTE_TIER_COUNT];
  uint64_t bucket_count;
  uint64_t used[ROUTE_TIER_COUNT];         // the writer's
  uint64_t doubted[ROUTE_TIER_COUNT];      // of the used; the writer's
  uint64_t address_references[ADDRESSES];  // the writer's
  struct scope scopes[SCOPES];             // the writer's
  // Which scope has which number: its hash; 0 where there has never been one.
  _Alignas(64) _Atomic uint64_t scope_hashes[SCOPES];
  _Alignas(64) struct address addresses[ADDRESSES];
};

struct route_table {
  struct shm shm;
  struct header *header;
  struct bucket *buckets;
  // Copies, so that a reader trusts the segment no more once it is open.
  uint64_t bucket_count;
  uint64_t factor[2];
  uint8_t hash_key[crypto_shorthash_KEYBYTES];
  struct tier_layout tiers[ROUTE_TIER_COUNT];
  size_t swept;  // the writer's: where the next sweep begins
};

const char *route_tier_name(enum route_tier tier) {
  static const char *const names[ROUTE_TIER_COUNT] = {"gateway", "player", "object"};
  return (unsigned)tier < ROUTE_TIER_COUNT ? names[tier] : "unknown";
}

// --- Layout ------------------------------------------------------------------

// With more routes to a bucket on average, a put finds both of its buckets full now and
// then, well before the capacity is reached; with very few buckets, chance does the same.
static uint64_t buckets_for(size_t capacity) {
  uint64_t count = (uint64_t)capacity / ROUTES_PER_BUCKET + 1;
  return count < BUCKETS_MIN ? BUCKETS_MIN : count;
}

static size_t buckets_offset(void) { return (sizeof(struct header) + 127) / 128 * 128; }

static size_t segment_size(uint64_t bucket_count) {
  return buckets_offset() + bucket_count * sizeof(struct bucket);
}

// Once the header stands: made or checked.
static void place_parts(struct route_table *table) {
  char *base = table->shm.base;
  const struct header *header = table->shm.base;
  table->bucket_count = header->bucket_count;
  memcpy(table->factor, header->factor, sizeof table->factor);
  memcpy(table->hash_key, header->hash_key, sizeof table->hash_key);
  memcpy(table->tiers, header->tiers, sizeof table->tiers);
  table->header = (struct header *)(void *)base;
  table->buckets = (struct bucket *)(void *)(base + buckets_offset());
}

struct route_table *route_table_create(const struct route_table_options *options, int *error) {
  struct route_table *table = calloc(1, sizeof *table);
  struct tier_layout tiers[ROUTE_TIER_COUNT];
  uint64_t bucket_count = 0;
  for (int i = 0; i < ROUTE_TIER_COUNT; i++) {
    uint64_t count = buckets_for(options->capacity[i]);
    tiers[i] = (struct tier_layout){options->capacity[i], bucket_count, count};
    bucket_count += count;
  }
  *error = !table || sodium_init() < 0
               ? ERROR_MEMORY
               : shm_create(&table->shm, "janus-routes", segment_size(bucket_count), true);
  if (*error != 0) {
    free(table);
    return NULL;
  }
  struct header *header = table->shm.base;
  header->magic = magic;
  header->size = table->shm.size;
  header->bucket_count = bucket_count;
  memcpy(header->tiers, tiers, sizeof tiers);
  randombytes_buf(header->hash_key, sizeof header->hash_key);
  randombytes_buf(header->factor, sizeof header->factor);
  header->factor[0] |= 1;
  header->factor[1] |= 1;
  header->trusted = 1;
  place_parts(table);
  return table;
}

static bool header_is_sound(const struct header *header, size_t size) {
  if (size < sizeof *header || header->magic != magic || header->size != size ||
      header->bucket_count > size / sizeof(struct bucket) ||
      segment_size(header->bucket_count) != size) {
    return false;
  }
  for (int i = 0; i < ROUTE_TIER_COUNT; i++) {
    const struct tier_layout *tier = &header->tiers[i];
    if (tier->first_bucket >= header->bucket_count || tier->bucket_count == 0 ||
        tier->bucket_count > header->bucket_count - tier->first_bucket) {
      return false;
    }
  }
  return true;
}

struct route_table *route_table_open(int fd, int *error) {
  struct route_table *table = calloc(1, sizeof *table);
  struct shm shm;
  *error = shm_map(&shm, fd, false);
  if (*error == 0 && !(table && header_is_sound(shm.base, shm.size))) {
    *error = table ? ERROR_INVALID : ERROR_MEMORY;
    shm_unmap(&shm);
  }
  if (*error != 0) {
    free(table);
    return NULL;
  }
  table->shm = shm;
  place_parts(table);
  return table;
}

void route_table_free(struct route_table *table) {
  if (table) {
    shm_unmap(&table->shm);
    free(table);
  }
}

int route_table_fd(const struct route_table *table) { return table->shm.fd; }

size_t route_table_bytes(const struct route_table *table) { return table->shm.size; }

// --- Keys --------------------------------------------------------------------

// A key as the table sees it.
struct hashed_key {
  uint64_t oid;
  uint64_t scope;  // its hash, never 0
  size_t buckets[2];
};

static uint64_t fold(uint64_t a, uint64_t b) {
  unsigned __int128 product = (unsigned __int128)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static int hash_key(const struct route_table *table, const struct route_key *key,
                    struct hashed_key *hashed) {
  // tier, service, NUL, color
  uint8_t text[1 + ROUTE_SERVICE_MAX_BYTES + 1 + ROUTE_COLOR_MAX_BYTES];
  size_t service_len = strlen(key->service);
  size_t color_len = strlen(key->color);
  if (service_len > ROUTE_SERVICE_MAX_BYTES || color_len > ROUTE_COLOR_MAX_BYTES ||
      (unsigned)key->tier >= ROUTE_TIER_COUNT) {
    return ERROR_TOO_LARGE;
  }
  hashed->oid = (uint64_t)key->oid;
  text[0] = (uint8_t)key->tier;
  memcpy(text + 1, key->service, service_len + 1);
  memcpy(text + 2 + service_len, key->color, color_len);
  crypto_shorthash((uint8_t *)&hashed->scope, text, 2 + service_len + color_len, table->hash_key);
  hashed->scope |= 1;
  uint64_t hash = fold(fold(hashed->oid ^ hashed->scope, table->factor[0]), table->factor[1]);
  const struct tier_layout *tier = &table->tiers[key->tier];
  hashed->buckets[0] = tier->first_bucket + ((hash & 0xffffffff) * tier->bucket_count >> 32);
  hashed->buckets[1] = tier->first_bucket + ((hash >> 32) * tier->bucket_count >> 32);
  return 0;
}

static uint64_t make_place(int64_t expires_at_ms, size_t scope, size_t address) {
  int64_t left_ms = expires_at_ms - expiry_epoch_ms;
  uint64_t units = left_ms > 0 ? (uint64_t)left_ms / EXPIRY_UNIT_MS : 0;
  return units << EXPIRY_SHIFT | (uint64_t)(scope + 1) << SCOPE_SHIFT | address;
}

static int64_t place_expiry(uint64_t place) {
  return expiry_epoch_ms + (int64_t)(place >> EXPIRY_SHIFT) * EXPIRY_UNIT_MS;
}

static bool place_is_guess(uint64_t place, int64_t now_ms) {
  return place & doubt_bit || place_expiry(place) <= now_ms;
}

static size_t place_scope(uint64_t place) { return ((place & scope_field) >> SCOPE_SHIFT) - 1; }

static size_t place_address(uint64_t place) { return (size_t)(place & ((1 << ADDRESS_BITS) - 1)); }

// --- Reading -------------------------------------------------------------------

static uint64_t load(const _Atomic uint64_t *word) {
  return atomic_load_explicit(word, memory_order_acquire);
}

static void copy_address(const struct route_table *table, size_t number,
                         char out[ROUTE_ADDRESS_MAX_BYTES + 1]) {
  const struct address *address = &table->header->addresses[number];
  for (size_t i = 0; i < ADDRESS_WORDS; i++) {
    uint64_t word = load(&address->words[i]);
    memcpy(out + i * 8, &word, 8);
    if ((word - 0x0101010101010101) & ~word & 0x8080808080808080) {  // a byte of it is 0
      return;
    }
  }
  out[ROUTE_ADDRESS_MAX_BYTES] = '\0';
}

// The number of the scope with this hash, SCOPES when there is none.
static size_t find_scope(const struct header *header, uint64_t hash) {
  for (size_t i = 0; i < SCOPES; i++) {
    size_t number = (size_t)((hash + i) % SCOPES);
    uint64_t here = load(&header->scope_hashes[number]);
    if (here == hash) {
      return number;
    }
    if (here == 0) {
      break;
    }
  }
  return SCOPES;
}

// Which of the bucket's slots has the key, as a bit for each. Few instructions count here:
// the processor goes on to the next look-up while this one waits for memory, as far as
// they fit into its window. A free slot has no scope.
static inline unsigned match_slots(const struct bucket *bucket, uint64_t oid, uint64_t scope) {
  unsigned found = 0;
#pragma GCC unroll 7
  for (int i = 0; i < SLOTS; i++) {
    const struct slot *slot = &bucket->slots[i];
    uint64_t difference = (load(&slot->oid) ^ oid) | ((load(&slot->place) ^ scope) & scope_field);
    found |= (unsigned)(difference == 0) << i;
  }
  return found;
}

// One try at both buckets: 0, ERROR_NOT_FOUND, ERROR_EXPIRED, or ERROR_BUSY for a torn read.
static inline int try_buckets(const struct route_table *table, const struct hashed_key *key,
                              int64_t now_ms, struct route *route) {
  const struct bucket *const buckets[2] = {&table->buckets[key->buckets[0]],
                                           &table->buckets[key->buckets[1]]};
  size_t scope = find_scope(table->header, key->scope);
  if (scope == SCOPES) {
    return ERROR_NOT_FOUND;
  }
  uint64_t wanted = (uint64_t)(scope + 1) << SCOPE_SHIFT;
  const uint64_t before[2] = {load(&buckets[0]->sequence), load(&buckets[1]->sequence)};
  unsigned found = match_slots(buckets[0], key->oid, wanted) |
                   match_slots(buckets[1], key->oid, wanted) << SLOTS;
  if (found == 0) {
    // A bucket that is being written may be about to have it.
    bool whole = ((before[0] | before[1]) & 1) == 0 && load(&buckets[0]->sequence) == before[0] &&
                 load(&buckets[1]->sequence) == before[1];
    return whole ? ERROR_NOT_FOUND : ERROR_BUSY;
  }
  int at = __builtin_ctz(found);
  int which = at >= SLOTS;  // an index, not a branch: nobody could guess it
  const struct bucket *bucket = buckets[which];
  uint64_t sequence = before[which];
  uint64_t place = load(&bucket->slots[at - SLOTS * which].place);
  if (sequence & 1 || place == 0) {
    return ERROR_BUSY;
  }
  copy_address(table, place_address(place), route->address);
  route->expires_at_ms = place_expiry(place);
  route->in_doubt = place & doubt_bit;
  // The sequence last: a number that was another scope's in between was not used by this
  // bucket when it changed hands.
  if (load(&table->header->scope_hashes[scope]) != key->scope ||
      load(&bucket->sequence) != sequence) {
    return ERROR_BUSY;
  }
  return place_is_guess(place, now_ms) || !load(&table->header->trusted) ? ERROR_EXPIRED : 0;
}

int route_table_lookup(const struct route_table *table, const struct route_key *key, int64_t now_ms,
                       struct route *route) {
  struct hashed_key hashed;
  int result = hash_key(table, key, &hashed);
  if (result != 0) {
    return result;
  }
  for (int i = 0; i < 2; i++) {
    const char *bucket = (const char *)&table->buckets[hashed.buckets[i]];
    __builtin_prefetch(bucket);
    __builtin_prefetch(bucket + 64);
  }
  int tries = 0;
  do {
    result = try_buckets(table, &hashed, now_ms, route);
  } while (result == ERROR_BUSY && ++tries < LOOKUP_TRIES);
  return result;
}

// --- Writing -------------------------------------------------------------------

static void store(_Atomic uint64_t *word, uint64_t value) {
  atomic_store_explicit(word, value, memory_order_release);
}

static uint64_t peek(const _Atomic uint64_t *word) {
  return atomic_load_explicit(word, memory_order_relaxed);
}

// Finds or adds the address; not yet counted as used. ADDRESSES when all are taken.
static size_t intern_address(struct header *header, const char *text) {
  size_t free_number = ADDRESSES;
  uint64_t words[ADDRESS_WORDS] = {0};
  memcpy(words, text, strlen(text));
  // Starting where the text hashes to; there are few addresses in practice.
  uint64_t hash;
  crypto_shorthash((uint8_t *)&hash, (const uint8_t *)words, sizeof words, header->hash_key);
  for (size_t i = 0; i < ADDRESSES; i++) {
    size_t number = (size_t)(hash + i) % ADDRESSES;
    bool used = header->address_references[number] > 0;
    if (!used && free_number == ADDRESSES) {
      free_number = number;
    }
    bool same = true;
    for (size_t j = 0; same && j < ADDRESS_WORDS; j++) {
      same = peek(&header->addresses[number].words[j]) == words[j];
    }
    if (same) {
      return number;
    }
    if (peek(&header->addresses[number].words[0]) == 0) {
      break;  // never used, so the text stands nowhere further on
    }
  }
  if (free_number < ADDRESSES) {
    for (size_t j = 0; j < ADDRESS_WORDS; j++) {
      store(&header->addresses[free_number].words[j], words[j]);
    }
  }
  return free_number;
}

// Finds or adds the scope; not yet counted as used. SCOPES when all are taken.
static size_t intern_scope(struct header *header, const struct route_key *key, uint64_t hash) {
  size_t free_number = SCOPES;
  for (size_t i = 0; i < SCOPES; i++) {
    size_t number = (size_t)((hash + i) % SCOPES);
    uint64_t here = peek(&header->scope_hashes[number]);
    if (here == hash && header->scopes[number].references > 0) {
      return number;
    }
    if (header->scopes[number].references == 0 && free_number == SCOPES) {
      free_number = number;
    }
    if (here == hash || here == 0) {
      free_number = here == hash ? number : free_number;  // unused: written anew
      break;
    }
  }
  if (free_number < SCOPES) {
    struct scope *scope = &header->scopes[free_number];
    strcpy(scope->service, key->service);
    strcpy(scope->color, key->color);
    store(&header->scope_hashes[free_number], hash);
  }
  return free_number;
}

static void begin_update(struct bucket *bucket) {
  store(&bucket->sequence, peek(&bucket->sequence) + 1);
}
static void end_update(struct bucket *bucket) {
  store(&bucket->sequence, peek(&bucket->sequence) + 1);
}

static enum route_tier tier_of(const struct header *header, size_t bucket) {
  int tier = ROUTE_TIER_COUNT - 1;
  while (tier > 0 && bucket < header->tiers[tier].first_bucket) {
    tier--;
  }
  return (enum route_tier)tier;
}

struct position {
  size_t bucket;
  int slot;
};

static struct slot *slot_at(const struct route_table *table, struct position at) {
  return &table->buckets[at.bucket].slots[at.slot];
}

static void clear_slot(struct route_table *table, struct position at) {
  struct header *header = table->header;
  struct slot *slot = slot_at(table, at);
  uint64_t place = peek(&slot->place);
  begin_update(&table->buckets[at.bucket]);
  store(&slot->place, 0);
  end_update(&table->buckets[at.bucket]);
  header->address_references[place_address(place)]--;
  header->scopes[place_scope(place)].references--;
  header->used[tier_of(header, at.bucket)]--;
  header->doubted[tier_of(header, at.bucket)] -= (place & doubt_bit) != 0;
}

static bool find_slot(const struct route_table *table, const struct hashed_key *key,
                      struct position *at) {
  size_t scope = find_scope(table->header, key->scope);
  uint64_t wanted = (uint64_t)(scope + 1) << SCOPE_SHIFT;
  for (int i = 0; scope < SCOPES && i < 2; i++) {
    for (int j = 0; j < SLOTS; j++) {
      *at = (struct position){key->buckets[i], j};
      const struct slot *slot = slot_at(table, *at);
      if ((peek(&slot->place) & scope_field) == wanted && peek(&slot->oid) == key->oid) {
        return true;
      }
    }
  }
  return false;
}

static int free_slots(const struct bucket *bucket, int64_t now_ms) {
  int count = 0;
  for (int i = 0; i < SLOTS; i++) {
    uint64_t place = peek(&bucket->slots[i].place);
    count += place == 0 || place_is_guess(place, now_ms);
  }
  return count;
}

// One of the bucket that has a guess, or is free where that will do; -1 when there is none.
static int usable_slot(const struct bucket *bucket, bool free_will_do, int64_t now_ms) {
  int guess = -1;
  for (int i = 0; i < SLOTS; i++) {
    uint64_t place = peek(&bucket->slots[i].place);
    if (place == 0 && free_will_do) {
      return i;
    }
    if (place != 0 && place_is_guess(place, now_ms)) {
      guess = i;
    }
  }
  return guess;
}

// Room for the key in the emptier of its buckets, at the cost of a guess if need be: with a
// full tier it need be.
static bool make_slot(struct route_table *table, const struct hashed_key *key, bool full,
                      int64_t now_ms, struct position *at) {
  const struct bucket *buckets = table->buckets;
  bool second =
      free_slots(&buckets[key->buckets[1]], now_ms) > free_slots(&buckets[key->buckets[0]], now_ms);
  for (int i = 0; i < 2; i++) {
    at->bucket = key->buckets[second ^ (i == 1)];
    at->slot = usable_slot(&buckets[at->bucket], !full, now_ms);
    if (at->slot >= 0) {
      if (peek(&slot_at(table, *at)->place) != 0) {
        clear_slot(table, *at);
      }
      return true;
    }
  }
  return false;
}

int route_table_put(struct route_table *table, const struct route_key *key, const char *address,
                    int64_t expires_at_ms, int64_t now_ms) {
  struct header *header = table->header;
  struct hashed_key hashed;
  struct position at;
  int error = hash_key(table, key, &hashed);
  if (error == 0 && (strlen(address) > ROUTE_ADDRESS_MAX_BYTES || address[0] == '\0')) {
    error = ERROR_TOO_LARGE;
  }
  if (error != 0) {
    return error;
  }
  size_t number = intern_address(header, address);
  if (number == ADDRESSES) {
    return ERROR_EXHAUSTED;
  }
  if (find_slot(table, &hashed, &at)) {
    struct slot *slot = slot_at(table, at);
    uint64_t before = peek(&slot->place);
    begin_update(&table->buckets[at.bucket]);
    store(&slot->place, make_place(expires_at_ms, place_scope(before), number));
    end_update(&table->buckets[at.bucket]);
    header->address_references[number]++;
    header->address_references[place_address(before)]--;
    header->doubted[key->tier] -= (before & doubt_bit) != 0;
    return 0;
  }
  // The capacity is what the operator asked for, whatever the buckets could hold beyond it.
  bool full = header->used[key->tier] >= header->tiers[key->tier].capacity;
  header->address_references[number]++;
  size_t scope = make_slot(table, &hashed, full, now_ms, &at)
                     ? intern_scope(header, key, hashed.scope)
                     : SCOPES;
  if (scope == SCOPES) {
    header->address_references[number]--;
    return ERROR_EXHAUSTED;
  }
  struct slot *slot = slot_at(table, at);
  header->scopes[scope].references++;
  header->used[key->tier]++;
  begin_update(&table->buckets[at.bucket]);
  store(&slot->oid, hashed.oid);
  store(&slot->place, make_place(expires_at_ms, scope, number));
  end_update(&table->buckets[at.bucket]);
  return 0;
}

int route_table_remove(struct route_table *table, const struct route_key *key) {
  struct hashed_key hashed;
  struct position at;
  int error = hash_key(table, key, &hashed);
  if (error != 0) {
    return error;
  }
  if (!find_slot(table, &hashed, &at)) {
    return ERROR_NOT_FOUND;
  }
  clear_slot(table, at);
  return 0;
}

static void doubt_slot(struct route_table *table, struct position at) {
  struct slot *slot = slot_at(table, at);
  uint64_t *doubted = &table->header->doubted[tier_of(table->header, at.bucket)];
  *doubted += (peek(&slot->place) & doubt_bit) == 0;
  begin_update(&table->buckets[at.bucket]);
  store(&slot->place, peek(&slot->place) | doubt_bit);
  end_update(&table->buckets[at.bucket]);
}

int route_table_doubt(struct route_table *table, const struct route_key *key) {
  struct hashed_key hashed;
  struct position at;
  int error = hash_key(table, key, &hashed);
  if (error != 0) {
    return error;
  }
  if (!find_slot(table, &hashed, &at)) {
    return ERROR_NOT_FOUND;
  }
  doubt_slot(table, at);
  return 0;
}

void route_table_trust(struct route_table *table, bool trusted) {
  store(&table->header->trusted, trusted);
}

void route_table_repair(struct route_table *table) {
  struct header *header = table->header;
  memset(header->used, 0, sizeof header->used);
  memset(header->doubted, 0, sizeof header->doubted);
  memset(header->address_references, 0, sizeof header->address_references);
  for (size_t i = 0; i < SCOPES; i++) {
    header->scopes[i].references = 0;
  }
  for (size_t i = 0; i < header->bucket_count; i++) {
    struct bucket *bucket = &table->buckets[i];
    bool torn = peek(&bucket->sequence) & 1;
    for (size_t j = 0; j < SLOTS; j++) {
      uint64_t place = peek(&bucket->slots[j].place);
      if (torn) {
        store(&bucket->slots[j].place, 0);
      } else if (place != 0) {
        header->used[tier_of(header, i)]++;
        header->doubted[tier_of(header, i)] += (place & doubt_bit) != 0;
        header->address_references[place_address(place)]++;
        header->scopes[place_scope(place)].references++;
      }
    }
    if (torn) {
      end_update(bucket);
    }
  }
}

void route_table_sweep(struct route_table *table, int64_t now_ms, size_t buckets) {
  const struct header *header = table->header;
  for (size_t i = 0; i < buckets; i++) {
    struct position at = {.bucket = table->swept};
    enum route_tier tier = tier_of(header, at.bucket);
    bool crowded = header->used[tier] > header->tiers[tier].capacity / 8 * 7;
    for (at.slot = 0; at.slot < SLOTS; at.slot++) {
      uint64_t place = peek(&slot_at(table, at)->place);
      if (place != 0 && (place_expiry(place) <= now_ms || (crowded && place & doubt_bit))) {
        clear_slot(table, at);
      }
    }
    table->swept = (table->swept + 1) % table->bucket_count;
  }
}

static struct route_key key_at(const struct route_table *table, struct position at) {
  const struct scope *scope = &table->header->scopes[place_scope(peek(&slot_at(table, at)->place))];
  return (struct route_key){.tier = tier_of(table->header, at.bucket),
                            .service = scope->service,
                            .color = scope->color,
                            .oid = (int64_t)peek(&slot_at(table, at)->oid)};
}

void route_table_each(const struct route_table *table, int64_t now_ms,
                      bool (*visit)(const struct route_key *key, const struct route *route,
                                    void *context),
                      void *context) {
  for (struct position at = {0}; at.bucket < table->bucket_count; at.bucket++) {
    for (at.slot = 0; at.slot < SLOTS; at.slot++) {
      uint64_t place = peek(&slot_at(table, at)->place);
      if (place == 0 || place_expiry(place) <= now_ms) {
        continue;
      }
      const struct route_key key = key_at(table, at);
      struct route route = {.expires_at_ms = place_expiry(place),
                            .in_doubt = place & doubt_bit || !peek(&table->header->trusted)};
      copy_address(table, place_address(place), route.address);
      if (!visit(&key, &route, context)) {
        return;
      }
    }
  }
}

// Does act to every route of the tier for which matches says true.
static void each_match(struct route_table *table, enum route_tier tier,
                       bool (*matches)(const struct route_key *key, void *context), void *context,
                       void (*act)(struct route_table *table, struct position at)) {
  const struct tier_layout *layout = &table->tiers[tier];
  for (struct position at = {.bucket = layout->first_bucket};
       at.bucket < layout->first_bucket + layout->bucket_count; at.bucket++) {
    for (at.slot = 0; at.slot < SLOTS; at.slot++) {
      if (peek(&slot_at(table, at)->place) == 0) {
        continue;
      }
      const struct route_key key = key_at(table, at);
      if (!matches || matches(&key, context)) {
        act(table, at);
      }
    }
  }
}

void route_table_doubt_if(struct route_table *table, enum route_tier tier,
                          bool (*matches)(const struct route_key *key, void *context),
                          void *context) {
  each_match(table, tier, matches, context, doubt_slot);
}

void route_table_remove_if(struct route_table *table, enum route_tier tier,
                           bool (*matches)(const struct route_key *key, void *context),
                           void *context) {
  each_match(table, tier, matches, context, clear_slot);
}

void route_table_stats(const struct route_table *table, struct route_table_stats *stats) {
  const struct header *header = table->header;
  for (int i = 0; i < ROUTE_TIER_COUNT; i++) {
    stats->capacity[i] = header->tiers[i].capacity;
    stats->used[i] = header->used[i];
    stats->doubted[i] = header->doubted[i];
  }
}
