#include "worker/proxy_header.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#include "common/config_value.h"

enum {
  V1_LEAST_BYTES = 15,  // "PROXY UNKNOWN\r\n": so much belongs to a header of either version
  V1_MAX_BYTES = 107,
  V2_FIXED_BYTES = 16,
  V2_IPV4_BYTES = 12,
  V2_IPV6_BYTES = 36,
  V2_COMMAND_LOCAL = 0x20,
  V2_COMMAND_PROXY = 0x21,
  V2_UNSPECIFIED = 0x00,
  V2_TCP_OVER_IPV4 = 0x11,
  V2_TCP_OVER_IPV6 = 0x21,
  V2_UNIX_STREAM = 0x31,
};

static const uint8_t v1_signature[] = {'P', 'R', 'O', 'X', 'Y', ' '};
static const uint8_t v2_signature[] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                       '\n', 'Q',  'U',  'I',  'T', '\n'};

static bool begins_with(const struct proxy_header *header, const uint8_t *signature, size_t len) {
  return memcmp(header->bytes, signature, header->len < len ? header->len : len) == 0;
}

static bool is_v1(const struct proxy_header *header) {
  return begins_with(header, v1_signature, sizeof v1_signature);
}

static bool is_v2(const struct proxy_header *header) {
  return begins_with(header, v2_signature, sizeof v2_signature);
}

// Of version 2, once its fixed part is there.
static size_t v2_total(const struct proxy_header *header) {
  return V2_FIXED_BYTES + ((size_t)header->bytes[14] << 8 | header->bytes[15]);
}

size_t proxy_header_wanted(const struct proxy_header *header) {
  if (header->len < V1_LEAST_BYTES) {
    return V1_LEAST_BYTES - header->len;
  }
  if (is_v1(header)) {
    return 1;  // its end is found when it is there
  }
  return (header->len < V2_FIXED_BYTES ? V2_FIXED_BYTES : v2_total(header)) - header->len;
}

static void set_ipv4(struct sockaddr_storage *address, socklen_t *len, const void *host,
                     uint16_t port_in_network_order) {
  struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = port_in_network_order};
  memcpy(&ipv4.sin_addr, host, sizeof ipv4.sin_addr);
  memcpy(address, &ipv4, sizeof ipv4);
  *len = sizeof ipv4;
}

static void set_ipv6(struct sockaddr_storage *address, socklen_t *len, const void *host,
                     uint16_t port_in_network_order) {
  struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = port_in_network_order};
  memcpy(&ipv6.sin6_addr, host, sizeof ipv6.sin6_addr);
  memcpy(address, &ipv6, sizeof ipv6);
  *len = sizeof ipv6;
}

// --- Version 1: "PROXY TCP4 198.51.100.7 192.0.2.1 56324 443\r\n" --------------------

// Ends the word that text begins with and returns what follows it; NULL when none does.
static char *next_word(char *text) {
  char *blank = strchr(text, ' ');
  if (!blank) {
    return NULL;
  }
  *blank = '\0';
  return blank + 1;
}

static bool parse_port(const char *text, uint16_t *port) {
  int64_t number;
  bool padded = text[0] == '0' && text[1] != '\0';
  if (padded || text[0] < '0' || text[0] > '9' || !config_value_parse_integer(text, &number) ||
      number > UINT16_MAX) {
    return false;
  }
  *port = (uint16_t)number;
  return true;
}

static int v1_read(struct proxy_header *header, struct sockaddr_storage *address, socklen_t *len) {
  static const char unknown[] = "UNKNOWN";
  size_t text_len = header->len - 2;
  if (header->bytes[text_len] != '\r' || memchr(header->bytes, '\0', text_len)) {
    return ERROR_MALFORMED;
  }
  header->bytes[text_len] = '\0';
  char *family = (char *)header->bytes + sizeof v1_signature;
  if (strncmp(family, unknown, sizeof unknown - 1) == 0) {
    char after = family[sizeof unknown - 1];
    return after == '\0' || after == ' ' ? 0 : ERROR_MALFORMED;
  }
  char *source = next_word(family);
  char *destination = source ? next_word(source) : NULL;
  char *source_port = destination ? next_word(destination) : NULL;
  char *destination_port = source_port ? next_word(source_port) : NULL;
  uint16_t port;
  uint16_t unused_port;
  if (!destination_port || !parse_port(source_port, &port) ||
      !parse_port(destination_port, &unused_port)) {
    return ERROR_MALFORMED;
  }
  struct in6_addr host;
  struct in6_addr unused_host;
  bool is_ipv4 = strcmp(family, "TCP4") == 0;
  int kind = is_ipv4 ? AF_INET : AF_INET6;
  if ((!is_ipv4 && strcmp(family, "TCP6") != 0) || inet_pton(kind, source, &host) != 1 ||
      inet_pton(kind, destination, &unused_host) != 1) {
    return ERROR_MALFORMED;
  }
  if (is_ipv4) {
    set_ipv4(address, len, &host, htons(port));
  } else {
    set_ipv6(address, len, &host, htons(port));
  }
  return 0;
}

// --- Version 2 -----------------------------------------------------------------------

static int v2_check(const struct proxy_header *header) {
  uint8_t command = header->bytes[12];
  uint8_t family = header->bytes[13];
  size_t content = v2_total(header) - V2_FIXED_BYTES;
  if (command == V2_COMMAND_LOCAL) {
    return content <= PROXY_HEADER_MAX_BYTES - V2_FIXED_BYTES ? 0 : ERROR_MALFORMED;
  }
  bool known = family == V2_UNSPECIFIED || family == V2_UNIX_STREAM ||
               (family == V2_TCP_OVER_IPV4 && content >= V2_IPV4_BYTES) ||
               (family == V2_TCP_OVER_IPV6 && content >= V2_IPV6_BYTES);
  return command == V2_COMMAND_PROXY && known && content <= PROXY_HEADER_MAX_BYTES - V2_FIXED_BYTES
             ? 0
             : ERROR_MALFORMED;
}

static void v2_read(const struct proxy_header *header, struct sockaddr_storage *address,
                    socklen_t *len) {
  const uint8_t *content = header->bytes + V2_FIXED_BYTES;
  uint16_t port;
  if (header->bytes[12] != V2_COMMAND_PROXY) {
    return;
  }
  if (header->bytes[13] == V2_TCP_OVER_IPV4) {  // source, destination, their ports
    memcpy(&port, content + 8, sizeof port);
    set_ipv4(address, len, content, port);
  } else if (header->bytes[13] == V2_TCP_OVER_IPV6) {
    memcpy(&port, content + 32, sizeof port);
    set_ipv6(address, len, content, port);
  }
}

int proxy_header_take(struct proxy_header *header, const uint8_t *bytes, size_t len,
                      struct sockaddr_storage *address, socklen_t *address_len) {
  size_t room = header->len < sizeof header->bytes ? sizeof header->bytes - header->len : 0;
  memcpy(header->bytes + sizeof header->bytes - room, bytes, len < room ? len : room);
  size_t before = header->len;
  header->len += len;
  if (!is_v1(header) && !is_v2(header)) {
    return ERROR_MALFORMED;
  }
  if (header->len < V1_LEAST_BYTES) {
    return PROXY_HEADER_MORE;
  }
  if (is_v1(header)) {
    if (header->bytes[header->len - 1] == '\n') {
      return v1_read(header, address, address_len);
    }
    return header->len < V1_MAX_BYTES ? PROXY_HEADER_MORE : ERROR_MALFORMED;
  }
  if (header->len < V2_FIXED_BYTES) {
    return PROXY_HEADER_MORE;
  }
  if (before < V2_FIXED_BYTES && v2_check(header) != 0) {
    return ERROR_MALFORMED;
  }
  if (header->len < v2_total(header)) {
    return PROXY_HEADER_MORE;
  }
  v2_read(header, address, address_len);
  return 0;
}
