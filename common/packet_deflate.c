#include "common/packet_deflate.h"

// Compressing costs up to 15 ns a byte at level 1 and never shrinks below a
// thousandth, so what is over this has no chance of fitting a client's frame.
enum { DEFLATE_BEST_RATIO = 1032 };
enum { DEFLATE_WEAK_LEVEL = 1, DEFLATE_STRONG_LEVEL = 6 };

int packet_deflate_level(const struct config *config, const struct packet *packet) {
  if (packet->data_len < (size_t)config->compress.weak_bytes ||
      packet->data_len / DEFLATE_BEST_RATIO > (size_t)config->limits.message_to_client_bytes) {
    return 0;
  }
  return packet->data_len < (size_t)config->compress.strong_bytes ? DEFLATE_WEAK_LEVEL
                                                                  : DEFLATE_STRONG_LEVEL;
}

size_t packet_deflate_most(const struct config *config, const struct packet *packet) {
  size_t limit = (size_t)config->limits.message_to_client_bytes;
  return packet->data_len > limit ? limit : packet->data_len - 1;
}

void packet_deflated(const struct packet *packet, const uint8_t *data, size_t data_len,
                     struct packet *packed) {
  *packed = *packet;
  packed->data = data;
  packed->data_len = data_len;
  packed->compress = true;
}

int packet_deflate(struct deflater *deflater, const struct config *config,
                   const struct packet *packet, struct packet *packed) {
  int level = packet_deflate_level(config, packet);
  const uint8_t *data;
  size_t data_len;
  *packed = *packet;
  if (level == 0) {
    return 0;
  }
  int error = deflater_compress(deflater, level, packet->data, packet->data_len,
                                packet_deflate_most(config, packet), &data, &data_len);
  if (error == 0) {
    packet_deflated(packet, data, data_len, packed);
  }
  return error == ERROR_TOO_LARGE ? 0 : error;
}
