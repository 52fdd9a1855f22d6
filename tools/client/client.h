// The client's side of a session: connects, logs in, sends and receives packets.
// janus-client and janus-bench stand on it.
//
// Everything happens on the loop's thread. What thousands of clients can share
// is in one client_group: the read and write buffers, the zlib states and the TLS
// context. A client costs a few hundred bytes (over TLS and KCP what those keep for each
// connection), and a buffer only while a message is incomplete or the socket is full.
#ifndef JANUS_TOOLS_CLIENT_CLIENT_H
#define JANUS_TOOLS_CLIENT_CLIENT_H

#include <event2/event.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/keys.h"
#include "common/packet.h"
#include "tools/client/client_tls.h"
#include "tools/client/kcp_dialer.h"
#include "tools/client/target.h"

enum { CLIENT_SEND_MAX_BYTES = 16 * 1024 * 1024 };

struct client_group;
struct client;

// An X25519 pair and the signature over its public key. A fresh one for each
// login is what a game does; a load generator may use one for all its clients,
// so that it measures the gateway's work and not its own.
struct client_identity {
  uint8_t secret[KEY_X25519_BYTES];
  uint8_t public[KEY_X25519_BYTES];
  uint8_t signature[KEY_ED25519_SIGNATURE_BYTES];
  int32_t cert_version;
};

// key NULL: for a gateway without encryption, the public key and signature are zero.
void client_identity_init(struct client_identity *identity, const struct signing_key *key);

enum client_mode {
  CLIENT_SEALED,  // handshake, then everything sealed
  CLIENT_OPEN,    // handshake with a gateway that has encryption off
  CLIENT_PLAIN,   // no handshake: frames that hold packet.data and nothing else
};

struct client_options {
  enum client_mode mode;
  const struct client_target *target;      // borrowed for the client's life
  struct in_addr source;                   // 0.0.0.0: the system's choice
  const struct client_identity *identity;  // borrowed for the client's life
  const struct verify_key *server_key;     // NULL: the server's signature is not checked
  const char *token;                       // borrowed until login
  int64_t server_id;                       // 0: the token's
  int64_t timeout_ms;        // for each: connecting, TLS, the WebSocket upgrade, the handshake
  int receive_buffer_bytes;  // SO_RCVBUF, but for KCP; 0: the system's
  // KCP: one whose connection this is to be a further stream of, if that stands; NULL: none.
  const struct client *beside;
};

enum client_end {
  CLIENT_END_CONNECT,    // no connection came about, or no TLS or WebSocket on it
  CLIENT_END_HANDSHAKE,  // the gateway refused, or its answer is not acceptable
  CLIENT_END_CLOSED,     // end of file from the gateway, or a WebSocket's close
  CLIENT_END_RESET,      // the connection broke
  CLIENT_END_PROTOCOL,   // what came cannot be a message of the protocol
};

// One packet as it came: data already inflated where packet->compress is set.
struct client_message {
  const struct packet *packet;
  size_t wire_bytes;  // of the message with its length prefix
  size_t data_bytes;  // of data as it travelled, before inflating
};

// Each callback may call client_free on its client. on_connected may be NULL.
struct client_events {
  void (*on_connected)(void *owner);  // the connection stands, with its TLS and WebSocket
  void (*on_login)(void *owner);      // packets may be sent (in plain mode: connected)
  void (*on_message)(void *owner, const struct client_message *message);
  // The connection is gone, nothing comes after this. detail is borrowed.
  void (*on_closed)(void *owner, enum client_end end, const char *detail);
  // A TLS session came, which the group's next connections resume (client_tls.resume), and
  // this client is logged in. May be NULL.
  void (*on_resumable)(void *owner);
};

// message_max_bytes: of one frame from the gateway, and of inflated data 64 times
// that. NULL when out of memory.
struct client_group *client_group_new(struct event_base *base, size_t message_max_bytes);
// After its clients; accepts NULL. What those closed over KCP still had under way is waited for,
// for half a second at most.
void client_group_free(struct client_group *group);
// Needed before a client connects to a target with TLS. ERROR_INVALID with a sentence in fault.
int client_group_use_tls(struct client_group *group, const struct client_tls *tls, char *fault,
                         size_t fault_bytes) MUST_CHECK;
// Needed before a client connects to a target over KCP. wire is copied. ERROR_MEMORY.
int client_group_use_kcp(struct client_group *group, const struct kcp_wire *wire) MUST_CHECK;

// Starts connecting. NULL when that fails at once, as without memory, descriptors
// or source ports (errno tells); a later failure comes through on_closed.
struct client *client_connect(struct client_group *group, const struct client_options *options,
                              const struct client_events *events, void *owner);
// Closes the connection at once, without on_closed; a WebSocket and TLS take their leave as
// far as the socket takes it, and KCP by itself. Accepts NULL.
void client_free(struct client *client);

// Sends a packet after on_login; its index is filled in. with_compression deflates
// the data first. What the socket does not take at once is queued, without a
// bound: look at client_queued_bytes. A frame larger than a gateway accepts is sent
// all the same, up to CLIENT_SEND_MAX_BYTES of data (ERROR_TOO_LARGE): how it is
// refused is worth trying. ERROR_INVALID before login and after the end;
// ERROR_MEMORY; ERROR_EXHAUSTED.
int client_send(struct client *client, const struct packet *original,
                bool with_compression) MUST_CHECK;

// Of what was sent: what the socket has not taken; over KCP, what the gateway has not acknowledged.
size_t client_queued_bytes(const struct client *client);
// The index that the last packet sent had, 0 when none was.
int32_t client_index(const struct client *client);
// Stops and starts reading from the socket; what has been read still comes.
void client_pause(struct client *client, bool paused);

// Whether its TLS session is one that was resumed.
bool client_resumed(const struct client *client);

const char *client_end_name(enum client_end end);

#endif
