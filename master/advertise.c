#include "master/advertise.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"

#define LOG_MODULE LOG_MODULE_MASTER

static bool is_global(const struct ifaddrs *interface, int family) {
  if (!interface->ifa_addr || interface->ifa_addr->sa_family != family ||
      !(interface->ifa_flags & IFF_UP) || interface->ifa_flags & IFF_LOOPBACK) {
    return false;
  }
  if (family == AF_INET) {
    const struct sockaddr_in *address = (const void *)interface->ifa_addr;
    return ntohl(address->sin_addr.s_addr) >> 16 != 0xa9fe;  // not link-local, 169.254/16
  }
  const struct sockaddr_in6 *address = (const void *)interface->ifa_addr;
  return !IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr);
}

// The address of the lowest-numbered interface that is up and has a global unicast one of that
// family. False: there is none.
static bool host_of_family(const struct ifaddrs *all, int family, char *host, size_t size) {
  unsigned lowest = 0;
  for (const struct ifaddrs *one = all; one; one = one->ifa_next) {
    unsigned index = is_global(one, family) ? if_nametoindex(one->ifa_name) : 0;
    if (index != 0 && (lowest == 0 || index < lowest)) {
      char text[INET6_ADDRSTRLEN];
      const void *address =
          family == AF_INET
              ? (const void *)&((const struct sockaddr_in *)(const void *)one->ifa_addr)->sin_addr
              : (const void *)&((const struct sockaddr_in6 *)(const void *)one->ifa_addr)
                    ->sin6_addr;
      lowest = index;
      inet_ntop(family, address, text, sizeof text);
      snprintf(host, size, family == AF_INET ? "%s" : "[%s]", text);
    }
  }
  return lowest != 0;
}

// The host that others reach us at when we listen on every address, as the rest of the
// ecosystem finds it; IPv6 where there is no IPv4.
static void own_host(char *host, size_t size) {
  struct ifaddrs *all = NULL;
  snprintf(host, size, "127.0.0.1");
  if (getifaddrs(&all) == 0) {
    (void)(host_of_family(all, AF_INET, host, size) || host_of_family(all, AF_INET6, host, size));
    freeifaddrs(all);
  }
}

void advertise_derive(struct config *config, int port) {
  const char *addr = config->server.grpc.addr;
  const char *colon = strrchr(addr, ':');
  char host[CONFIG_TEXT_BYTES];
  if (config->server.grpc.advertise[0] != '\0' || !colon) {
    return;
  }
  bool everywhere =
      colon == addr || strncmp(addr, "0.0.0.0:", 8) == 0 || strncmp(addr, "[::]:", 5) == 0;
  if (everywhere) {
    own_host(host, sizeof host);
  } else {
    snprintf(host, sizeof host, "%.*s", (int)(colon - addr), addr);
  }
  snprintf(config->server.grpc.advertise, sizeof config->server.grpc.advertise, "%.110s:%d", host,
           port);
}

bool advertise_is_loopback(const char *address) {
  return strncmp(address, "127.", 4) == 0 || strncmp(address, "[::1]", 5) == 0 ||
         strncmp(address, "localhost:", 10) == 0;
}

void advertise_warn(const struct config *config) {
  const char *advertise = config->server.grpc.advertise;
  bool others = config->routes.store == ROUTES_REDIS || config->registry.source == REGISTRY_ETCD;
  if (others && advertise_is_loopback(advertise)) {
    log_warn("advertise_is_loopback",
             "advertise=%s hint=\"nobody on another machine reaches this gateway, and another one "
             "there may have the same name: set server.grpc.addr or server.grpc.advertise\"",
             advertise);
  }
}
