#include "common/packet_deflate.h"

// Compressing costs about 5.5 ns a byte at level 1 and never shrinks below a
// thousandth, so what is over this has no chance of fitting a client's frame.
enum { DEFLATE_BEST_RATIO = 1032 };
enum { DEFLATE_WEAK_LEVEL = 1, DEFLATE_STRONG_LEVEL = 6 };

int packet_deflate(struct deflater *deflater, const struct config *config,
                   const struct packet *packet, struct packet *packed) {
  *packed = *packet;
  if (packet->data_len < (size_t)config->compress.weak_bytes ||
      packet->data_len / DEFLATE_BEST_RATIO > (size_t)config->limits.message_to_client_bytes) {
    return 0;
  }
  int level = packet->data_len < (size_t)config->compress.strong_bytes ? DEFLATE_WEAK_LEVEL
                                                                       : DEFLATE_STRONG_LEVEL;
  const uint8_t *data;
  size_t data_len;
  int error = deflater_compress(deflater, level, packet->data, packet->data_len, &data, &data_len);
  if (error == 0 && data_len < packet->data_len) {
    packed->data = data;
    packed->data_len = data_len;
    packed->compress = true;
  }
  return error;
}
