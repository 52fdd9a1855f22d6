#include "worker/packing.h"

#include <stdlib.h>
#include <string.h>

#include "common/packet_deflate.h"
#include "worker/session.h"
#include "worker/slice.h"

// What is compressed at once takes some 100 us at most, by libdeflate; a piece takes as long at the
// strong level.
enum { AT_ONCE_BYTES = 16 << 10, PIECE_BYTES = 2 << 10 };

struct packed_item {
  TAILQ_ENTRY(packed_item) link;
  struct session *session;
  struct packet packet;
  int level;  // 0: it goes as it is, and only waits for what is before it
  uint8_t data[];
};

TAILQ_HEAD(packed_list, packed_item);

struct packing {
  struct worker *worker;
  packing_done *on_done;
  struct deflater *deflater;
  struct packed_list items;  // of all sessions
  bool begun;                // with the first
  struct event *turn;
};

static void remove_item(struct packing *packing, struct packed_item *item) {
  packing->begun = packing->begun && item != TAILQ_FIRST(&packing->items);
  TAILQ_REMOVE(&packing->items, item, link);
  item->session->packing--;
}

// What the first becomes. ERROR_BUSY: the slice was over before.
static int pack_first(struct packing *packing, int64_t end_us, struct packet *packed) {
  const struct packed_item *item = TAILQ_FIRST(&packing->items);
  const struct packet *packet = &item->packet;
  const uint8_t *data = NULL;
  size_t data_len = 0;
  int error = 0;
  *packed = *packet;  // NOLINT(clang-analyzer-unix.Malloc): the one before has left the list
  if (item->level == 0) {
    return 0;
  }
  if (!packing->begun) {
    error = deflater_start(packing->deflater, item->level, packet->data, packet->data_len,
                           packet_deflate_most(&packing->worker->config, packet));
    packing->begun = error == 0;
  }
  while (error == 0 && (error = deflater_advance(packing->deflater, PIECE_BYTES, &data,
                                                 &data_len)) == ERROR_BUSY) {
    if (slice_is_over(end_us)) {
      return ERROR_BUSY;
    }
    error = 0;
  }
  if (error == 0) {
    packet_deflated(packet, data, data_len, packed);
  }
  return error == ERROR_TOO_LARGE ? 0 : error;
}

static void on_turn(evutil_socket_t fd, short what, void *context) {
  struct packing *packing = context;
  struct packed_item *item;
  struct packet packed;
  int64_t end_us = slice_end_us();
  int error = 0;
  (void)fd;
  (void)what;
  while ((item = TAILQ_FIRST(&packing->items)) && !slice_is_over(end_us) &&
         (error = pack_first(packing, end_us, &packed)) != ERROR_BUSY) {
    remove_item(packing, item);  // NOLINT(clang-analyzer-unix.Malloc)
    packing->on_done(item->session, &item->packet, &packed, error);
    free(item);
  }
  if (item) {
    slice_go_on(packing->turn);
  }
}

bool packing_takes(const struct packing *packing, const struct session *session,
                   const struct packet *packet) {
  return session->packing > 0 || (packet->data_len > AT_ONCE_BYTES &&
                                  packet_deflate_level(&packing->worker->config, packet) != 0);
}

int packing_add(struct packing *packing, struct session *session, const struct packet *packet) {
  static const struct timeval next_turn = {0};
  struct packed_item *item = malloc(sizeof *item + packet->data_len);
  if (!item) {
    return ERROR_MEMORY;
  }
  item->session = session;
  item->packet = *packet;
  item->packet.data = item->data;
  item->level = packet_deflate_level(&packing->worker->config, packet);
  if (packet->data_len > 0) {
    memcpy(item->data, packet->data, packet->data_len);
  }
  TAILQ_INSERT_TAIL(&packing->items, item, link);
  session->packing++;
  counters_add(packing->worker->counters, COUNTER_DEFLATED_IN_SLICES, item->level != 0);
  evtimer_add(packing->turn, &next_turn);
  return 0;
}

size_t packing_drop(struct packing *packing, struct session *session) {
  size_t dropped = 0;
  struct packed_item *next;
  for (struct packed_item *item = TAILQ_FIRST(&packing->items); item && session->packing > 0;
       item = next) {
    next = TAILQ_NEXT(item, link);
    if (item->session == session) {
      remove_item(packing, item);
      free(item);
      dropped++;
    }
  }
  return dropped;
}

struct packing *packing_new(struct worker *worker, packing_done *on_done) {
  struct packing *packing = calloc(1, sizeof *packing);
  if (!packing) {
    return NULL;
  }
  packing->worker = worker;
  packing->on_done = on_done;
  TAILQ_INIT(&packing->items);
  packing->deflater = deflater_new_zlib();
  packing->turn = evtimer_new(worker->base, on_turn, packing);
  if (!packing->deflater || !packing->turn) {
    packing_free(packing);
    return NULL;
  }
  return packing;
}

void packing_free(struct packing *packing) {
  struct packed_item *item;
  if (!packing) {
    return;
  }
  while ((item = TAILQ_FIRST(&packing->items))) {
    TAILQ_REMOVE(&packing->items, item, link);
    free(item);  // NOLINT(clang-analyzer-unix.Malloc): it has left the list
  }
  if (packing->turn) {
    event_free(packing->turn);
  }
  deflater_free(packing->deflater);
  free(packing);
}
