#include "common/node_table.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/shm.h"

// The segment: this header, then the nodes as words. The writer makes the sequence
// odd, stores, and makes it even again; a reader whose words were stored under a
// sequence other than the one it began with tries again. Words are stored with
// release and loaded with acquire order, so that whoever saw a new word also sees
// that the sequence has moved.
struct segment {
  _Atomic uint64_t sequence;
  _Atomic uint64_t count;
  _Atomic uint64_t current;  // node_table_set_current
  uint64_t capacity;
  uint64_t node_bytes;  // sizeof(struct node), as the maker knows it
  _Atomic uint64_t words[];
};

enum {
  NODE_WORDS = sizeof(struct node) / sizeof(uint64_t),
  READ_TRIES = 100,
};
_Static_assert(sizeof(struct node) % sizeof(uint64_t) == 0, "a node is whole words");

struct node_table {
  struct shm shm;
  struct segment *segment;
};

int node_compare(const void *a, const void *b) {
  const struct node *left = a;
  const struct node *right = b;
  int order = strcmp(left->service, right->service);
  return order != 0 ? order : strcmp(left->address, right->address);
}

static size_t segment_size(size_t capacity) {
  return sizeof(struct segment) + capacity * sizeof(struct node);
}

struct node_table *node_table_create(size_t capacity, int *error) {
  struct node_table *table = calloc(1, sizeof *table);
  *error =
      table ? shm_create(&table->shm, "janus-nodes", segment_size(capacity), true) : ERROR_MEMORY;
  if (*error != 0) {
    free(table);
    return NULL;
  }
  table->segment = table->shm.base;
  table->segment->capacity = capacity;
  table->segment->node_bytes = sizeof(struct node);
  return table;
}

struct node_table *node_table_open(int fd, int *error) {
  struct node_table *table = calloc(1, sizeof *table);
  struct shm shm;
  *error = shm_map(&shm, fd, false);
  if (*error == 0) {
    const struct segment *segment = shm.base;
    if (!table) {
      *error = ERROR_MEMORY;
    } else if (shm.size < sizeof *segment || segment->node_bytes != sizeof(struct node) ||
               segment->capacity > (shm.size - sizeof *segment) / sizeof(struct node)) {
      *error = ERROR_INVALID;
    }
    if (*error != 0) {
      shm_unmap(&shm);
    }
  }
  if (*error != 0) {
    free(table);
    return NULL;
  }
  table->shm = shm;
  table->segment = shm.base;
  return table;
}

void node_table_free(struct node_table *table) {
  if (table) {
    shm_unmap(&table->shm);
    free(table);
  }
}

int node_table_fd(const struct node_table *table) { return table->shm.fd; }

int node_table_publish(struct node_table *table, const struct node *nodes, size_t count) {
  struct segment *segment = table->segment;
  int error = count > segment->capacity ? ERROR_EXHAUSTED : 0;
  if (error != 0) {
    count = segment->capacity;
  }
  // Also right when a writer before us died with the sequence odd.
  uint64_t odd = atomic_load_explicit(&segment->sequence, memory_order_relaxed) | 1;
  atomic_store_explicit(&segment->sequence, odd, memory_order_release);
  atomic_store_explicit(&segment->count, count, memory_order_release);
  for (size_t i = 0; i < count; i++) {
    uint64_t words[NODE_WORDS];
    memcpy(words, &nodes[i], sizeof words);
    for (size_t j = 0; j < NODE_WORDS; j++) {
      atomic_store_explicit(&segment->words[i * NODE_WORDS + j], words[j], memory_order_release);
    }
  }
  atomic_store_explicit(&segment->sequence, odd + 1, memory_order_release);
  return error;
}

void node_table_set_current(struct node_table *table, bool current) {
  atomic_store_explicit(&table->segment->current, current, memory_order_release);
}

bool node_table_is_current(const struct node_table *table) {
  return atomic_load_explicit(&table->segment->current, memory_order_acquire) != 0;
}

uint64_t node_table_version(const struct node_table *table) {
  return atomic_load_explicit(&table->segment->sequence, memory_order_acquire);
}

// One try: ERROR_BUSY when the writer was at it.
static int try_read(const struct segment *segment, size_t room, struct node *nodes, size_t *count,
                    uint64_t *version) {
  uint64_t before = atomic_load_explicit(&segment->sequence, memory_order_acquire);
  if (before & 1) {
    return ERROR_BUSY;
  }
  *count = atomic_load_explicit(&segment->count, memory_order_acquire);
  if (*count > room) {
    return ERROR_BUSY;
  }
  for (size_t i = 0; i < *count; i++) {
    uint64_t words[NODE_WORDS];
    for (size_t j = 0; j < NODE_WORDS; j++) {
      words[j] = atomic_load_explicit(&segment->words[i * NODE_WORDS + j], memory_order_acquire);
    }
    memcpy(&nodes[i], words, sizeof words);
  }
  *version = before;
  return atomic_load_explicit(&segment->sequence, memory_order_relaxed) == before ? 0 : ERROR_BUSY;
}

int node_table_read(const struct node_table *table, struct node **nodes, size_t *count,
                    uint64_t *version) {
  const struct segment *segment = table->segment;
  for (int i = 0; i < READ_TRIES; i++) {
    size_t room = atomic_load_explicit(&segment->count, memory_order_acquire);
    if (room > segment->capacity) {
      return ERROR_BUSY;
    }
    struct node *copy = room > 0 ? malloc(room * sizeof *copy) : NULL;
    if (room > 0 && !copy) {
      return ERROR_MEMORY;
    }
    if (try_read(segment, room, copy, count, version) == 0) {
      *nodes = copy;
      return 0;
    }
    free(copy);
  }
  return ERROR_BUSY;
}
