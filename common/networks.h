// IP networks, and lists of them: who may push, who may not come in, which proxy is
// believed.
//
//   10.0.0.0/8   192.0.2.7   2001:db8::/32   ::1
//
// An IPv4 address stands as the IPv6 address ::ffff:a.b.c.d, so that a client is the same
// over either kind of socket. The two kinds stay apart all the same: ::/0 is all of IPv6
// and nothing of IPv4, which is 0.0.0.0/0. Pure functions, any thread.
#ifndef JANUS_COMMON_NETWORKS_H
#define JANUS_COMMON_NETWORKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/error.h"

enum {
  NETWORK_ADDRESS_BYTES = 16,
  NETWORK_PREFIX_MAX_BITS = 128,
  NETWORK_TEXT_BYTES = 50,  // the longest IPv6 address, "/128" and a NUL
  NETWORKS_MAX = 32,        // in one list
};

// One address is a network of the longest prefix. Without padding: it serves as a key.
struct network {
  uint8_t address[NETWORK_ADDRESS_BYTES];  // the bits beyond the prefix are 0
  uint8_t prefix_bits;                     // of IPv4: 96 and more
};

// Bits beyond the prefix may be set, and are dropped. ERROR_MALFORMED for anything else
// than the forms above.
int network_parse(const char *text, struct network *network) MUST_CHECK;
// The one text of each network, which network_parse takes back: IPv4 as such, a single
// address without its prefix. Returns text.
const char *network_format(const struct network *network, char text[NETWORK_TEXT_BYTES]);

bool network_has(const struct network *network, const uint8_t address[NETWORK_ADDRESS_BYTES]);
bool network_is_ipv4(const struct network *network);
// The network of that prefix that has address in it.
struct network network_around(const uint8_t address[NETWORK_ADDRESS_BYTES], uint8_t prefix_bits);

// The address of a client as a session names it: "ip:port" or "[ip]:port", or its ip
// alone; an interface (%eth0) is dropped. ERROR_MALFORMED.
int network_parse_address(const char *text, uint8_t address[NETWORK_ADDRESS_BYTES]) MUST_CHECK;

// That of a socket's address; all zero for what is neither IPv4 nor IPv6.
void network_address_of_socket(const struct sockaddr *socket,
                               uint8_t address[NETWORK_ADDRESS_BYTES]);
// What counts as one where connections of an address are counted: of IPv6 a /64, since whoever has
// one address has the others of its network too.
struct network network_counted_as(const struct sockaddr *socket);

// The other way round, for the address of a socket: "ip:port" or "[ip]:port", IPv4 as such
// on an IPv6 socket too; "unknown:0" for what is neither. Returns text.
const char *network_format_socket(const struct sockaddr *address, socklen_t len, char *text,
                                  size_t size);

struct networks {
  struct network networks[NETWORKS_MAX];
  size_t count;
};

// Whether one of them has it.
bool networks_have(const struct networks *networks, const uint8_t address[NETWORK_ADDRESS_BYTES]);

#endif
