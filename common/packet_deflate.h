// Compresses what goes to clients, by the settings. Any process; one deflater is used by
// one thread at a time.
#ifndef JANUS_COMMON_PACKET_DEFLATE_H
#define JANUS_COMMON_PACKET_DEFLATE_H

#include "common/config.h"
#include "common/deflate.h"
#include "common/packet.h"

// packed is packet with its data compressed, where the settings ask for it and it becomes
// smaller; the data is then the deflater's until its next use. Data that could not fit a
// client's message even so is left as it is. ERROR_MEMORY.
int packet_deflate(struct deflater *deflater, const struct config *config,
                   const struct packet *packet, struct packet *packed) MUST_CHECK;

// What it is made of, for whoever compresses in pieces (deflater_start). The level that the
// settings ask for; 0: it goes as it is.
int packet_deflate_level(const struct config *config, const struct packet *packet);
// Of so many bytes it would be the smaller for being compressed, and could fit a client's message.
size_t packet_deflate_most(const struct config *config, const struct packet *packet);
// packed is packet with this data, compressed.
void packet_deflated(const struct packet *packet, const uint8_t *data, size_t data_len,
                     struct packet *packed);

#endif
