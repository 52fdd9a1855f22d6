#include "worker/push_queue.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

// What makes two pushes the same thing in two versions.
struct subject {
  int64_t obj;
  int32_t mod;
  int32_t seq;
};

struct push_entry {
  struct push_entry *next;
  struct push_entry *previous;
  struct push *push;
  struct subject subject;
  UT_hash_handle hh;  // while it is the newest of its subject
  bool is_newest;
};

struct push *push_new(const struct channel_push *about) {
  struct push *push = malloc(sizeof *push + about->packet_bytes);
  if (push) {
    push->references = 1;
    push->addressed = 0;
    push->about = *about;
    memcpy(push->packet, channel_push_packet(about), about->packet_bytes);
  }
  return push;
}

struct push *push_ref(struct push *push) {
  push->references++;
  return push;
}

void push_unref(struct push *push) {
  if (--push->references == 0) {
    free(push);
  }
}

size_t push_queue_cost(const struct push *push) {
  return push->about.packet_bytes + sizeof(struct push_entry);
}

static void forget_newest(struct push_queue *queue, struct push_entry *entry) {
  if (entry->is_newest) {
    // NOLINTNEXTLINE(clang-analyzer-*): uthash, whose table has this one in it
    HASH_DELETE(hh, queue->newest, entry);
    entry->is_newest = false;
  }
}

// Takes it out; its reference is the caller's then.
static struct push *detach(struct push_queue *queue, struct push_entry *entry) {
  struct push *push = entry->push;
  forget_newest(queue, entry);
  *(entry->previous ? &entry->previous->next : &queue->first) = entry->next;
  *(entry->next ? &entry->next->previous : &queue->last) = entry->previous;
  queue->count--;
  queue->bytes -= push_queue_cost(push);
  if (queue->count == 0) {
    queue->conflates = false;
  }
  free(entry);
  return push;
}

// Has the one that waits give way to entry, which came later. Returns how many did.
static size_t give_way(struct push_queue *queue, struct push_entry *entry) {
  struct push_entry *other = NULL;
  uint64_t version = entry->push->about.data_version;
  size_t gave_way = 0;
  if (version == 0) {
    return 0;
  }
  HASH_FIND(hh, queue->newest, &entry->subject, sizeof entry->subject, other);
  if (other && other->push->about.data_version < version) {
    push_unref(detach(queue, other));
    gave_way = 1;
  } else if (other) {
    forget_newest(queue, other);  // an older version that came later: both are sent
  }
  HASH_ADD(hh, queue->newest, subject, sizeof entry->subject, entry);
  entry->is_newest = true;
  return gave_way;
}

int push_queue_add(struct push_queue *queue, struct push *push, size_t *gave_way) {
  struct push_entry *entry = calloc(1, sizeof *entry);
  *gave_way = 0;
  if (!entry) {
    return ERROR_MEMORY;
  }
  entry->push = push_ref(push);
  entry->subject.obj = push->about.obj;
  entry->subject.mod = push->about.mod;
  entry->subject.seq = push->about.seq;
  entry->previous = queue->last;
  *(queue->last ? &queue->last->next : &queue->first) = entry;
  queue->last = entry;
  queue->count++;
  queue->bytes += push_queue_cost(push);
  if (queue->conflates) {
    *gave_way = give_way(queue, entry);
  }
  return 0;
}

struct push *push_queue_take(struct push_queue *queue) {
  // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the queue
  return queue->first ? detach(queue, queue->first) : NULL;
}

size_t push_queue_conflate(struct push_queue *queue) {
  size_t gave_way = 0;
  if (queue->conflates || queue->count == 0) {
    return 0;
  }
  queue->conflates = true;
  for (struct push_entry *entry = queue->first; entry; entry = entry->next) {
    gave_way += give_way(queue, entry);
  }
  return gave_way;
}

size_t push_queue_drop_oldest(struct push_queue *queue, size_t bytes, push_on_dropped *on_dropped,
                              void *owner) {
  size_t before = queue->count;
  while (queue->bytes > bytes) {
    struct push *push = push_queue_take(queue);
    if (on_dropped) {
      on_dropped(push, owner);
    }
    push_unref(push);
  }
  return before - queue->count;
}

size_t push_queue_clear(struct push_queue *queue, push_on_dropped *on_dropped, void *owner) {
  return push_queue_drop_oldest(queue, 0, on_dropped, owner);
}
