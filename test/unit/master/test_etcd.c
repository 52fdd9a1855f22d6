#include "master/etcd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/stream.h"
#include "master/registry.h"
#include "master/rpc_server.h"
#include "proto/etcd.pb-c.h"
#include "test/unit/await.h"

// A gateway that is registered, and the etcd for it: it answers all calls, lists nothing, and
// writes down what becomes of the key.

enum {
  LONG_MS = 600000,
  SOON_MS = 10,
};

struct house {
  struct event_base *base;
  struct rpc_server *server;
  struct rpc_server_call *watch;  // NULL: none is open
  struct config config;
  struct secrets secrets;
  struct counters counters;
  struct node_table *table;
  struct registry *registry;
  int grants, puts, revokes;
  int64_t lease_put;  // of the last put
  char key_put[128];
  bool leases_lost;  // puts under those that it gave before are refused
  bool gone;
};

// --- Memory that runs out --------------------------------------------------------------

struct stream *__real_stream_open(struct stream_engine *engine, const struct stream_target *target,
                                  const struct stream_metadata *metadata, size_t metadata_count,
                                  const struct stream_events *events, void *owner);
struct stream *__wrap_stream_open(struct stream_engine *engine, const struct stream_target *target,
                                  const struct stream_metadata *metadata, size_t metadata_count,
                                  const struct stream_events *events, void *owner);

static const char *no_memory_for;  // the next call of this method

struct stream *__wrap_stream_open(struct stream_engine *engine, const struct stream_target *target,
                                  const struct stream_metadata *metadata, size_t metadata_count,
                                  const struct stream_events *events, void *owner) {
  if (no_memory_for && strstr(target->method, no_memory_for)) {
    no_memory_for = NULL;
    return NULL;
  }
  return __real_stream_open(engine, target, metadata, metadata_count, events, owner);
}

// --- The etcd --------------------------------------------------------------------------

static bool is_method(struct rpc_server_call *call, const char *name) {
  return strcmp(strrchr(rpc_server_method(call), '/') + 1, name) == 0;
}

static enum stream_status on_head(struct rpc_server_call *call, const char **detail, void *owner) {
  (void)call;
  (void)detail;
  (void)owner;
  return STREAM_OK;
}

static void answer(struct rpc_server_call *call, const ProtobufCMessage *message, bool goes_on) {
  uint8_t bytes[256];
  assert_true(protobuf_c_message_get_packed_size(message) <= sizeof bytes);
  size_t len = protobuf_c_message_pack(message, bytes);
  if (goes_on) {
    rpc_server_send(call, bytes, len);
  } else {
    rpc_server_reply(call, bytes, len);
  }
}

static void put(struct house *house, struct rpc_server_call *call, const uint8_t *bytes,
                size_t len) {
  Etcd__ResponseHeader header = ETCD__RESPONSE_HEADER__INIT;
  Etcd__PutResponse reply = ETCD__PUT_RESPONSE__INIT;
  Etcd__PutRequest *request = etcd__put_request__unpack(NULL, len, bytes);
  assert_non_null(request);
  if (house->leases_lost && request->lease <= house->lease_put) {
    rpc_server_fail(call, STREAM_NOT_FOUND, "requested lease not found");
  } else {
    house->lease_put = request->lease;
    snprintf(house->key_put, sizeof house->key_put, "%.*s", (int)request->key.len,
             (const char *)request->key.data);
    house->puts++;
    header.revision = 1 + house->puts;
    reply.header = &header;
    answer(call, &reply.base, false);
  }
  etcd__put_request__free_unpacked(request, NULL);
}

static void on_request(struct rpc_server_call *call, const uint8_t *bytes, size_t len,
                       void *owner) {
  struct house *house = owner;
  Etcd__ResponseHeader header = ETCD__RESPONSE_HEADER__INIT;
  header.revision = 1 + house->puts;
  if (is_method(call, "Range")) {
    Etcd__RangeResponse reply = ETCD__RANGE_RESPONSE__INIT;
    reply.header = &header;
    answer(call, &reply.base, false);
  } else if (is_method(call, "LeaseGrant")) {
    Etcd__LeaseGrantResponse reply = ETCD__LEASE_GRANT_RESPONSE__INIT;
    reply.id = ++house->grants;
    reply.ttl = LONG_MS;
    answer(call, &reply.base, false);
  } else if (is_method(call, "Put")) {
    put(house, call, bytes, len);
  } else if (is_method(call, "LeaseRevoke")) {
    Etcd__LeaseRevokeResponse reply = ETCD__LEASE_REVOKE_RESPONSE__INIT;
    house->revokes++;
    answer(call, &reply.base, false);
  } else if (is_method(call, "LeaseKeepAlive")) {
    Etcd__LeaseKeepAliveResponse reply = ETCD__LEASE_KEEP_ALIVE_RESPONSE__INIT;
    reply.ttl = LONG_MS;
    answer(call, &reply.base, true);
  } else {
    Etcd__WatchResponse reply = ETCD__WATCH_RESPONSE__INIT;
    reply.created = true;
    house->watch = call;
    answer(call, &reply.base, true);
  }
}

static void on_gone_call(struct rpc_server_call *call, void *owner) {
  struct house *house = owner;
  if (house->watch == call) {
    house->watch = NULL;
  }
}

static void end_session(struct house *house) {
  struct rpc_server_call *watch = house->watch;
  assert_non_null(watch);
  house->watch = NULL;
  rpc_server_fail(watch, STREAM_UNAVAILABLE, "etcd is leaving");
}

static void tell_removed(struct house *house) {
  Etcd__ResponseHeader header = ETCD__RESPONSE_HEADER__INIT;
  Etcd__KeyValue kv = ETCD__KEY_VALUE__INIT;
  Etcd__Event event = ETCD__EVENT__INIT;
  Etcd__Event *events[] = {&event};
  Etcd__WatchResponse message = ETCD__WATCH_RESPONSE__INIT;
  header.revision = kv.mod_revision = 2 + house->puts;
  kv.key = (ProtobufCBinaryData){strlen(house->key_put), (uint8_t *)house->key_put};
  event.type = ETCD__EVENT__EVENT_TYPE__DELETE;
  event.kv = &kv;
  message.header = &header;
  message.n_events = 1;
  message.events = events;
  assert_non_null(house->watch);
  answer(house->watch, &message.base, true);
}

// --- The gateway -----------------------------------------------------------------------

static void announce(struct house *house) {
  const struct registry_endpoint endpoint = {
      .scheme = "tcp", .address = "10.0.0.1:19000", .path = ""};
  registry_announce(house->registry, &endpoint, 1);
}

static bool is_registered(const struct house *house) {
  struct etcd_health health;
  return registry_health(house->registry, &health) && health.announced;
}

static void on_withdrawn(void *owner) {
  struct house *house = owner;
  house->gone = true;
}

static void withdraw(struct house *house) {
  house->gone = false;
  registry_withdraw(house->registry, on_withdrawn, house);
  AWAIT(house, house->gone);
}

static int set_up(void **state) {
  static const struct rpc_server_events events = {on_head, on_request, on_gone_call};
  static const struct rpc_server_options options = {.address = "127.0.0.1:0",
                                                    .message_bytes = 1 << 16,
                                                    .calls_max = 100,
                                                    .request_timeout_ms = LONG_MS,
                                                    .keepalive_ms = LONG_MS};
  struct house *house = calloc(1, sizeof *house);
  struct config *config = &house->config;
  char why[256] = "";
  int error;
  no_memory_for = NULL;
  house->base = event_base_new();
  house->server = rpc_server_new(house->base, &options, &events, house, why, sizeof why);
  assert_non_null(house->server);
  snprintf(config->etcd.endpoints, sizeof config->etcd.endpoints, "127.0.0.1:%d",
           rpc_server_port(house->server));
  strcpy(config->etcd.namespace, "/microservices");
  config->etcd.timeout_ms = LONG_MS;
  config->etcd.lease_ttl_ms = LONG_MS;
  config->etcd.backoff_ms = SOON_MS;
  config->etcd.backoff_max_ms = SOON_MS;
  config->registry.source = REGISTRY_ETCD;
  strcpy(config->label.service, "janus.gate.interface");
  strcpy(config->server.grpc.advertise, "10.0.0.1:19100");
  config->tunnel.type_count = 1;
  strcpy(config->tunnel.types[0].service, "roma.player.service");
  house->table = node_table_create(4, &error);
  house->registry = registry_new(house->base, config, &house->secrets, house->table,
                                 &house->counters, why, sizeof why);
  assert_string_equal(why, "");
  assert_non_null(house->registry);
  *state = house;
  return 0;
}

static int tear_down(void **state) {
  struct house *house = *state;
  registry_free(house->registry);
  rpc_server_free(house->server);
  node_table_free(house->table);
  event_base_free(house->base);
  free(house);
  return 0;
}

// --- The facts -------------------------------------------------------------------------

static void a_gateway_that_is_announced_again_is_registered_once(void **state) {
  struct house *house = *state;
  announce(house);
  announce(house);
  AWAIT(house, is_registered(house));
  announce(house);
  withdraw(house);
  assert_int_equal(house->puts, 1);
  assert_int_equal(house->grants, 1);
  assert_int_equal(house->revokes, 1);
}

static void one_that_was_withdrawn_is_registered_anew(void **state) {
  struct house *house = *state;
  announce(house);
  AWAIT(house, is_registered(house));
  withdraw(house);
  assert_false(is_registered(house));
  announce(house);
  AWAIT(house, is_registered(house));
  assert_int_equal(house->puts, 2);
  assert_int_equal(house->lease_put, 2);
}

static bool is_watching(const struct house *house) {
  struct etcd_health health;
  return registry_health(house->registry, &health) && strcmp(health.state, "watching") == 0;
}

static void one_that_is_withdrawn_while_etcd_is_away_is_taken_out_when_it_is_back(void **state) {
  struct house *house = *state;
  announce(house);
  AWAIT(house, is_registered(house) && house->watch);
  end_session(house);
  AWAIT(house, !is_watching(house));
  withdraw(house);
  assert_int_equal(house->revokes, 0);
  AWAIT(house, !is_registered(house));
  assert_int_equal(house->revokes, 1);
  announce(house);
  AWAIT(house, is_registered(house));
  assert_int_equal(house->lease_put, 2);
}

static void a_session_that_is_new_puts_the_key_again_under_its_lease(void **state) {
  struct house *house = *state;
  announce(house);
  AWAIT(house, is_registered(house) && house->watch);
  end_session(house);
  AWAIT(house, house->puts == 2);
  assert_int_equal(house->lease_put, 1);
}

static void a_lease_that_is_lost_is_replaced_though_memory_runs_out(void **state) {
  struct house *house = *state;
  announce(house);
  AWAIT(house, is_registered(house) && house->watch);
  house->leases_lost = true;
  no_memory_for = "LeaseGrant";
  end_session(house);
  AWAIT(house, house->puts == 2);
  assert_null(no_memory_for);
  assert_int_equal(house->lease_put, 2);
}

static void a_key_that_is_removed_is_put_again_though_memory_runs_out(void **state) {
  struct house *house = *state;
  announce(house);
  AWAIT(house, is_registered(house) && house->watch);
  no_memory_for = "LeaseGrant";
  tell_removed(house);
  AWAIT(house, house->puts == 2);
  assert_null(no_memory_for);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_gateway_that_is_announced_again_is_registered_once),
      FACT(one_that_was_withdrawn_is_registered_anew),
      FACT(one_that_is_withdrawn_while_etcd_is_away_is_taken_out_when_it_is_back),
      FACT(a_session_that_is_new_puts_the_key_again_under_its_lease),
      FACT(a_lease_that_is_lost_is_replaced_though_memory_runs_out),
      FACT(a_key_that_is_removed_is_put_again_though_memory_runs_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
