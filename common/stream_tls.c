#include "common/stream_tls.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/tls.h"

struct stream_engine *stream_tls_engine_new(struct event_base *base,
                                            const struct stream_engine_options *options,
                                            const struct config_tls *tls, const char *key_pem,
                                            char *why, size_t why_size) {
  struct stream_engine_options all = *options;
  struct stream_engine *engine = NULL;
  char *ca = NULL;
  char *cert = NULL;
  int error = 0;
  // gRPC would find a fault in them only with the first connection, and say little.
  if (tls_client_check(tls, key_pem, why, why_size) != 0) {
    return NULL;
  }
  if ((tls->ca[0] == '\0' || (ca = tls_read_pem(tls->ca, why, why_size))) &&
      (tls->cert[0] == '\0' || (cert = tls_read_pem(tls->cert, why, why_size)))) {
    all.tls_ca = ca;
    all.tls_cert = cert;
    all.tls_key = key_pem;
    all.tls_server_name = tls->server_name;
    engine = stream_engine_new(base, &all, &error);
    if (!engine) {
      snprintf(why, why_size, "gRPC can't be started");
    }
  }
  free(ca);
  free(cert);
  return engine;
}
