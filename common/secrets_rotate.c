#include "common/secrets_rotate.h"

#include <sodium.h>
#include <string.h>

bool login_keys_valid(const struct login_keys *keys, int64_t now_ms) {
  return keys->until_ms == 0 || now_ms < keys->until_ms;
}

static bool has_account_key(const struct login_keys *in, const struct login_keys *keys) {
  return in->account_aes_key_len == keys->account_aes_key_len &&
         sodium_memcmp(in->account_aes_key, keys->account_aes_key, keys->account_aes_key_len) == 0;
}

static bool has_certs(const struct login_keys *in, const struct login_keys *keys) {
  return in->has_certs && in->server_cert_version == keys->server_cert_version &&
         in->client_cert_version == keys->client_cert_version &&
         sodium_memcmp(&in->server_key, &keys->server_key, sizeof keys->server_key) == 0 &&
         sodium_memcmp(&in->client_key, &keys->client_key, sizeof keys->client_key) == 0;
}

bool login_keys_equal(const struct login_keys *a, const struct login_keys *b) {
  return has_account_key(a, b) && a->has_certs == b->has_certs &&
         (!a->has_certs || has_certs(a, b)) && a->until_ms == b->until_ms;
}

static void drop_account_key(struct login_keys *keys) {
  sodium_memzero(keys->account_aes_key, sizeof keys->account_aes_key);
  keys->account_aes_key_len = 0;
}

static void drop_certs(struct login_keys *keys) {
  sodium_memzero(&keys->server_key, sizeof keys->server_key);
  sodium_memzero(&keys->client_key, sizeof keys->client_key);
  keys->server_cert_version = keys->client_cert_version = 0;
  keys->has_certs = false;
}

// Takes out of keys what `in` has too.
static void subtract(struct login_keys *keys, const struct login_keys *in) {
  if (has_account_key(in, keys)) {
    drop_account_key(keys);
  }
  if (has_certs(in, keys)) {
    drop_certs(keys);
  }
}

static bool is_empty(const struct login_keys *keys) {
  return keys->account_aes_key_len == 0 && !keys->has_certs;
}

// What is left of keys of the running ones, into kept. False: nothing.
static bool keep(const struct secrets *fresh, const struct login_keys *keys, int64_t now_ms,
                 int64_t end_ms, struct login_keys *kept) {
  memcpy(kept, keys, sizeof *kept);
  if (kept->until_ms == 0 || kept->until_ms > end_ms) {
    kept->until_ms = end_ms;
  }
  subtract(kept, &fresh->current);
  for (size_t i = 0; i < fresh->previous_count; i++) {
    subtract(kept, &fresh->previous[i]);
  }
  return !is_empty(kept) && login_keys_valid(kept, now_ms);
}

static void remove_expired(struct secrets *secrets, int64_t now_ms) {
  size_t count = 0;
  for (size_t i = 0; i < secrets->previous_count; i++) {
    if (login_keys_valid(&secrets->previous[i], now_ms)) {
      memmove(&secrets->previous[count++], &secrets->previous[i], sizeof *secrets->previous);
    }
  }
  sodium_memzero(&secrets->previous[count],
                 (LOGIN_KEYS_PREVIOUS - count) * sizeof *secrets->previous);
  secrets->previous_count = count;
}

// Returns how many fell out.
static size_t insert(struct secrets *secrets, size_t place, const struct login_keys *keys) {
  bool full = secrets->previous_count == LOGIN_KEYS_PREVIOUS;
  if (place < LOGIN_KEYS_PREVIOUS) {
    memmove(&secrets->previous[place + 1], &secrets->previous[place],
            (LOGIN_KEYS_PREVIOUS - 1 - place) * sizeof *secrets->previous);
    memcpy(&secrets->previous[place], keys, sizeof *keys);
  }
  secrets->previous_count += !full;
  return full;
}

size_t secrets_rotate(struct secrets *fresh, const struct secrets *running, int64_t now_ms,
                      int64_t overlap_ms) {
  struct login_keys kept[1 + LOGIN_KEYS_PREVIOUS];
  bool is_kept[1 + LOGIN_KEYS_PREVIOUS];
  size_t fallen = 0;
  // All of them first: what is no longer good is in the way only after it has been looked at.
  for (size_t i = 0; i <= running->previous_count; i++) {
    const struct login_keys *keys = i == 0 ? &running->current : &running->previous[i - 1];
    is_kept[i] = keep(fresh, keys, now_ms, now_ms + overlap_ms, &kept[i]);
  }
  remove_expired(fresh, now_ms);
  for (size_t i = 0; i <= running->previous_count; i++) {
    if (is_kept[i]) {
      fallen += insert(fresh, i == 0 ? 0 : fresh->previous_count, &kept[i]);
    }
  }
  sodium_memzero(kept, sizeof kept);
  return fallen;
}
