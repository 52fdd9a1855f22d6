// The address by which others know this gateway: server.grpc.advertise, or what follows from where
// gRPC listens.
#ifndef JANUS_MASTER_ADVERTISE_H
#define JANUS_MASTER_ADVERTISE_H

#include <stdbool.h>

#include "common/config.h"

// Fills it in where it is not given. port is the one that the gRPC server has.
void advertise_derive(struct config *config, int port);
// Other gateways and servers know this one by it: one that leads nowhere is warned of.
void advertise_warn(const struct config *config);
bool advertise_is_loopback(const char *address);  // host:port

#endif
