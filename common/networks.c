#include "common/networks.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "common/config_value.h"

enum { IPV4_BITS = 32, IPV4_FIRST_BIT = 96 };

_Static_assert(NETWORK_TEXT_BYTES == INET6_ADDRSTRLEN + 4, "room for the longest text");
_Static_assert(sizeof(struct network) == NETWORK_ADDRESS_BYTES + 1, "no padding in a key");

static const uint8_t ipv4_prefix[IPV4_FIRST_BIT / 8] = {[10] = 0xff, [11] = 0xff};

static bool is_ipv4(const uint8_t address[NETWORK_ADDRESS_BYTES]) {
  return memcmp(address, ipv4_prefix, sizeof ipv4_prefix) == 0;
}

// A bare address, len bytes of text. Sets *ipv4 to how it is written.
static bool parse_host(const char *text, size_t len, uint8_t address[NETWORK_ADDRESS_BYTES],
                       bool *ipv4) {
  char host[INET6_ADDRSTRLEN];
  if (len >= sizeof host) {
    return false;
  }
  memcpy(host, text, len);
  host[len] = '\0';
  *ipv4 = strchr(host, ':') == NULL;
  if (!*ipv4) {
    return inet_pton(AF_INET6, host, address) == 1;
  }
  memcpy(address, ipv4_prefix, sizeof ipv4_prefix);
  return inet_pton(AF_INET, host, address + sizeof ipv4_prefix) == 1;
}

// A number up to most without a sign or zeros in front of it, and nothing else.
static bool parse_number(const char *text, int64_t most, int64_t *number) {
  bool padded = text[0] == '0' && text[1] != '\0';
  return isdigit((unsigned char)text[0]) && !padded && config_value_parse_integer(text, number) &&
         *number <= most;
}

struct network network_around(const uint8_t address[NETWORK_ADDRESS_BYTES], uint8_t prefix_bits) {
  struct network network = {.prefix_bits = prefix_bits};
  size_t whole = prefix_bits / 8;
  memcpy(network.address, address, whole);
  if (prefix_bits % 8 != 0) {
    network.address[whole] = (uint8_t)(address[whole] & 0xff << (8 - prefix_bits % 8));
  }
  return network;
}

int network_parse(const char *text, struct network *network) {
  uint8_t address[NETWORK_ADDRESS_BYTES];
  size_t len = strcspn(text, "/");
  bool ipv4;
  if (!parse_host(text, len, address, &ipv4)) {
    return ERROR_MALFORMED;
  }
  int64_t most = ipv4 ? IPV4_BITS : NETWORK_PREFIX_MAX_BITS;
  int64_t bits = most;
  if (text[len] == '/' && !parse_number(text + len + 1, most, &bits)) {
    return ERROR_MALFORMED;
  }
  *network = network_around(address, (uint8_t)(ipv4 ? IPV4_FIRST_BIT + bits : bits));
  return 0;
}

bool network_is_ipv4(const struct network *network) { return is_ipv4(network->address); }

const char *network_format(const struct network *network, char text[NETWORK_TEXT_BYTES]) {
  bool ipv4 = network_is_ipv4(network);
  const uint8_t *address = network->address + (ipv4 ? sizeof ipv4_prefix : 0);
  inet_ntop(ipv4 ? AF_INET : AF_INET6, address, text, NETWORK_TEXT_BYTES);
  if (network->prefix_bits < NETWORK_PREFIX_MAX_BITS) {
    size_t len = strlen(text);
    snprintf(text + len, NETWORK_TEXT_BYTES - len, "/%d",
             network->prefix_bits - (ipv4 ? IPV4_FIRST_BIT : 0));
  }
  return text;
}

bool network_has(const struct network *network, const uint8_t address[NETWORK_ADDRESS_BYTES]) {
  if (is_ipv4(address) != network_is_ipv4(network)) {
    return false;
  }
  struct network around = network_around(address, network->prefix_bits);
  return memcmp(around.address, network->address, sizeof around.address) == 0;
}

int network_parse_address(const char *text, uint8_t address[NETWORK_ADDRESS_BYTES]) {
  const char *host = text;
  const char *end = text + strlen(text);
  const char *port = NULL;
  const char *colon = strchr(text, ':');
  int64_t number;
  bool ipv4;
  if (text[0] == '[') {
    host = text + 1;
    end = strchr(text, ']');
    if (!end || end[1] != ':') {
      return ERROR_MALFORMED;
    }
    port = end + 2;
  } else if (colon && !strchr(colon + 1, ':')) {
    end = colon;
    port = colon + 1;
  }
  const char *interface = memchr(host, '%', (size_t)(end - host));
  size_t len = (size_t)((interface ? interface : end) - host);
  bool parsed =
      (!port || parse_number(port, UINT16_MAX, &number)) && parse_host(host, len, address, &ipv4);
  return parsed ? 0 : ERROR_MALFORMED;
}

void network_address_of_socket(const struct sockaddr *socket,
                               uint8_t address[NETWORK_ADDRESS_BYTES]) {
  memset(address, 0, NETWORK_ADDRESS_BYTES);
  if (socket->sa_family == AF_INET6) {
    memcpy(address, &((const struct sockaddr_in6 *)(const void *)socket)->sin6_addr,
           NETWORK_ADDRESS_BYTES);
  } else if (socket->sa_family == AF_INET) {
    memcpy(address, ipv4_prefix, sizeof ipv4_prefix);
    memcpy(address + sizeof ipv4_prefix,
           &((const struct sockaddr_in *)(const void *)socket)->sin_addr, 4);
  }
}

struct network network_counted_as(const struct sockaddr *socket) {
  enum { IPV6_SUBNET_BITS = 64 };
  uint8_t bytes[NETWORK_ADDRESS_BYTES];
  network_address_of_socket(socket, bytes);
  struct network single = network_around(bytes, NETWORK_PREFIX_MAX_BITS);
  return network_is_ipv4(&single) ? single : network_around(bytes, IPV6_SUBNET_BITS);
}

const char *network_format_socket(const struct sockaddr *address, socklen_t len, char *text,
                                  size_t size) {
  static const char mapped[] = "::ffff:";
  char host[INET6_ADDRSTRLEN + 16];  // with an interface
  char port[8];
  if (getnameinfo(address, len, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    snprintf(text, size, "unknown:0");
    return text;
  }
  bool is_mapped = strncmp(host, mapped, sizeof mapped - 1) == 0 && strchr(host, '.');
  const char *shown = is_mapped ? host + sizeof mapped - 1 : host;
  snprintf(text, size, strchr(shown, ':') ? "[%s]:%s" : "%s:%s", shown, port);
  return text;
}

bool networks_have(const struct networks *networks, const uint8_t address[NETWORK_ADDRESS_BYTES]) {
  for (size_t i = 0; i < networks->count; i++) {
    if (network_has(&networks->networks[i], address)) {
      return true;
    }
  }
  return false;
}
