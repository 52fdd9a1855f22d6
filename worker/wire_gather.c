#include "worker/wire_gather.h"

#include <stdlib.h>
#include <string.h>

enum {
  ARENA_BYTES = 256 << 10,
  PIECE_ALIGNMENT = 8,
};

// Messages for one client that stand one behind the other. Those of a broadcast, which come in
// turns with the others' clients, are a piece each.
struct gathered_piece {
  struct gathered_piece *next;
  uint32_t len;
  uint32_t all_len;  // of the first: of all pieces
  uint8_t bytes[];
};

TAILQ_HEAD(gathered_queue, gathered);

struct wire_gather {
  struct event *end_of_turn;
  void (*send)(struct gathered *gathered);
  struct gathered_queue queue;
  size_t used;  // of the arena
  uint8_t together[GATHERED_MAX_BYTES];
  _Alignas(PIECE_ALIGNMENT) uint8_t arena[ARENA_BYTES];
};
_Static_assert(ARENA_BYTES >=
                   GATHERED_MAX_BYTES + PIECE_ALIGNMENT + (int)sizeof(struct gathered_piece),
               "all of one client's has room");

void wire_gather_flush(struct wire_gather *gather) {
  struct gathered *gathered;
  while ((gathered = TAILQ_FIRST(&gather->queue))) {
    gather->send(gathered);
  }
}

static void on_end_of_turn(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  wire_gather_flush(owner);
}

bool wire_gather_has_room(const struct wire_gather *gather, size_t len) {
  return gather->used + PIECE_ALIGNMENT + sizeof(struct gathered_piece) + len <= ARENA_BYTES;
}

static struct gathered_piece *new_piece(struct wire_gather *gather) {
  size_t at = (gather->used + PIECE_ALIGNMENT - 1) & ~(size_t)(PIECE_ALIGNMENT - 1);
  struct gathered_piece *piece = (struct gathered_piece *)(void *)(gather->arena + at);
  *piece = (struct gathered_piece){.next = NULL};
  gather->used = at + sizeof *piece;
  return piece;
}

void wire_gather_add(struct wire_gather *gather, struct gathered *gathered, const uint8_t *bytes,
                     size_t len) {
  struct gathered_piece *last = gathered->last;
  if (!gathered->first) {
    if (TAILQ_EMPTY(&gather->queue)) {
      // Behind all that is due in this turn by now.
      event_active(gather->end_of_turn, EV_TIMEOUT, 0);
    }
    TAILQ_INSERT_TAIL(&gather->queue, gathered, link);
    last = gathered->first = gathered->last = new_piece(gather);
  } else if (last->bytes + last->len != gather->arena + gather->used) {
    last = gathered->last->next = new_piece(gather);
    gathered->last = last;
  }
  memcpy(last->bytes + last->len, bytes, len);
  last->len += (uint32_t)len;
  gathered->first->all_len += (uint32_t)len;
  gather->used += len;
}

size_t gathered_bytes(const struct gathered *gathered) {
  return gathered->first ? gathered->first->all_len : 0;
}

const uint8_t *wire_gather_take(struct wire_gather *gather, struct gathered *gathered,
                                size_t *len) {
  const struct gathered_piece *piece = gathered->first;
  *len = gathered_bytes(gathered);
  if (!piece) {
    return NULL;
  }
  const uint8_t *bytes = piece->bytes;
  if (piece->next) {
    uint8_t *to = gather->together;
    for (; piece; piece = piece->next) {
      memcpy(to, piece->bytes, piece->len);
      to += piece->len;
    }
    bytes = gather->together;
  }
  TAILQ_REMOVE(&gather->queue, gathered, link);
  gathered->first = gathered->last = NULL;
  if (TAILQ_EMPTY(&gather->queue)) {
    gather->used = 0;
  }
  return bytes;
}

struct wire_gather *wire_gather_new(struct event_base *base, void (*send)(struct gathered *)) {
  struct wire_gather *gather = malloc(sizeof *gather);  // touched as far as it is used
  if (!gather) {
    return NULL;
  }
  gather->end_of_turn = event_new(base, -1, 0, on_end_of_turn, gather);
  gather->send = send;
  gather->used = 0;
  TAILQ_INIT(&gather->queue);
  if (!gather->end_of_turn) {
    free(gather);
    return NULL;
  }
  return gather;
}

void wire_gather_free(struct wire_gather *gather) {
  if (gather) {
    event_free(gather->end_of_turn);
    free(gather);
  }
}
