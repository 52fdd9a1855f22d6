#include "common/layout.h"

#include <string.h>

#include "common/channel.h"
#include "common/counters.h"
#include "common/kcp_owners.h"
#include "common/tls_material.h"

// Counted up when what is said means something else, in a form that has stayed the same.
enum { MEANING = 3 };

// FNV-1a.
static uint64_t mix(uint64_t hash, const void *bytes, size_t len) {
  for (size_t i = 0; i < len; i++) {
    hash = (hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3;
  }
  return hash;
}

static uint64_t mix_number(uint64_t hash, uint64_t number) {
  return mix(hash, &number, sizeof number);
}

static uint64_t mix_text(uint64_t hash, const char *text) {
  return mix(hash, text, strlen(text) + 1);
}

uint64_t layout_id(void) {
  const uint64_t sizes[] = {
      MEANING,
      sizeof(struct counters),
      sizeof(struct tls_material),
      sizeof(struct node),
      sizeof(struct route),
      CONFIG_TUNNEL_TYPES,
      CONFIG_LISTENERS,
      CONFIG_WORKER_NUMBERS,
  };
  uint64_t hash = mix(0xcbf29ce484222325, sizes, sizeof sizes);
  hash = mix_number(hash, kcp_owners_layout());
  for (int i = 0; i < CHANNEL_TYPE_END; i++) {
    hash = mix_number(hash, channel_message_size((enum channel_type)i));
  }
  for (int i = 0; i < COUNTER_COUNT; i++) {
    hash = mix_text(hash, counter_about[i].name);
  }
  for (int i = 0; i < GAUGE_COUNT; i++) {
    hash = mix_text(hash, gauge_about[i].name);
  }
  for (int i = 0; i < SPLIT_COUNT; i++) {
    hash = mix(hash, &split_about[i].by, sizeof split_about[i].by);
    hash = mix(hash, &split_about[i].counter, sizeof split_about[i].counter);
    hash = mix(hash, &split_about[i].gauge, sizeof split_about[i].gauge);
  }
  for (int i = 0; i < HISTOGRAM_COUNT; i++) {
    hash = mix_text(hash, histogram_about[i].name);
  }
  for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
    hash = mix_text(hash, close_reason_name((enum close_reason)i));
  }
  return hash;
}
