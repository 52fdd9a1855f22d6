// A stream engine whose secure targets are spoken to as the settings say.
#ifndef JANUS_COMMON_STREAM_TLS_H
#define JANUS_COMMON_STREAM_TLS_H

#include "common/config.h"
#include "common/stream.h"

// As stream_engine_new with options, whose tls_ members are filled in from the files that
// tls names and from key_pem, our own certificate's key. All is borrowed for the call.
// NULL with the reason in why.
struct stream_engine *stream_tls_engine_new(struct event_base *base,
                                            const struct stream_engine_options *options,
                                            const struct config_tls *tls, const char *key_pem,
                                            char *why, size_t why_size);

#endif
