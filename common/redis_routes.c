#include "common/redis_routes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_value.h"

enum { TEXT_BYTES = 24, VALUE_MAX_BYTES = ROUTE_ADDRESS_MAX_BYTES, SETTLE_TRIES = 3 };

// KEYS[1]; ARGV: candidate, ttl in ms, dead. Answers {address, ttl, what was there}.
enum { WAS_USABLE = 0, WAS_MISSING = 1, WAS_UNUSABLE = 2 };
static const char settle_script[] =
    "local v = redis.pcall('GET', KEYS[1])\n"
    "local usable = type(v) == 'string' and #v > 0 and #v <= 127\n"
    "if usable and v ~= ARGV[1] and v ~= ARGV[3] then\n"
    "  return {v, redis.call('PTTL', KEYS[1]), 0}\n"
    "end\n"
    "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n"
    "return {ARGV[1], tonumber(ARGV[2]), usable and 0 or v == false and 1 or 2}\n";
_Static_assert(VALUE_MAX_BYTES == 127, "as the script has it");

static const char set_script[] =
    "local old = redis.pcall('GET', KEYS[1])\n"
    "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n"
    "return type(old) == 'string' and old\n";

static const char remove_script[] =
    "if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end\n"
    "return 0\n";

static const char read_script[] =
    "return {redis.pcall('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}\n";

// --- Keys and values -------------------------------------------------------------

size_t redis_routes_key(const struct route_key *key, char text[REDIS_ROUTES_KEY_BYTES]) {
  int len = snprintf(text, REDIS_ROUTES_KEY_BYTES, REDIS_ROUTES_PREFIX "%s_{%s}_{%" PRId64 "}",
                     key->service, key->color, key->oid);
  return len < REDIS_ROUTES_KEY_BYTES ? (size_t)len : REDIS_ROUTES_KEY_BYTES - 1;
}

int redis_routes_parse_key(const char *text, size_t len, struct redis_routes_name *name) {
  char copy[REDIS_ROUTES_KEY_BYTES];
  if (len >= sizeof copy || memchr(text, '\0', len)) {
    return ERROR_MALFORMED;
  }
  memcpy(copy, text, len);
  copy[len] = '\0';
  if (strncmp(copy, REDIS_ROUTES_PREFIX, strlen(REDIS_ROUTES_PREFIX)) != 0) {
    return ERROR_MALFORMED;
  }
  // The service ends at the first "_{", the color at the last "}_{".
  const char *service = copy + strlen(REDIS_ROUTES_PREFIX);
  char *color = strstr(service, "_{");
  char *end = NULL;
  for (char *at = color; at && (at = strstr(at, "}_{")); at++) {
    end = at;
  }
  if (!end || end < color + 2 || copy[len - 1] != '}') {
    return ERROR_MALFORMED;
  }
  *color = '\0';
  color += 2;
  *end = '\0';
  char *oid = end + 3;
  copy[len - 1] = '\0';
  char again[TEXT_BYTES];
  if (service[0] == '\0' || strlen(service) > ROUTE_SERVICE_MAX_BYTES ||
      strlen(color) > ROUTE_COLOR_MAX_BYTES || !config_value_parse_integer(oid, &name->oid)) {
    return ERROR_MALFORMED;
  }
  snprintf(again, sizeof again, "%" PRId64, name->oid);
  if (strcmp(again, oid) != 0) {  // no zeros in front, no plus sign
    return ERROR_MALFORMED;
  }
  strcpy(name->service, service);
  strcpy(name->color, color);
  return 0;
}

int redis_routes_parse_value(const redisReply *value, char address[ROUTE_ADDRESS_MAX_BYTES + 1]) {
  if (value->type != REDIS_REPLY_STRING || value->len > ROUTE_ADDRESS_MAX_BYTES ||
      strlen(value->str) != value->len || !config_value_is_address(value->str, 1)) {
    return ERROR_MALFORMED;
  }
  memcpy(address, value->str, value->len + 1);
  return 0;
}

void redis_routes_read_command(const char *key, size_t len,
                               const char *argv[REDIS_ROUTES_READ_ARGC],
                               size_t lens[REDIS_ROUTES_READ_ARGC]) {
  argv[0] = "EVAL";
  lens[0] = 4;
  argv[1] = read_script;
  lens[1] = sizeof read_script - 1;
  argv[2] = "1";
  lens[2] = 1;
  argv[REDIS_ROUTES_READ_KEY] = key;
  lens[REDIS_ROUTES_READ_KEY] = len;
}

int redis_routes_parse_read(const redisReply *reply, char address[ROUTE_ADDRESS_MAX_BYTES + 1],
                            int64_t *ttl_ms) {
  if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
      reply->element[1]->type != REDIS_REPLY_INTEGER) {
    return ERROR_BUSY;
  }
  *ttl_ms = reply->element[1]->integer;
  return reply->element[0]->type == REDIS_REPLY_NIL
             ? ERROR_NOT_FOUND
             : redis_routes_parse_value(reply->element[0], address);
}

// --- Settling --------------------------------------------------------------------

struct settling {
  struct redis_link *link;
  redis_routes_on_settled *on_settled;
  void *context;
  int64_t ttl_ms;
  int tries;
  bool restored;
  bool repaired;
  size_t key_len;
  char key[REDIS_ROUTES_KEY_BYTES];
  char candidate[ROUTE_ADDRESS_MAX_BYTES + 1];
};

static void on_script_reply(const redisReply *reply, void *context);

static int run(struct settling *settling, const char *dead, size_t dead_len) {
  char ttl[TEXT_BYTES];
  int ttl_len = snprintf(ttl, sizeof ttl, "%" PRId64, settling->ttl_ms);
  const char *argv[] = {"EVAL", settle_script, "1", settling->key, settling->candidate, ttl, dead};
  const size_t lens[] = {4,
                         sizeof settle_script - 1,
                         1,
                         settling->key_len,
                         strlen(settling->candidate),
                         (size_t)ttl_len,
                         dead_len};
  settling->tries++;
  return redis_link_send(settling->link, 3, 7, argv, lens, on_script_reply, settling);
}

static void finish(struct settling *settling, int error, const char *address, int64_t ttl_ms) {
  struct redis_routes_settled settled = {
      .error = error,
      .address = address,
      .ttl_ms = ttl_ms,
      .lost = error == 0 && strcmp(address, settling->candidate) != 0,
      .restored = settling->restored,
      .repaired = settling->repaired,
  };
  settling->on_settled(&settled, settling->context);
  free(settling);
}

static void on_script_reply(const redisReply *reply, void *context) {
  struct settling *settling = context;
  char address[ROUTE_ADDRESS_MAX_BYTES + 1];
  if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
      reply->element[0]->type != REDIS_REPLY_STRING ||
      reply->element[1]->type != REDIS_REPLY_INTEGER ||
      reply->element[2]->type != REDIS_REPLY_INTEGER) {
    finish(settling, ERROR_NOT_FOUND, NULL, 0);
    return;
  }
  const redisReply *value = reply->element[0];
  settling->repaired = settling->repaired || reply->element[2]->integer == WAS_UNUSABLE;
  settling->restored = reply->element[2]->integer == WAS_MISSING;
  if (redis_routes_parse_value(value, address) != 0) {
    // Text, but no address: as good as dead.
    settling->repaired = true;
    if (settling->tries >= SETTLE_TRIES || run(settling, value->str, value->len) != 0) {
      finish(settling, ERROR_NOT_FOUND, NULL, 0);
    }
    return;
  }
  // A route without an end is given the usual one.
  int64_t ttl_ms = reply->element[1]->integer;
  finish(settling, 0, address, ttl_ms < 0 || ttl_ms > settling->ttl_ms ? settling->ttl_ms : ttl_ms);
}

int redis_routes_settle(struct redis_link *link, const struct route_key *key, const char *candidate,
                        int64_t ttl_ms, const char *dead, redis_routes_on_settled *on_settled,
                        void *context) {
  struct settling *settling = malloc(sizeof *settling);
  if (!settling) {
    return ERROR_MEMORY;
  }
  *settling = (struct settling){
      .link = link, .on_settled = on_settled, .context = context, .ttl_ms = ttl_ms};
  settling->key_len = redis_routes_key(key, settling->key);
  snprintf(settling->candidate, sizeof settling->candidate, "%s", candidate);
  int error = run(settling, dead, strlen(dead));
  if (error != 0) {
    free(settling);
  }
  return error;
}

// --- Setting and removing ----------------------------------------------------------

int redis_routes_set(struct redis_link *link, const struct route_key *key, const char *address,
                     int64_t ttl_ms, redis_on_reply *on_reply, void *context) {
  char text[REDIS_ROUTES_KEY_BYTES];
  char ttl[TEXT_BYTES];
  redis_routes_key(key, text);
  snprintf(ttl, sizeof ttl, "%" PRId64, ttl_ms);
  return redis_link_send(link, 3, 6, (const char *[]){"EVAL", set_script, "1", text, address, ttl},
                         NULL, on_reply, context);
}

int redis_routes_remove(struct redis_link *link, const struct route_key *key, const char *address,
                        redis_on_reply *on_reply, void *context) {
  char text[REDIS_ROUTES_KEY_BYTES];
  redis_routes_key(key, text);
  return redis_link_send(link, 3, 5, (const char *[]){"EVAL", remove_script, "1", text, address},
                         NULL, on_reply, context);
}
