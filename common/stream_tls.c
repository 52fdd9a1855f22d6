#include "common/stream_tls.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/tls.h"

// Reads what is given into options. False with the reason in why.
static bool read_texts(struct stream_engine_options *options, const struct config_tls *tls,
                       char **ca, char **cert, char *why, size_t why_size) {
  if ((tls->ca[0] != '\0' && !(*ca = tls_read_pem(tls->ca, why, why_size))) ||
      (tls->cert[0] != '\0' && !(*cert = tls_read_pem(tls->cert, why, why_size)))) {
    return false;
  }
  options->tls_ca = *ca;
  options->tls_cert = *cert;
  return true;
}

struct stream_engine *stream_tls_engine_new(struct event_base *base,
                                            const struct stream_engine_options *options,
                                            const struct config_tls *tls, const char *key_pem,
                                            char *why, size_t why_size) {
  struct stream_engine_options all = *options;
  struct stream_engine *engine = NULL;
  char *ca = NULL;
  char *cert = NULL;
  int error = 0;
  all.tls_server_name = tls->server_name;
  all.tls_key = key_pem;
  // Also before gRPC, which would find a fault in the files only with the first connection, and say
  // little.
  if ((tls->ca[0] != '\0' || tls->cert[0] != '\0') &&
      !(all.tls = tls_client_context(tls, key_pem, why, why_size))) {
    return NULL;
  }
  if (options->kind == STREAM_HTTP2 || read_texts(&all, tls, &ca, &cert, why, why_size)) {
    engine = stream_engine_new(base, &all, &error);
    if (!engine) {
      snprintf(why, why_size, "streams to backends: %s", error_text(error));
    }
  }
  SSL_CTX_free(all.tls);
  free(ca);
  free(cert);
  return engine;
}
