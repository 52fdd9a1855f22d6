// The configuration's section kcp in the terms of a connection's layers. The gateway and the tools'
// client both go by it. Pure, any thread.
#ifndef JANUS_COMMON_KCP_SETTINGS_H
#define JANUS_COMMON_KCP_SETTINGS_H

#include "common/config.h"
#include "common/kcp/link.h"

// All but what belongs to whoever has the connections: the erasure code, the scratch buffer and the
// spares are NULL, and it is the server's side.
struct link_settings kcp_settings_for_link(const struct config_kcp *kcp);

#endif
