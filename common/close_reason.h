// Why a connection or a session ended. The name is the same in the log line, in
// the counter's label and in traces.
#ifndef JANUS_COMMON_CLOSE_REASON_H
#define JANUS_COMMON_CLOSE_REASON_H

#include <stdbool.h>
#include <stdint.h>

// What SCServerLogout says to the client (client protocol, "after the handshake").
enum logout_code {
  LOGOUT_NONE = -1,  // the client is not told
  LOGOUT_SERVER = 0,
  LOGOUT_WAITING = 1,
  LOGOUT_UNAUTHORIZED = 2,
  LOGOUT_CONFLICTING_LOGIN = 3,
  LOGOUT_ADMIN_KICK_OUT = 4,
  LOGOUT_BANNED = 5,
};

// X(identifier, name, code that a logged-in client is told, code of a WebSocket's close frame)
#define CLOSE_REASONS(X)                                                    \
  /* The client's own doing. */                                             \
  X(CLIENT_CLOSED, "client_closed", LOGOUT_NONE, 1000)                      \
  X(CLIENT_RESET, "client_reset", LOGOUT_NONE, 1000)                        \
  X(FRAME_LENGTH, "frame_length", LOGOUT_SERVER, 1009)                      \
  X(IDLE_TIMEOUT, "idle_timeout", LOGOUT_SERVER, 1008)                      \
  X(SLOW_CLIENT, "slow_client", LOGOUT_WAITING, 1013)                       \
  X(PING_TIMEOUT, "ping_timeout", LOGOUT_NONE, 1008)                        \
  X(KCP_SILENT, "kcp_silent", LOGOUT_NONE, 1008)                            \
  X(SMUX_MALFORMED, "smux_malformed", LOGOUT_NONE, 1002)                    \
  X(WEBSOCKET_UPGRADE, "websocket_upgrade", LOGOUT_NONE, 1002)              \
  X(WEBSOCKET_PROTOCOL, "websocket_protocol", LOGOUT_NONE, 1002)            \
  X(WEBSOCKET_TEXT, "websocket_text", LOGOUT_NONE, 1003)                    \
  X(WEBSOCKET_FLOOD, "websocket_flood", LOGOUT_NONE, 1008)                  \
  /* Before the login, in the order of the checks. */                       \
  X(CONNECTION_LIMIT, "connection_limit", LOGOUT_NONE, 1013)                \
  X(ADDRESS_LIMIT, "address_limit", LOGOUT_NONE, 1013)                      \
  X(DESCRIPTOR_LIMIT, "descriptor_limit", LOGOUT_NONE, 1013)                \
  X(PROXY_HEADER, "proxy_header", LOGOUT_NONE, 1008)                        \
  X(TLS_FAILED, "tls_failed", LOGOUT_NONE, 1008)                            \
  X(TLS_RATE, "tls_rate", LOGOUT_NONE, 1013)                                \
  X(ADDRESS_DENIED, "address_denied", LOGOUT_NONE, 1008)                    \
  X(HANDSHAKE_TIMEOUT, "handshake_timeout", LOGOUT_NONE, 1008)              \
  X(HANDSHAKE_RATE, "handshake_rate", LOGOUT_NONE, 1013)                    \
  X(HANDSHAKE_MALFORMED, "handshake_malformed", LOGOUT_NONE, 1008)          \
  X(HANDSHAKE_UNEXPECTED, "handshake_unexpected", LOGOUT_NONE, 1008)        \
  X(TOKEN_EMPTY, "token_empty", LOGOUT_NONE, 1008)                          \
  X(HANDSHAKE_CLOCK, "handshake_clock", LOGOUT_NONE, 1008)                  \
  X(TOKEN_ENCODING, "token_encoding", LOGOUT_NONE, 1008)                    \
  X(TOKEN_SEAL, "token_seal", LOGOUT_NONE, 1008)                            \
  X(TOKEN_CONTENT, "token_content", LOGOUT_NONE, 1008)                      \
  X(TOKEN_EXPIRED, "token_expired", LOGOUT_NONE, 1008)                      \
  X(HANDSHAKE_KEY, "handshake_key", LOGOUT_NONE, 1008)                      \
  X(HANDSHAKE_SIGNATURE, "handshake_signature", LOGOUT_NONE, 1008)          \
  X(HANDSHAKE_REPLAY, "handshake_replay", LOGOUT_NONE, 1008)                \
  X(BANNED, "banned", LOGOUT_BANNED, 1008)                                  \
  /* A logged-in client that breaks the protocol. */                        \
  X(SEAL_BROKEN, "seal_broken", LOGOUT_SERVER, 1008)                        \
  X(SEAL_REPLAY, "seal_replay", LOGOUT_SERVER, 1008)                        \
  X(SEAL_EXHAUSTED, "seal_exhausted", LOGOUT_NONE, 1013)                    \
  X(PACKET_MALFORMED, "packet_malformed", LOGOUT_SERVER, 1008)              \
  X(INDEX_WRONG, "index_wrong", LOGOUT_SERVER, 1008)                        \
  X(INFLATE_MALFORMED, "inflate_malformed", LOGOUT_SERVER, 1008)            \
  X(INFLATE_TOO_LARGE, "inflate_too_large", LOGOUT_SERVER, 1009)            \
  /* The gateway's or the backends' side. */                                \
  X(KICKED, "kicked", LOGOUT_ADMIN_KICK_OUT, 1008)                          \
  X(CONFLICTING_LOGIN, "conflicting_login", LOGOUT_CONFLICTING_LOGIN, 1008) \
  X(ROMA_LOGOUT, "roma_logout", LOGOUT_NONE, 1000)                          \
  X(TUNNEL_LOST, "tunnel_lost", LOGOUT_WAITING, 1013)                       \
  X(TUNNEL_STALLED, "tunnel_stalled", LOGOUT_WAITING, 1013)                 \
  X(TUNNEL_REFUSED, "tunnel_refused", LOGOUT_UNAUTHORIZED, 1008)            \
  X(DRAIN, "drain", LOGOUT_WAITING, 1001)                                   \
  X(OUT_OF_MEMORY, "out_of_memory", LOGOUT_WAITING, 1013)                   \
  X(INTERNAL, "internal", LOGOUT_SERVER, 1011)

enum close_reason {
#define X(identifier, name, code, websocket_code) CLOSE_##identifier,
  CLOSE_REASONS(X)
#undef X
      CLOSE_REASON_COUNT
};

// Whether it is a failure, of whichever side, and not one of the ways in which connections come
// to their end: the player leaves, falls silent, or is sent away.
bool close_reason_is_failure(enum close_reason reason);
const char *close_reason_name(enum close_reason reason);
enum logout_code close_reason_logout_code(enum close_reason reason);
uint16_t close_reason_websocket_code(enum close_reason reason);

// The names that people use for the codes: server, waiting, unauthorized,
// conflicting-login, admin-kick-out, banned. NULL and LOGOUT_NONE for any other.
const char *logout_code_name(int32_t code);
enum logout_code logout_code_named(const char *name);

#endif
