// The certificates and keys of the listeners, read from their files, tried, and published for
// the workers. Loop thread, but for tls_keys_read.
#ifndef JANUS_MASTER_TLS_KEYS_H
#define JANUS_MASTER_TLS_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/tls_material.h"

struct tls_keys;

// Reads the files that the configuration names, and tries whether OpenSSL takes them. Every
// fault is reported. 0 or ERROR_INVALID. Pure, but for the files.
int tls_keys_read(struct tls_material *material, const struct config *config, config_report *report,
                  void *context) MUST_CHECK;

// Takes over material, as it was read, and publishes it. NULL when out of memory or descriptors.
struct tls_keys *tls_keys_new(const struct config *config, struct tls_material *material);
void tls_keys_free(struct tls_keys *keys);  // accepts NULL
// Publishes the keys that logins go by from now on.
void tls_keys_set_logins(struct tls_keys *keys, const struct secrets *secrets);

int tls_keys_fd(const struct tls_keys *keys);

// Publishes what the files hold now, by config; tickets that are out stay good. The listeners at
// the places where kept is true keep what they have. Workers are to be told. ERROR_INVALID, and
// all is as before.
int tls_keys_reload(struct tls_keys *keys, const struct config *config, const bool *kept,
                    bool *changed, config_report *report, void *context) MUST_CHECK;

// Now and then new tickets get a new key. True: they do, and workers are to be told.
bool tls_keys_tick(struct tls_keys *keys, int64_t now_ms);

// When the listener's first certificate expires, wall clock in ms; 0 without TLS.
int64_t tls_keys_expiry(const struct tls_keys *keys, size_t listener);

#endif
