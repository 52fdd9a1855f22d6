#include "common/kcp_settings.h"

struct link_settings kcp_settings_for_link(const struct config_kcp *kcp) {
  return (struct link_settings){
      .kcp = {.nodelay = kcp->nodelay,
              .interval_ms =
                  (uint32_t)(kcp->interval_ms > KCP_INTERVAL_MIN_MS ? kcp->interval_ms
                                                                    : KCP_INTERVAL_MIN_MS),
              .resend = (uint32_t)kcp->resend,
              .congestion_window = kcp->congestion_window,
              .ack_nodelay = kcp->ack_nodelay,
              .send_window = (uint32_t)kcp->send_window,
              .receive_window = (uint32_t)kcp->receive_window,
              .mtu = (uint32_t)kcp->mtu_bytes},
      .smux = {.frame_bytes = (uint32_t)kcp->frame_bytes,
               .stream_bytes = (uint32_t)kcp->stream_buffer_bytes,
               .session_bytes = (uint32_t)kcp->receive_buffer_bytes,
               .streams_max = (uint32_t)kcp->streams,
               .keepalive_interval_ms = kcp->keepalive_interval_ms,
               .keepalive_timeout_ms = kcp->keepalive_timeout_ms},
  };
}
