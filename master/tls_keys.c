#include "master/tls_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/tls_server.h"

#define LOG_MODULE LOG_MODULE_TLS

enum {
  HOUR_MS = 60 * 60 * 1000,
  // OpenSSL's tickets are good for two hours; one key's are for twice this.
  ROTATION_MS = 4 * HOUR_MS,
  WARNING_DAYS = 14,
};

struct tls_keys {
  struct tls_segment *segment;
  struct tls_material *material;
  int64_t rotate_at_ms;  // monotonic
};

static bool has_tls(const struct config_listener *listener) {
  return listener->addr[0] != '\0' && listener->tls.enabled;
}

// Tries whether OpenSSL takes it all, and notes when it expires.
static int try_all(struct tls_material *material, const struct config *config,
                   config_report *report, void *context) {
  int error = 0;
  memset(material->expiry_ms, 0, sizeof material->expiry_ms);
  for (size_t i = 0; i < config->server.listener_count; i++) {
    const struct config_listener *listener = &config->server.listeners[i];
    char why[CONFIG_LIST_BYTES], name[64], fault[2 * CONFIG_LIST_BYTES];
    if (!has_tls(listener)) {
      continue;
    }
    SSL_CTX *tried = tls_server_context(listener, (uint32_t)i, material, &material->expiry_ms[i],
                                        why, sizeof why);
    if (!tried) {
      snprintf(fault, sizeof fault, "%s.tls: %s",
               config_listener_path(config, listener, name, sizeof name), why);
      report(fault, context);
      error = ERROR_INVALID;
    }
    SSL_CTX_free(tried);
  }
  return error;
}

int tls_keys_read(struct tls_material *material, const struct config *config, config_report *report,
                  void *context) {
  return tls_material_read(material, config, NULL, report, context) != 0
             ? ERROR_INVALID
             : try_all(material, config, report, context);
}

static void warn_of_expiry(const struct tls_material *material, const struct config *config) {
  for (size_t i = 0; i < config->server.listener_count; i++) {
    const struct config_listener *listener = &config->server.listeners[i];
    int64_t left_ms = material->expiry_ms[i] - clock_wall_ms();
    char name[64];
    if (has_tls(listener) && left_ms < (int64_t)WARNING_DAYS * 24 * HOUR_MS) {
      log_warn("certificate_expires",
               "listener=%s days_left=%lld hint=\"put a new one in its place, and run: janusctl "
               "reload\"",
               config_listener_path(config, listener, name, sizeof name),
               (long long)(left_ms / (24 * HOUR_MS)));
    }
  }
}

struct tls_keys *tls_keys_new(const struct config *config, struct tls_material *material) {
  struct tls_keys *keys = calloc(1, sizeof *keys);
  struct tls_segment *segment = keys ? tls_segment_create() : NULL;
  if (!segment) {
    free(keys);
    tls_material_free(material);
    return NULL;
  }
  keys->segment = segment;
  keys->material = material;
  keys->rotate_at_ms = clock_monotonic_ms() + ROTATION_MS;
  tls_segment_publish(segment, material);
  warn_of_expiry(material, config);
  return keys;
}

void tls_keys_free(struct tls_keys *keys) {
  if (keys) {
    tls_segment_free(keys->segment);
    tls_material_free(keys->material);
    free(keys);
  }
}

void tls_keys_set_logins(struct tls_keys *keys, const struct secrets *secrets) {
  struct secrets *logins = &keys->material->secrets;
  logins->current = secrets->current;
  memcpy(logins->previous, secrets->previous, sizeof logins->previous);
  logins->previous_count = secrets->previous_count;
  tls_segment_publish(keys->segment, keys->material);
}

int tls_keys_fd(const struct tls_keys *keys) { return tls_segment_fd(keys->segment); }

static int read_anew(struct tls_material *fresh, const struct tls_material *running,
                     const struct config *config, const bool *kept, config_report *report,
                     void *context) {
  int error = tls_material_read(fresh, config, kept, report, context);
  for (size_t i = 0; error == 0 && i < config->server.listener_count; i++) {
    if (kept[i] && tls_material_keep(fresh, running, (uint32_t)i) != 0) {
      report("all files of TLS together are too large", context);
      error = ERROR_INVALID;
    }
  }
  return error == 0 ? try_all(fresh, config, report, context) : ERROR_INVALID;
}

// The next record of that listener.
static bool next_of(const struct tls_material *material, struct tls_record *record,
                    uint32_t listener) {
  while (tls_material_next(material, record)) {
    if (record->listener == listener) {
      return true;
    }
  }
  return false;
}

// Whether the files of the listener at that place are others.
static bool differ(const struct tls_material *before, const struct tls_material *after,
                   uint32_t listener) {
  struct tls_record one = {0}, other = {0};
  for (;;) {
    bool more = next_of(before, &one, listener), other_more = next_of(after, &other, listener);
    if (!more || !other_more) {
      return more != other_more;
    }
    if (one.kind != other.kind || one.len != other.len ||
        memcmp(one.text, other.text, one.len) != 0) {
      return true;
    }
  }
}

int tls_keys_reload(struct tls_keys *keys, const struct config *config, const bool *kept,
                    bool *changed, config_report *report, void *context) {
  struct tls_material *fresh = tls_material_new();
  if (!fresh) {
    report("out of memory", context);
    return ERROR_INVALID;
  }
  if (read_anew(fresh, keys->material, config, kept, report, context) != 0) {
    tls_material_free(fresh);
    return ERROR_INVALID;
  }
  for (size_t i = 0; i < config->server.listener_count; i++) {
    changed[i] = differ(keys->material, fresh, (uint32_t)i);
  }
  memcpy(fresh->tickets, keys->material->tickets, sizeof fresh->tickets);
  fresh->secrets = keys->material->secrets;
  tls_material_free(keys->material);
  keys->material = fresh;
  tls_segment_publish(keys->segment, fresh);
  warn_of_expiry(fresh, config);
  return 0;
}

bool tls_keys_tick(struct tls_keys *keys, int64_t now_ms) {
  if (now_ms < keys->rotate_at_ms || keys->material->len == 0) {
    return false;
  }
  keys->rotate_at_ms = now_ms + ROTATION_MS;
  tls_material_rotate(keys->material);
  tls_segment_publish(keys->segment, keys->material);
  return true;
}

int64_t tls_keys_expiry(const struct tls_keys *keys, size_t listener) {
  return keys->material->expiry_ms[listener];
}
