// KCP connections that have just ended, by their client's address and conv: what still comes from
// the client must not make a new one. A table of a fixed size, in which one may push out another;
// a client whose end is forgotten early makes a connection that falls silent.
//
// Loop thread only. Times are monotonic.
#ifndef JANUS_WORKER_KCP_CLOSED_H
#define JANUS_WORKER_KCP_CLOSED_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/kcp_socket.h"

// Longer than a client's smux waits before it notices.
enum { KCP_CLOSED_KEPT_MS = 60000 };

struct kcp_closed;

struct kcp_closed *kcp_closed_new(void);          // NULL when out of memory
void kcp_closed_free(struct kcp_closed *closed);  // accepts NULL

// Remembers it for KCP_CLOSED_KEPT_MS, to the second.
void kcp_closed_add(struct kcp_closed *closed, const struct kcp_peer *peer, uint32_t conv,
                    int64_t now_ms);
bool kcp_closed_has(const struct kcp_closed *closed, const struct kcp_peer *peer, uint32_t conv,
                    int64_t now_ms);

#endif
