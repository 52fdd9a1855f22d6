#include "common/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

// Made for these tests alone.
#define SERVER_KEY                                                     \
  "-----BEGIN PRIVATE KEY-----\n"                                      \
  "MC4CAQAwBQYDK2VwBCIEIGsjWbckFyDZNagmCGj6Rrg6MVBMQXgzicyDKbO2pXMB\n" \
  "-----END PRIVATE KEY-----\n"
#define X25519_KEY                                                     \
  "-----BEGIN PRIVATE KEY-----\n"                                      \
  "MC4CAQAwBQYDK2VuBCIEIMDYb+nmytmXuqt33INsRhqYee+ctzRRozkXKSvNTg9Z\n" \
  "-----END PRIVATE KEY-----\n"
#define CLIENT_CERT_UNTIL_2119                                         \
  "-----BEGIN CERTIFICATE-----\n"                                      \
  "MIHLMH+gAwIBAgIBATAFBgMrZXAwDzENMAsGA1UEAwwEdGVzdDAgFw0yMDAxMDEw\n" \
  "MDAwMDBaGA8yMTE5MDEwMTAwMDAwMFowDzENMAsGA1UEAwwEdGVzdDAqMAUGAytl\n" \
  "cAMhAFYbTtKa6Tywkt8O0L0LDec6GiLCslPOzine7PpcBWZUMAUGAytlcANBAP/Z\n" \
  "7AKFD7rrV5UOu6a4z/yNX+J6My/VFrhirzZZqHvw9JzGoXLB+pH/p4y6c27o1ZYK\n" \
  "1GMZzVglNFU8rCdwCg0=\n"                                             \
  "-----END CERTIFICATE-----\n"
#define CLIENT_CERT_UNTIL_2021                                         \
  "-----BEGIN CERTIFICATE-----\n"                                      \
  "MIHJMH2gAwIBAgIBATAFBgMrZXAwDzENMAsGA1UEAwwEdGVzdDAeFw0yMDAxMDEw\n" \
  "MDAwMDBaFw0yMTAxMDEwMDAwMDBaMA8xDTALBgNVBAMMBHRlc3QwKjAFBgMrZXAD\n" \
  "IQBWG07Smuk8sJLfDtC9Cw3nOhoiwrJTzs4p3uz6XAVmVDAFBgMrZXADQQAM/WMz\n" \
  "kbSH7sOeuL9IBEVksDfB7qag9JJFbaPYKWYESImbfPg8M2eQDfeeJkZjz9KJORou\n" \
  "scLxINkdbHxLuW4F\n"                                                 \
  "-----END CERTIFICATE-----\n"

#define SECRET(account, server, client)     \
  "secret = { account_aes_key = \"" account \
  "\"; server_cert_version = 3;\n"          \
  "server_cert_private_key = \"" server     \
  "\"; client_cert_version = 4;\n"          \
  "client_cert = \"" client "\"; };\n"
#define ACCOUNT_KEY "0123456789abcdef0123456789abcdef"
#define GOOD_SECRET SECRET(ACCOUNT_KEY, SERVER_KEY, CLIENT_CERT_UNTIL_2119)

static char folder[64], main_file[96], secret_file[96];
static struct config config, other, running;
static struct secrets secrets;
static char faults[1 << 16];
static int fault_count;

static void on_fault(const char *fault, void *context) {
  assert_ptr_equal(context, &config);
  strncat(faults, fault, sizeof faults - strlen(faults) - 2);
  strcat(faults, "\n");
  fault_count++;
}

static void write_file(const char *path, const char *text, mode_t mode) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0);
  assert_int_equal(fclose(file), 0);
  assert_int_equal(chmod(path, mode), 0);
}

static int load(const char *text) {
  faults[0] = '\0';
  fault_count = 0;
  write_file(main_file, text, 0644);
  return config_load_file(main_file, &config, &secrets, on_fault, &config);
}

// Loads text with good secrets, which must work.
static void load_good(const char *text) {
  char whole[16384];
  snprintf(whole, sizeof whole, "%s\n@include \"secret.conf\"\n", text);
  write_file(secret_file, GOOD_SECRET, 0640);
  if (load(whole) != 0) {
    fail_msg("%s", faults);
  }
}

// Loads text with good secrets, which must give just this one fault, after the path.
static void expect_fault(const char *text, const char *fault) {
  char whole[16384], expected[1024];
  snprintf(whole, sizeof whole, "%s\n@include \"secret.conf\"\n", text);
  snprintf(expected, sizeof expected, "%s%s\n", main_file, fault);
  write_file(secret_file, GOOD_SECRET, 0640);
  assert_int_equal(load(whole), ERROR_INVALID);
  assert_string_equal(faults, expected);
}

// That there was this fault among others, after the folder's path.
static void assert_fault(const char *fault) {
  char expected[1024];
  snprintf(expected, sizeof expected, "%s/%s\n", folder, fault);
  if (strstr(faults, expected) == NULL) {
    fail_msg("no fault \"%s\" in:\n%s", expected, faults);
  }
}

static int set_up(void **state) {
  (void)state;
  strcpy(folder, "/tmp/janus-test-config-XXXXXX");
  if (mkdtemp(folder) == NULL) {
    return -1;
  }
  snprintf(main_file, sizeof main_file, "%s/janus.conf", folder);
  snprintf(secret_file, sizeof secret_file, "%s/secret.conf", folder);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  unlink(main_file);
  unlink(secret_file);
  return rmdir(folder);
}

static void an_empty_file_gives_the_defaults(void **state) {
  (void)state;
  load_good("");
  assert_string_equal(config.label.service, "janus.gate.interface");
  assert_string_equal(config.label.color, "local");
  assert_string_equal(config.label.version, JANUS_VERSION);
  assert_true(config.label.encrypted);
  assert_int_equal((int)config.log.type, LOG_TYPE_TEXT);
  assert_int_equal((int)config.log.level, LOG_LEVEL_INFO);
  assert_int_equal(config.compress.weak_bytes, 10240);
  assert_int_equal(config.compress.strong_bytes, 1024000);
  assert_string_equal(config.server.listeners[LISTENER_TCP].addr, "0.0.0.0:17001");
  assert_string_equal(config.server.grpc.advertise, "");
  assert_int_equal(config.data.gateway_route_table_alive_duration_ms, 600000);
  assert_int_equal(config.registry.node_count, 0);
  assert_int_equal(config.registry.capacity, 4096);
  assert_int_equal(config.routes.capacity[ROUTE_OBJECT], 100000);
  assert_int_equal(config.worker.restart_backoff_ms, 100);
  assert_string_equal(config.control.socket, CONFIG_CONTROL_SOCKET);
  assert_int_equal(config.limits.handshake_clock_ms, 5000);
  assert_int_equal(config.limits.message_to_client_bytes, 16384);
  assert_int_equal(config.queue.client_grace_ms, 10000);
  assert_true(config.seal.aes_ni);

  assert_int_equal((int)config.tunnel.engine, STREAM_HTTP2);
  assert_int_equal(config.tunnel.type_count, 2);
  const struct config_tunnel_type *player = &config.tunnel.types[0], *room = player + 1;
  assert_string_equal(player->name, "player");
  assert_string_equal(player->method, "/player.intra.v1.TunnelService/Tunnel");
  assert_true(player->default_modules && player->own_object_only && player->main);
  assert_false(player->fragments);
  assert_int_equal((int)player->tier, ROUTE_PLAYER);
  assert_string_equal(room->service, "roma.room.service");
  assert_int_equal(room->module_count, 1);
  assert_int_equal(room->modules[0], 6);
  assert_true(room->fragments);
  assert_false(room->default_modules || room->own_object_only || room->main);
  assert_int_equal((int)room->tier, ROUTE_OBJECT);
}

static void the_shipped_file_is_the_defaults_and_two_nodes(void **state) {
  (void)state;
  load_good("");
  other = config;
  char text[65536];
  FILE *file = fopen("etc/janus.conf", "r");
  assert_non_null(file);
  size_t len = fread(text, 1, sizeof text - 1, file);
  assert_true(len < sizeof text - 1);
  text[len] = '\0';
  fclose(file);
  if (load(text) != 0) {  // it includes secret.conf, which load_good wrote
    fail_msg("%s", faults);
  }
  assert_int_equal(config.registry.node_count, 2);
  assert_string_equal(config.registry.nodes[1].service, "roma.room.service");
  memset(config.registry.nodes, 0, sizeof config.registry.nodes);
  config.registry.node_count = 0;
  assert_memory_equal(&config, &other, sizeof config);
}

static void the_shipped_secrets_say_how_to_make_real_ones(void **state) {
  (void)state;
  char text[4096];
  FILE *file = fopen("etc/secret.conf", "r");
  assert_non_null(file);
  text[fread(text, 1, sizeof text - 1, file)] = '\0';
  fclose(file);
  write_file(secret_file, text, 0600);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  assert_int_equal(fault_count, 3);
  assert_fault(
      "secret.conf:13: secret.account_aes_key: is still the template's; make real keys with: "
      "janus-keys init");
}

static void values_are_read_from_the_file(void **state) {
  (void)state;
  load_good(
      "label = { color = \"blue\"; encrypted = false; };\n"
      "log = { type = \"json\"; level = \"debug\"; output = \"file\"; file = \"/x/log\"; };\n"
      "server = { tcp = { addr = \"[::1]:0\"; backlog = 7; };\n"
      "           grpc = { advertise = \"gate-1.example.net:19100\"; }; };\n"
      "data : { app_route_table_alive_duration = \"5m\"; };\n"
      "limits : { handshake_timeout = \"0.5s\"; idle_timeout = \"100ms\"; };\n"
      "tunnel : { reopen_timeout = \"1h\"; engine = \"grpc\"; };\n"
      "registry = \"static\"; routes = \"memory\"; seal = { aes_ni = false; };\n"
      "nodes = ( { service = \"a\"; addr = \"h:1\"; },\n"
      "          { service = \"a\"; addr = \"h:2\"; color = \"\"; weight = 0; } );\n");
  assert_string_equal(config.label.color, "blue");
  assert_false(config.label.encrypted);
  assert_int_equal((int)config.log.type, LOG_TYPE_JSON);
  assert_int_equal((int)config.log.level, LOG_LEVEL_DEBUG);
  assert_int_equal((int)config.log.output, LOG_OUTPUT_FILE);
  assert_string_equal(config.log.file, "/x/log");
  assert_string_equal(config.server.listeners[LISTENER_TCP].addr, "[::1]:0");
  assert_int_equal(config.server.listeners[LISTENER_TCP].backlog, 7);
  assert_string_equal(config.server.grpc.advertise, "gate-1.example.net:19100");
  assert_int_equal(config.data.app_route_table_alive_duration_ms, 300000);
  assert_int_equal(config.limits.handshake_timeout_ms, 500);
  assert_int_equal(config.limits.idle_timeout_ms, 100);
  assert_int_equal(config.tunnel.reopen_timeout_ms, 3600000);
  assert_int_equal((int)config.tunnel.engine, STREAM_GRPC);
  assert_false(config.seal.aes_ni);
  assert_int_equal(config.registry.node_count, 2);
  assert_string_equal(config.registry.nodes[0].color, "blue");
  assert_int_equal(config.registry.nodes[0].weight, 100);
  assert_string_equal(config.registry.nodes[1].color, "");
  assert_string_equal(config.registry.nodes[1].address, "h:2");
  assert_int_equal(config.registry.nodes[1].weight, 0);
}

static void every_fault_is_reported_in_one_run(void **state) {
  (void)state;
  write_file(secret_file, GOOD_SECRET, 0600);
  assert_int_equal(load("log = { levle = \"info\";\n"
                        "  type = \"xml\"; };\n"
                        "server = { tcp = { addr = 17001;\n"
                        "  backlog = 0; };\n"
                        "  udp = { addr = \"x:1\"; }; };\n"
                        "limits = 5;\n"
                        "queue = { client_grace = 10;\n"
                        "  tunnel_bytes = 1.5; };\n"
                        "worker = { count = \"two\"; stop_timeout = \"3 s\"; };\n"
                        "label = { encrypted = 1; };\n"
                        "registry = \"consul\";\n"
                        "somthing = 1;\n"
                        "nodes = ( { service = \"a\"; addr = \"nowhere\"; wieght = 3; }, 7 );\n"
                        "@include \"secret.conf\"\n"),
                   ERROR_INVALID);
  assert_fault("janus.conf:1: log.levle: unknown key; did you mean \"log.level\"?");
  assert_fault("janus.conf:2: log.type: must be one of text|json|logfmt, not \"xml\"");
  assert_fault("janus.conf:3: server.tcp.addr: must be host:port in quotes, not a number");
  assert_fault("janus.conf:4: server.tcp.backlog: must be a whole number from 1 to 65535, not 0");
  assert_fault("janus.conf:5: server.udp: unknown key; did you mean \"server.tcp\"?");
  assert_fault("janus.conf:6: limits: must be a group { ... }, not a number");
  assert_fault(
      "janus.conf:7: queue.client_grace: must be a duration in quotes, such as \"600s\", not a "
      "number");
  assert_fault(
      "janus.conf:8: queue.tunnel_bytes: must be a whole number, not a number with a fraction");
  assert_fault("janus.conf:9: worker.count: must be a whole number, not a string");
  assert_fault(
      "janus.conf:9: worker.stop_timeout: must be a duration from \"1ms\" to \"86400s\", a number "
      "with ms, s, m or h, not \"3 s\"");
  assert_fault("janus.conf:10: label.encrypted: must be true or false, not a number");
  assert_fault("janus.conf:11: registry: must be one of static|etcd, not \"consul\"");
  assert_fault("janus.conf:12: somthing: unknown key");
  assert_fault(
      "janus.conf:13: nodes[0].addr: must be host:port, the port from 1 to 65535, not "
      "\"nowhere\"");
  assert_fault("janus.conf:13: nodes[0].wieght: unknown key; did you mean \"weight\"?");
  assert_fault("janus.conf:13: nodes[1]: must be a group { ... }, not a number");
  assert_int_equal(fault_count, 16);
}

static void a_syntax_error_names_file_and_line(void **state) {
  (void)state;
  assert_int_equal(load("log = {\n level = \"info\n"), ERROR_INVALID);
  assert_int_equal(fault_count, 1);
  write_file(secret_file, "\n\nsecret = = 1;\n", 0600);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  assert_fault("secret.conf:3: syntax error");
  assert_int_equal(load("log = { level = \"info\"; level = \"warn\"; };\n"), ERROR_INVALID);
  assert_fault("janus.conf:1: duplicate setting name");
}

static void a_missing_file_or_include_is_named(void **state) {
  (void)state;
  char expected[256];
  snprintf(expected, sizeof expected, ":2: cannot open include file; it is looked for in %s",
           folder);
  unlink(secret_file);
  assert_int_equal(load("\n@include \"secret.conf\"\n"), ERROR_INVALID);
  assert_non_null(strstr(faults, expected));

  faults[0] = '\0';
  assert_int_equal(
      config_load_file("/tmp/janus-no-such-file", &config, &secrets, on_fault, &config),
      ERROR_INVALID);
  assert_string_equal(faults,
                      "/tmp/janus-no-such-file: can't be read: No such file or directory\n");
  assert_int_equal(config_load_file(folder, &config, &secrets, on_fault, &config), ERROR_INVALID);
}

static void bad_values_are_refused(void **state) {
  (void)state;
#define DURATION_FAULT(value)                                                               \
  ":1: tunnel.suspect: must be a duration from \"0s\" to \"86400s\", a number with ms, s, " \
  "m or h, not \"" value "\""
  static const char *const durations[] = {
      "",    "5",  "s", "-5s", "5.s", ".5s", "5d", "1.2.3s", "25h", "0.0005s", "99999999999999s",
      " 5s", "5s "};
  for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
    char text[128], fault[256];
    snprintf(text, sizeof text, "tunnel = { suspect = \"%s\"; };", durations[i]);
    snprintf(fault, sizeof fault, DURATION_FAULT("%s"), durations[i]);
    expect_fault(text, fault);
  }
  static const char *const addresses[] = {"",        "h",         ":1",      "h:",    "h:x",
                                          "h:65536", "h:-1",      "h:1 ",    "a b:1", "[]:1",
                                          "[::1",    "::1:17001", "[h/x]:1", "h:+1"};
  for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
    char text[128], fault[256];
    snprintf(text, sizeof text, "server = { grpc = { addr = \"%s\"; }; };", addresses[i]);
    snprintf(fault, sizeof fault,
             ":1: server.grpc.addr: must be host:port, the port from 0 to 65535, not \"%s\"",
             addresses[i]);
    expect_fault(text, fault);
  }
  expect_fault("log = { output = \"file\"; file = \"log\"; };",
               ":1: log.file: must be a whole path, beginning with /, for output = \"file\"");
  expect_fault("label = { zone = \"a\\nb\"; };",
               ":1: label.zone: must not have control characters, as in \"a\\x0ab\"");
  expect_fault("label = { service = \"\"; };", ":1: label.service: must not be empty");
  expect_fault(
      "label = { color = "
      "\"0123456789012345678901234567890123456789012345678901234567890123\"; };",
      ":1: label.color: must be shorter than 64 bytes");
  // libconfig would cut this one to 1410065408.
  expect_fault("queue = { tunnel_messages = 5; tunnel_bytes = 9999999999; };",
               ":1: queue.tunnel_bytes: must be a whole number from 1024 to 1073741824, not "
               "9999999999");
  expect_fault("worker = { count = 65; };",
               ":1: worker.count: must be a whole number from 0 to 64, not 65");
}

static void settings_that_do_not_fit_together_are_refused(void **state) {
  (void)state;
  expect_fault("compress = { weak = 2000000; };",
               ":1: compress.weak: must not be greater than compress.strong");
  expect_fault("compress = { strong = 5; };",
               ":1: compress.strong: must not be less than compress.weak");
  expect_fault("queue = { client_low_bytes = 262144; };",
               ":1: queue.client_low_bytes: must be less than queue.client_high_bytes");
  expect_fault("tunnel = { backoff = \"3s\"; };",
               ":1: tunnel.backoff: must not be greater than tunnel.backoff_max");
  expect_fault(
      "node_table = { capacity = 1; };\n"
      "nodes = ( { service = \"a\"; addr = \"h:1\"; }, "
      "{ service = \"b\"; addr = \"h:1\"; } );",
      ":1: node_table.capacity: is less than the 2 nodes given");
  expect_fault(
      "nodes = ( { service = \"a\"; addr = \"h:1\"; },\n"
      "{ service = \"a\"; addr = \"h:1\"; } );",
      ":2: nodes[1]: is the same service at the same address as nodes[0]");
  char text[256];
  snprintf(text, sizeof text, "control = { socket = \"/%0120d\"; };", 0);
  expect_fault(text, ":1: control.socket: must be shorter than 108 bytes");
  expect_fault("control = { group = \"no-such-group\"; };",
               ":1: control.group: there is no group no-such-group on this machine");
  expect_fault("control = {\n read_group = \"no-such-group\"; };",
               ":2: control.read_group: there is no group no-such-group on this machine");
}

#define PLAYER_TYPE                                                                         \
  "{ name = \"player\"; service = \"p\"; method = \"/p.P/T\"; default = true; main = true;" \
  " fragments = false; own_object_only = true; },\n"
#define TYPES(entries) "tunnel = { types = (" PLAYER_TYPE entries "); };"

static void a_further_tunnel_type_needs_four_lines(void **state) {
  (void)state;
  load_good(
      TYPES("{ name = \"chat\"; service = \"roma.chat.service\";"
            "  method = \"/chat.intra.v1.TunnelService/Tunnel\"; modules = [9, 10]; }"));
  assert_int_equal(config.tunnel.type_count, 2);
  const struct config_tunnel_type *chat = &config.tunnel.types[1];
  assert_string_equal(chat->name, "chat");
  assert_int_equal(chat->module_count, 2);
  assert_int_equal(chat->modules[1], 10);
  assert_true(chat->fragments);
  assert_false(chat->default_modules || chat->own_object_only || chat->main);
  assert_int_equal((int)chat->tier, ROUTE_OBJECT);
  assert_int_equal((int)config.tunnel.types[0].tier, ROUTE_PLAYER);
}

static void tunnel_types_that_contradict_are_refused(void **state) {
  (void)state;
#define TYPE(name, rest) "{ name = \"" name "\"; service = \"s\"; method = \"/s.S/T\";" rest " }"
  expect_fault(TYPES(TYPE("player", "modules = [1];")),
               ":2: tunnel.types[1].name: tunnel.types[0] is called \"player\" already");
  expect_fault(TYPES(TYPE("a", "modules = [1];") "," TYPE("b", "modules = [2, 1];")),
               ":2: tunnel.types[2].modules: module 1 is named twice, in tunnel.types[1] too");
  expect_fault(TYPES(TYPE("a", "modules = [4, 4];")),
               ":2: tunnel.types[1].modules: module 4 is named twice, in tunnel.types[1] too");
  expect_fault(TYPES(TYPE("a", "default = true;")),
               ":2: tunnel.types[1].default: only one type can take all other modules");
  expect_fault(TYPES(TYPE("a", "modules = [1]; main = true;")),
               ":2: tunnel.types[1].main: only one type can be the main tunnel");
  expect_fault(TYPES(TYPE("a", "")),
               ":2: tunnel.types[1].modules: is missing: without modules the tunnel is never used");
  expect_fault(TYPES(TYPE("a", "modules = [-1];")),
               ":2: tunnel.types[1].modules: a module id must be a whole number from 0 to "
               "2147483647");
  expect_fault(TYPES(TYPE("a", "modules = 6;")),
               ":2: tunnel.types[1].modules: must be module ids, such as [6, 7], not a number");
  expect_fault(TYPES("{ name = \"a\"; service = \"s\"; modules = [1]; }"),
               ":2: tunnel.types[1].method: is missing");
  expect_fault(TYPES("{ name = \"a\"; service = \"s\"; method = \"s.S/T\"; modules = [1]; }"),
               ":2: tunnel.types[1].method: must be of the form /package.Service/Method, not "
               "\"s.S/T\"");
  expect_fault("tunnel = { types = (" TYPE("a", "modules = [1];") "); };",
               ":1: tunnel.types: one type must have main = true");
  expect_fault("tunnel = { types = [1]; };",
               ":1: tunnel.types: must be a list ( { ... }, ... ), not an array [ ... ]");
}

static void the_environment_overrides_the_file(void **state) {
  (void)state;
  setenv("JANUS_SERVER_TCP_ADDR", "127.0.0.1:0", 1);
  setenv("JANUS_LOG_LEVEL", "error", 1);
  setenv("JANUS_LABEL_ENCRYPTED", "false", 1);
  setenv("JANUS_LABEL_COLOR", "green", 1);
  setenv("JANUS_LIMITS_IDLE_TIMEOUT", "7s", 1);
  setenv("JANUS_ROUTE_TABLE_CAPACITY_PLAYER", "77", 1);
  load_good(
      "log = { level = \"debug\"; };\n"
      "nodes = ( { service = \"a\"; addr = \"h:1\"; } );");
  unsetenv("JANUS_SERVER_TCP_ADDR");
  unsetenv("JANUS_LOG_LEVEL");
  unsetenv("JANUS_LABEL_ENCRYPTED");
  unsetenv("JANUS_LABEL_COLOR");
  unsetenv("JANUS_LIMITS_IDLE_TIMEOUT");
  unsetenv("JANUS_ROUTE_TABLE_CAPACITY_PLAYER");
  assert_string_equal(config.server.listeners[LISTENER_TCP].addr, "127.0.0.1:0");
  assert_int_equal((int)config.log.level, LOG_LEVEL_ERROR);
  assert_false(config.label.encrypted);
  assert_int_equal(config.limits.idle_timeout_ms, 7000);
  assert_int_equal(config.routes.capacity[ROUTE_PLAYER], 77);
  assert_string_equal(config.registry.nodes[0].color, "green");
}

static void a_bad_value_in_the_environment_names_the_variable(void **state) {
  (void)state;
  write_file(secret_file, GOOD_SECRET, 0600);
  setenv("JANUS_WORKER_COUNT", "2x", 1);
  setenv("JANUS_COMPRESS_STRONG", "1", 1);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  unsetenv("JANUS_WORKER_COUNT");
  unsetenv("JANUS_COMPRESS_STRONG");
  assert_string_equal(faults,
                      "environment: JANUS_WORKER_COUNT (worker.count): must be a whole number from "
                      "0 to 64, not \"2x\"\n"
                      "environment: JANUS_COMPRESS_STRONG (compress.strong): must not be less than "
                      "compress.weak\n");
}

static void a_secret_in_the_environment_is_refused(void **state) {
  (void)state;
  write_file(secret_file, GOOD_SECRET, 0600);
  setenv("JANUS_SECRET_ACCOUNT_AES_KEY", ACCOUNT_KEY, 1);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  unsetenv("JANUS_SECRET_ACCOUNT_AES_KEY");
  assert_int_equal(fault_count, 1);
  assert_non_null(strstr(faults, "JANUS_SECRET_ACCOUNT_AES_KEY"));
  assert_null(strstr(faults, ACCOUNT_KEY));
}

static void secrets_are_read(void **state) {
  (void)state;
  load_good("");
  assert_int_equal(secrets.current.account_aes_key_len, 32);
  assert_memory_equal(secrets.current.account_aes_key, ACCOUNT_KEY, 32);
  assert_int_equal(secrets.current.server_cert_version, 3);
  assert_int_equal(secrets.current.client_cert_version, 4);
  // The certificate is for the same key: what the one signs, the other verifies.
  uint8_t signature[KEY_ED25519_SIGNATURE_BYTES];
  key_sign(&secrets.current.server_key, (const uint8_t *)"text", 4, signature);
  assert_int_equal(key_verify(&secrets.current.client_key, (const uint8_t *)"text", 4, signature),
                   0);
}

static void a_secret_file_that_others_can_read_is_refused(void **state) {
  (void)state;
  char fault[256];
  write_file(secret_file, GOOD_SECRET, 0644);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  snprintf(fault, sizeof fault,
           "secret.conf:1: secret: everybody on this machine can get at the file (mode 0644); "
           "run: chmod o-rwx %s",
           secret_file);
  assert_fault(fault);
  assert_int_equal(fault_count, 1);
  // The same where only a part of the section is included from such a file.
  char inner[96];
  snprintf(inner, sizeof inner, "%s/inner.conf", folder);
  write_file(inner, "account_aes_key = \"" ACCOUNT_KEY "\";\n", 0604);
  write_file(secret_file,
             "secret = { server_cert_version = 1; server_cert_private_key = \"" SERVER_KEY
             "\"; client_cert_version = 1; client_cert = \"" CLIENT_CERT_UNTIL_2119
             "\";\n@include \"inner.conf\"\n};",
             0600);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  unlink(inner);
  assert_int_equal(fault_count, 1);
  assert_non_null(strstr(faults, "(mode 0604)"));
}

static void bad_secrets_are_refused_without_being_shown(void **state) {
  (void)state;
  write_file(secret_file, SECRET("seventeen letters", X25519_KEY, CLIENT_CERT_UNTIL_2021), 0600);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  assert_fault("secret.conf:1: secret.account_aes_key: must have 16, 24 or 32 bytes, and has 17");
  assert_non_null(strstr(faults, "secret.server_cert_private_key: is not an Ed25519 key"));
  assert_non_null(strstr(faults, "secret.client_cert: is outside its time of validity"));
  assert_int_equal(fault_count, 3);
  assert_null(strstr(faults, "seventeen letters"));

  write_file(secret_file, SECRET(ACCOUNT_KEY, "no PEM", "no PEM"), 0600);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  assert_non_null(strstr(faults, "is not a private key in PKCS#8 PEM"));
  assert_non_null(strstr(faults, "is not an X.509 certificate in PEM"));
  struct secrets none;
  memset(&none, 0, sizeof none);
  assert_memory_equal(&secrets, &none, sizeof none);

  write_file(secret_file, "secret = { account_aes_kye = \"x\"; server_cert_version = \"1\"; };",
             0600);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  assert_fault(
      "secret.conf:1: secret.account_aes_kye: unknown key; did you mean "
      "\"secret.account_aes_key\"?");
  assert_non_null(strstr(faults, "secret.account_aes_key: is missing"));
  assert_non_null(strstr(faults, "secret.server_cert_version: must be a whole number"));
  assert_non_null(strstr(faults, "secret.server_cert_private_key: is missing"));
  assert_non_null(strstr(faults, "secret.client_cert: is missing"));

  assert_int_equal(load(""), ERROR_INVALID);
  assert_fault(
      "janus.conf: secret: is missing; make the keys with: janus-keys init, and @include "
      "\"secret.conf\"");
}

static void without_encryption_the_client_certificate_may_be_missing(void **state) {
  (void)state;
  write_file(secret_file,
             "secret = { account_aes_key = \"0123456789abcdef\"; server_cert_version = 1;"
             "server_cert_private_key = \"" SERVER_KEY "\"; };",
             0600);
  assert_int_equal(load("label = { encrypted = false; };\n@include \"secret.conf\"\n"), 0);
  assert_int_equal(secrets.current.account_aes_key_len, 16);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  assert_int_equal(fault_count, 2);
}

#define OLD_ACCOUNT_KEY "fedcba9876543210"

// Loads good secrets with more text in their group, on its second line.
static int load_with_secrets(const char *more) {
  char text[16384];
  const char *good = GOOD_SECRET;
  snprintf(text, sizeof text, "secret = {\n%s\n%s", more, good + strlen("secret = {"));
  write_file(secret_file, text, 0600);
  return load("@include \"secret.conf\"\n");
}

static void without_previous_keys_there_are_none(void **state) {
  (void)state;
  load_good("");
  assert_int_equal(secrets.previous_count, 0);
  assert_true(secrets.current.has_certs);
  assert_int_equal(secrets.current.until_ms, 0);
  assert_int_equal(config.login.key_overlap_ms, 24 * 3600 * 1000);
  assert_int_equal(load_with_secrets("previous = ();"), 0);
  assert_int_equal(secrets.previous_count, 0);
}

static void a_previous_account_key_may_stand_alone(void **state) {
  (void)state;
  assert_int_equal(load_with_secrets("previous = { account_aes_key = \"" OLD_ACCOUNT_KEY
                                     "\"; until = \"2026-12-01T12:00:00Z\"; };"),
                   0);
  assert_int_equal(secrets.previous_count, 1);
  assert_int_equal(secrets.previous[0].account_aes_key_len, 16);
  assert_memory_equal(secrets.previous[0].account_aes_key, OLD_ACCOUNT_KEY, 16);
  assert_false(secrets.previous[0].has_certs);
  assert_int_equal(secrets.previous[0].until_ms, 1796126400000);
  assert_int_equal(secrets.current.account_aes_key_len, 32);
}

static void previous_certificates_are_as_the_current_ones_where_they_are_left_out(void **state) {
  (void)state;
  assert_int_equal(
      load_with_secrets("previous = (\n"
                        "{ client_cert_version = 2; },\n"
                        "{ server_cert_version = 1; server_cert_private_key = \"" SERVER_KEY
                        "\"; },\n"
                        "{ client_cert_version = 1; client_cert = \"" CLIENT_CERT_UNTIL_2119
                        "\"; account_aes_key = \"" OLD_ACCOUNT_KEY "\"; });"),
      0);
  static const int32_t versions[][2] = {{3, 2}, {1, 4}, {3, 1}};
  assert_int_equal(secrets.previous_count, 3);
  for (size_t i = 0; i < 3; i++) {
    const struct login_keys *keys = &secrets.previous[i];
    assert_true(keys->has_certs);
    assert_int_equal(keys->server_cert_version, versions[i][0]);
    assert_int_equal(keys->client_cert_version, versions[i][1]);
    assert_memory_equal(&keys->server_key, &secrets.current.server_key, sizeof keys->server_key);
    assert_memory_equal(&keys->client_key, &secrets.current.client_key, sizeof keys->client_key);
    assert_int_equal(keys->account_aes_key_len, i == 2 ? 16 : 0);
    assert_int_equal(keys->until_ms, 0);
  }
}

static void a_previous_certificate_that_has_run_out_is_no_fault_and_of_no_use(void **state) {
  (void)state;
  assert_int_equal(
      load_with_secrets(
          "previous = { client_cert_version = 1; client_cert = \"" CLIENT_CERT_UNTIL_2021
          "\"; account_aes_key = \"" OLD_ACCOUNT_KEY "\"; };"),
      0);
  assert_int_equal(secrets.previous_count, 1);
  assert_false(secrets.previous[0].has_certs);
  assert_int_equal(secrets.previous[0].account_aes_key_len, 16);
}

static void faults_of_previous_keys_are_reported_at_their_place_without_being_shown(void **state) {
  (void)state;
  char text[4096];
  snprintf(text, sizeof text,
           "previous = (\n"
           "{ account_aes_key = \"seventeen letters\"; },\n"
           "{ server_cert_private_key = \"%s\"; client_cert = \"no PEM\";\n"
           "  client_cert_version = \"1\"; until = \"tomorrow\"; push_token = \"mine\"; },\n"
           "\"a key\");",
           X25519_KEY);
  assert_int_equal(load_with_secrets(text), ERROR_INVALID);
  assert_fault(
      "secret.conf:3: secret.previous[0].account_aes_key: must have 16, 24 or 32 bytes, and has "
      "17");
  assert_fault("secret.conf:4: secret.previous[1].server_cert_private_key: is not an Ed25519 key");
  assert_fault(
      "secret.conf:4: secret.previous[1].server_cert_version: is missing; of which version is the "
      "key beside it?");
  assert_non_null(
      strstr(faults, "secret.previous[1].client_cert: is not an X.509 certificate in PEM"));
  assert_non_null(strstr(
      faults, "secret.previous[1].client_cert_version: must be a whole number, not a string"));
  assert_non_null(strstr(faults,
                         "secret.previous[1].until: must be a time such as "
                         "\"2026-12-01T12:00:00Z\""));
  assert_non_null(strstr(faults, "secret.previous[1].push_token: unknown key"));
  assert_non_null(strstr(faults, "secret.previous[2]: must be a group { ... }, not a string"));
  assert_int_equal(fault_count, 8);
  assert_null(strstr(faults, "seventeen letters"));
  assert_null(strstr(faults, "mine"));
  struct secrets none;
  memset(&none, 0, sizeof none);
  assert_memory_equal(&secrets, &none, sizeof none);

  assert_int_equal(load_with_secrets("previous = \"a key\";"), ERROR_INVALID);
  assert_fault(
      "secret.conf:2: secret.previous: must be a group { ... } or a list of them, not a string");
  assert_int_equal(load_with_secrets("previous = { until = \"2026-12-01T12:00:00Z\"; };"),
                   ERROR_INVALID);
  assert_fault("secret.conf:2: secret.previous: has no key in it");
  assert_int_equal(load_with_secrets("previous = ({}, {}, {}, {});"), ERROR_INVALID);
  assert_fault("secret.conf:2: secret.previous: has 4 groups, and may have 3");
  assert_int_equal(load_with_secrets("previous = { account_aes_kye = \"x\"; };"), ERROR_INVALID);
  assert_fault(
      "secret.conf:2: secret.previous.account_aes_kye: unknown key; did you mean "
      "\"secret.previous.account_aes_key\"?");
  assert_int_equal(load_with_secrets("previous = { account_aes_key = \"REPLACE me\"; };"),
                   ERROR_INVALID);
  assert_non_null(strstr(faults, "secret.previous.account_aes_key: is still the template's"));

  setenv("JANUS_SECRET_PREVIOUS_ACCOUNT_AES_KEY", OLD_ACCOUNT_KEY, 1);
  assert_int_equal(load_with_secrets(""), ERROR_INVALID);
  unsetenv("JANUS_SECRET_PREVIOUS_ACCOUNT_AES_KEY");
  assert_int_equal(fault_count, 1);
  assert_null(strstr(faults, OLD_ACCOUNT_KEY));
}

static void previous_keys_in_a_file_that_others_can_read_are_refused(void **state) {
  (void)state;
  char inner[96];
  snprintf(inner, sizeof inner, "%s/inner.conf", folder);
  write_file(inner, "account_aes_key = \"" OLD_ACCOUNT_KEY "\";\n", 0604);
  assert_int_equal(load_with_secrets("previous = {\n@include \"inner.conf\"\n};"), ERROR_INVALID);
  unlink(inner);
  assert_int_equal(fault_count, 1);
  assert_non_null(strstr(faults, "(mode 0604)"));
}

static void a_time_has_a_date_a_clock_and_an_offset(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t ms;  // -1: a fault
  } times[] = {
      {"2026-12-01T12:00:00Z", 1796126400000},
      {"2026-12-01t12:00:00z", 1796126400000},
      {"2026-12-01T14:00:00+02:00", 1796126400000},
      {"2026-12-01T06:30:00.25-05:30", 1796126400000},
      {"1970-01-01T00:00:00Z", 1},
      {"1969-01-01T00:00:00Z", 1},
      {"2028-02-29T00:00:00Z", 1835395200000},
      {"2027-02-29T00:00:00Z", -1},
      {"2026-12-01T24:00:00Z", -1},
      {"2026-13-01T00:00:00Z", -1},
      {"2026-12-01T12:00:00", -1},
      {"2026-12-01 12:00:00Z", -1},
      {"2026-12-01T12:00:00.Z", -1},
      {"2026-12-01T12:00:00+0200", -1},
      {"2026-12-01T12:00:00+24:00", -1},
      {"2026-12-01T12:00:00Z ", -1},
      {"2026-12-01T12:00:00+ 2:00", -1},
      {"2026-12-1T12:00:00Z", -1},
      {"", -1},
  };
  for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
    char text[128];
    snprintf(text, sizeof text,
             "previous = { account_aes_key = \"" OLD_ACCOUNT_KEY "\"; until = \"%s\"; };",
             times[i].text);
    int result = load_with_secrets(text);
    if (times[i].ms < 0) {
      assert_int_equal(result, ERROR_INVALID);
    } else {
      assert_int_equal(result, 0);
      assert_int_equal(secrets.previous[0].until_ms, times[i].ms);
    }
  }
}

static void what_is_saved_loads_to_an_equal_struct(void **state) {
  (void)state;
  load_good(
      "label = { zone = \"a \\\"b\\\" \\\\ \xc3\xa9\"; };\n"
      "log = { type = \"json\"; level = \"warn\"; };\n"
      "worker = { count = 0x3; stop_timeout = \"1.234s\"; };\n"
      "limits = { bytes_per_s = 1073741824; };\n"
      "nodes = ( { service = \"a\"; addr = \"h:1\"; color = \"x\"; weight = 0; tls = true; },\n"
      "          { service = \"b\"; addr = \"[::1]:2\"; } );\n" TYPES(
          "{ name = \"a\"; service = \"s\"; method = \"/s.S/T\"; modules = [7, 8]; }"));
  FILE *file = tmpfile();
  assert_non_null(file);
  assert_int_equal(config_save(&config, file), 0);
  // Twice: as two workers that share the descriptor's position would.
  for (int i = 0; i < 2; i++) {
    memset(&other, 0xa5, sizeof other);
    assert_int_equal(config_load_fd(fileno(file), &other, on_fault, &config), 0);
    assert_memory_equal(&config, &other, sizeof config);
  }
  char text[32768];
  rewind(file);
  text[fread(text, 1, sizeof text - 1, file)] = '\0';
  assert_non_null(strstr(text, "1234ms"));
  assert_null(strstr(text, ACCOUNT_KEY));
  assert_null(strstr(text, "secret"));
  fclose(file);
}

static void saved_settings_that_are_damaged_are_refused(void **state) {
  (void)state;
  int ends[2];
  faults[0] = '\0';
  assert_int_equal(pipe(ends), 0);
  static const char text[] = "worker = { cuont = 3; };\nsecret = { };\n";
  assert_int_equal(write(ends[1], text, sizeof text - 1), sizeof text - 1);
  close(ends[1]);
  assert_int_equal(config_load_fd(ends[0], &other, on_fault, &config), ERROR_INVALID);
  close(ends[0]);
  assert_non_null(strstr(faults, "settings:1: worker.cuont: unknown key"));
  assert_non_null(strstr(faults, "settings:2: secret: does not belong into the settings"));
  assert_int_equal(config_load_fd(-1, &other, on_fault, &config), ERROR_INVALID);
}

static void listeners_are_read_and_travel(void **state) {
  (void)state;
  load_good(
      "server = { tcp = { addr = \"\"; }; kcp = { addr = \"[::]:443\"; allow = [\"::1\"]; };\n"
      "  ws = { addr = \"[::]:443\"; path = \"/play\"; origins = [\"https://a\", \"https://b\"];\n"
      "         deny = [\"192.0.2.0/24\"]; keepalive = \"5m\"; };\n"
      "  listeners = (\n"
      "    { transport = \"tcp\"; addr = \"h:1\"; proxy = [\"10.0.0.0/8\", \"::1\"];\n"
      "      connections_per_worker = 7; nodelay = false;\n"
      "      tls = { enabled = true; cert = [\"janus.conf\", \"secret.conf\"];\n"
      "              key = \"secret.conf, janus.conf\"; min_version = \"1.3\"; }; },\n"
      "    { transport = \"ws\"; addr = \"h:2\"; subprotocols = [\"x\", \"y\"]; },\n"
      "    { transport = \"kcp\"; addr = \"h:2\"; connections_per_address = 9; } ); };\n");
  FILE *file = tmpfile();
  assert_int_equal(config_save(&config, file), 0);
  memset(&other, 0xa5, sizeof other);
  assert_int_equal(config_load_fd(fileno(file), &other, on_fault, &config), 0);
  fclose(file);
  assert_memory_equal(&config, &other, sizeof config);

  static const char *const names[] = {"ws", "kcp", "tls", "ws", "kcp"};
  static const char *const paths[] = {"server.ws", "server.kcp", "server.listeners[0]",
                                      "server.listeners[1]", "server.listeners[2]"};
  const struct config_listener *listener = NULL;
  char path[64], pair[CONFIG_LIST_BYTES];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    listener = config_listener_next(&config, listener);
    assert_non_null(listener);
    assert_string_equal(config_listener_name(listener), names[i]);
    assert_string_equal(config_listener_path(&config, listener, path, sizeof path), paths[i]);
  }
  assert_null(config_listener_next(&config, listener));
  assert_int_equal(listener->connections_per_address, 9);
  listener--;
  assert_string_equal(listener->subprotocols, "x,y");
  assert_string_equal(listener->path, "/ws");
  listener--;
  snprintf(pair, sizeof pair, "%s,%s", main_file, secret_file);
  assert_string_equal(listener->tls.cert, pair);
  snprintf(pair, sizeof pair, "%s,%s", secret_file, main_file);
  assert_string_equal(listener->tls.key, pair);
  assert_int_equal(listener->tls.min_version, TLS_1_3);
  assert_int_equal(listener->connections_per_worker, 7);
  assert_int_equal(listener->proxy.count, 2);
  assert_false(listener->nodelay);
  assert_string_equal(config.server.listeners[LISTENER_WS].origins, "https://a,https://b");
  assert_int_equal(config.server.listeners[LISTENER_WS].keepalive_ms, 300000);
}

static void listeners_that_do_not_fit_together_are_refused(void **state) {
  (void)state;
#define LISTENER(text) \
  "server = { listeners = ( { transport = \"tcp\"; addr = \"h:1\"; " text "} ); };"
  static const struct {
    const char *text, *fault;
  } faulty[] = {
      {"server = { tcp = { addr = \"\"; }; ws = { addr = \"\"; }; kcp = { addr = \"\"; }; };",
       ":1: server.tcp.addr: is empty, and there is no other listener for clients"},
      {"server = { ws = { path = \"ws\"; }; };", ":1: server.ws.path: must begin with a /"},
      {"server = { ws = { tls = { enabled = true; }; }; };",
       ":1: server.ws.tls.cert: is missing: TLS needs a certificate and its key"},
      {LISTENER("tls = { enabled = true; };"),
       ":1: server.listeners[0].tls.cert: is missing: TLS needs a certificate and its key"},
      {LISTENER("tls = { cert = \"janus.conf\"; };"),
       ":1: server.listeners[0].tls.cert: and tls.key go together: one key for each certificate"},
      {LISTENER("tls = { client_required = true; };"),
       ":1: server.listeners[0].tls.client_required: needs tls.client_ca, to judge the "
       "certificates by"},
      {LISTENER("tls = { cert = \"a,,b\"; };"),
       ":1: server.listeners[0].tls.cert: must not have empty entries, as in \"a,,b\""},
      {LISTENER("tls = { crt = \"a\"; };"),
       ":1: server.listeners[0].tls.crt: unknown key; did you mean \"tls.cert\"?"},
      {LISTENER("tls = 1;"), ":1: server.listeners[0].tls: must be a group { ... }, not a number"},
      {LISTENER("path = \"/ws\";"), ":1: server.listeners[0].path: is for transport = \"ws\" only"},
      {"server = { ws = { origins = [\"https://a,https://b\"]; }; };",
       ":1: server.ws.origins: must be a string in quotes, or an array of such without commas, "
       "[\"...\", \"...\"], not an array [ ... ]"},
      {LISTENER("keepalive = \"12h\";"),
       ":1: server.listeners[0].keepalive: must be a duration from \"0s\" to \"32767s\", a number "
       "with ms, s, m or h, not \"12h\""},
      {"server = { listeners = ( { transport = \"ws\"; addr = \"0.0.0.0:17002\"; } ); };",
       ":1: server.listeners[0].addr: is where server.ws listens already (\"\" there switches that "
       "one off)"},
      {"server = { ws = { addr = \"[::]:17001\"; }; };",
       ":1: server.ws.addr: is where server.tcp listens already (\"\" there switches that one "
       "off)"},
      {"server = { ws = { addr = \"h:5\"; };\n listeners = ( { transport = \"tcp\"; addr = "
       "\"h:5\"; } "
       "); };",
       ":2: server.listeners[0].addr: is where server.ws listens already (\"\" there switches that "
       "one off)"},
      {"server = { listeners = ( { transport = \"ws\"; } ); };",
       ":1: server.listeners[0].addr: is missing"},
      {"server = { listeners = ( { transport = \"udp\"; addr = \"h:1\"; } ); };",
       ":1: server.listeners[0].transport: must be one of tcp|ws|kcp, not \"udp\""},
      {"server = { listeners = ( { transport = \"kcp\"; addr = \"h:1\"; backlog = 7; } ); };",
       ":1: server.listeners[0].backlog: is not for transport = \"kcp\""},
      {"server = { listeners = ( { transport = \"kcp\"; addr = \"h:1\";\n"
       " tls = { min_version = \"1.3\"; }; } ); };",
       ":2: server.listeners[0].tls.min_version: is not for transport = \"kcp\""},
      {"server = { listeners = ( { transport = \"kcp\"; addr = \"h:1\"; path = \"/ws\"; } ); };",
       ":1: server.listeners[0].path: is not for transport = \"kcp\""},
      {"server = { kcp = { proxy = [\"::1\"]; }; };",
       ":1: server.kcp.proxy: unknown key; did you mean \"server.tcp.proxy\"?"},
      {"server = { listeners = ( { transport = \"kcp\"; addr = \"[::]:17003\"; } ); };",
       ":1: server.listeners[0].addr: is where server.kcp listens already (\"\" there switches "
       "that one off)"},
  };
  for (size_t i = 0; i < sizeof faulty / sizeof *faulty; i++) {
    expect_fault(faulty[i].text, faulty[i].fault);
  }
}

// A specific address beside a wildcard has its clients to itself; port 0 is another one each time.
static void listeners_may_share_a_port(void **state) {
  (void)state;
  load_good(
      "server = { tcp = { addr = \"127.0.0.1:17002\"; }; ws = { addr = \"0.0.0.0:17002\"; }; };");
  load_good("server = { tcp = { addr = \"127.0.0.1:0\"; }; ws = { addr = \"127.0.0.1:0\"; }; };");
  load_good("server = { tcp = { addr = \"\"; }; ws = { addr = \"h:1\"; }; };");
  load_good("server = { tcp = { addr = \"h:1\"; }; kcp = { addr = \"h:1\"; }; };");
}

static void the_profile_of_kcp_gives_what_is_not_given(void **state) {
  (void)state;
  load_good("");
  assert_int_equal(config.kcp.data_shards, 10);
  assert_int_equal(config.kcp.parity_shards, 3);
  assert_int_equal(config.kcp.interval_ms, 10);
  assert_int_equal(config.kcp.resend, 2);
  assert_int_equal(config.kcp.send_window, 128);
  assert_int_equal(config.kcp.receive_window, 128);
  assert_int_equal(config.kcp.mtu_bytes, 1400);
  assert_int_equal(config.kcp.dscp, 46);
  assert_int_equal(config.kcp.frame_bytes, 4096);
  assert_int_equal(config.kcp.receive_buffer_bytes, 4194304);
  assert_int_equal(config.kcp.stream_buffer_bytes, 65536);
  assert_int_equal(config.kcp.keepalive_interval_ms, 10000);
  assert_int_equal(config.kcp.keepalive_timeout_ms, 30000);
  assert_string_equal(config.server.listeners[LISTENER_KCP].addr, "0.0.0.0:17003");
  assert_true(config.kcp.nodelay && config.kcp.ack_nodelay);
  assert_false(config.kcp.congestion_window || config.kcp.roaming);
  other = config;
  load_good("kcp = { profile = \"default\"; };");
  assert_memory_equal(&config, &other, sizeof config);

  setenv("JANUS_KCP_MTU_BYTES", "1100", 1);
  load_good("kcp = { profile = \"low_latency\"; send_window = 128; };");
  unsetenv("JANUS_KCP_MTU_BYTES");
  assert_int_equal(config.kcp.data_shards, 8);
  assert_int_equal(config.kcp.parity_shards, 2);
  assert_int_equal(config.kcp.interval_ms, 5);
  assert_int_equal(config.kcp.send_window, 128);  // given, though it is the default
  assert_int_equal(config.kcp.receive_window, 256);
  assert_int_equal(config.kcp.mtu_bytes, 1100);
  assert_int_equal(config.kcp.frame_bytes, 2048);
  assert_int_equal(config.kcp.receive_buffer_bytes, 8388608);
  assert_int_equal(config.kcp.keepalive_interval_ms, 5000);
  assert_int_equal(config.kcp.keepalive_timeout_ms, 15000);
  assert_int_equal(config.kcp.stream_buffer_bytes, 65536);

  char *text = config_text(&config);
  memset(&other, 0xa5, sizeof other);
  assert_int_equal(config_load_text(text, &other, on_fault, &config), 0);
  free(text);
  assert_memory_equal(&config, &other, sizeof config);

  setenv("JANUS_KCP_PROFILE", "low_latency", 1);
  load_good("");
  unsetenv("JANUS_KCP_PROFILE");
  assert_int_equal(config.kcp.send_window, 256);

  struct config_kcp kcp;
  assert_int_equal(config_kcp_of_profile(KCP_PROFILE_LOW_LATENCY, &kcp), 0);
  assert_memory_equal(&kcp, &config.kcp, sizeof kcp);
  load_good("");
  assert_int_equal(config_kcp_of_profile(KCP_PROFILE_DEFAULT, &kcp), 0);
  assert_memory_equal(&kcp, &config.kcp, sizeof kcp);
}

static void what_kcp_can_not_do_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *text, *fault;
  } faulty[] = {
      {"data_shards = 0;", ":1: kcp.data_shards: must not be 0 alone: without FEC both are"},
      {"parity_shards = 0;", ":1: kcp.parity_shards: must not be 0 alone: without FEC both are"},
      {"data_shards = 200; parity_shards = 57;",
       ":1: kcp.parity_shards: and kcp.data_shards must not be over 256 together"},
      {"mtu_bytes = 1493;",
       ":1: kcp.mtu_bytes: must not be over 1492: clients in Go take no datagram over 1500 bytes, "
       "of which FEC has 8"},
      {"mtu_bytes = 49;", ":1: kcp.mtu_bytes: must be a whole number from 50 to 65535, not 49"},
      {"interval = \"4ms\";",
       ":1: kcp.interval: must be a duration from \"5ms\" to \"5s\", a number with ms, s, m or h, "
       "not \"4ms\""},
      {"receive_window = 4097;",
       ":1: kcp.receive_window: must be a whole number from 1 to 4096, not 4097"},
      {"keepalive_timeout = \"10s\";",
       ":1: kcp.keepalive_timeout: must be greater than kcp.keepalive_interval"},
      {"receive_buffer_bytes = 65536;\nstream_buffer_bytes = 65537;",
       ":2: kcp.stream_buffer_bytes: must not be greater than kcp.receive_buffer_bytes"},
      {"dscp = 64;", ":1: kcp.dscp: must be a whole number from 0 to 63, not 64"},
      {"profile = \"moba\";", ":1: kcp.profile: must be one of default|low_latency, not \"moba\""},
  };
  for (size_t i = 0; i < sizeof faulty / sizeof *faulty; i++) {
    char text[256];
    snprintf(text, sizeof text, "kcp = { %s };", faulty[i].text);
    expect_fault(text, faulty[i].fault);
  }
  load_good("kcp = { data_shards = 0; parity_shards = 0; mtu_bytes = 1492; };");
  load_good("kcp = { keepalive_timeout = \"0s\"; };");
}

static void note_change(const char *name, enum config_change change, void *context) {
  char *changes = context;
  size_t len = strlen(changes);
  snprintf(changes + len, 512 - len, "%s:%s ", name, config_change_name(change));
}

// Takes text over into what runs; returns what is said of it.
static const char *take(const char *text) {
  static char changes[512];
  changes[0] = '\0';
  load_good(text);
  config_take(&running, &other, &config, note_change, changes);
  return changes;
}

static void begin(const char *text) {
  load_good(text);
  other = config;
  running = config;
}

static void what_can_change_in_place_is_taken_and_the_rest_named(void **state) {
  (void)state;
  begin("limits = { idle_timeout = \"60s\"; };");
  assert_string_equal(take("limits = { idle_timeout = \"60s\"; };"), "");
  assert_string_equal(take("limits = { idle_timeout = \"9s\"; }; seal = { aes_ni = false; };\n"
                           "etcd = { timeout = \"1s\"; };"),
                      "etcd.timeout:restart limits.idle_timeout:in_place "
                      "seal.aes_ni:new_generation ");
  assert_int_equal(running.limits.idle_timeout_ms, 9000);
  assert_false(running.seal.aes_ni);
  assert_int_equal(running.etcd.timeout_ms, 3000);
  // What waits is named each time, until it is as it was.
  assert_string_equal(take("limits = { idle_timeout = \"9s\"; }; seal = { aes_ni = false; };\n"
                           "etcd = { timeout = \"1s\"; };"),
                      "etcd.timeout:restart ");
  assert_string_equal(take("limits = { idle_timeout = \"9s\"; }; seal = { aes_ni = false; };"), "");
}

static void a_change_of_kcp_is_for_new_workers_but_for_its_bounds(void **state) {
  (void)state;
  begin("");
  assert_string_equal(take("kcp = { streams = 4; dscp = 0; mtu_bytes = 1300; roaming = true; };"),
                      "kcp.mtu_bytes:new_generation kcp.dscp:in_place kcp.streams:in_place "
                      "kcp.roaming:in_place ");
  assert_int_equal(running.kcp.mtu_bytes, 1300);
  assert_string_equal(
      take("kcp = { profile = \"low_latency\"; data_shards = 10; parity_shards = 3; "
           "interval = \"10ms\"; send_window = 128; receive_window = 128; "
           "mtu_bytes = 1400; socket_buffer_bytes = 4194304; frame_bytes = 4096; "
           "receive_buffer_bytes = 4194304; keepalive_interval = \"10s\"; };"),
      "kcp.profile:new_generation kcp.mtu_bytes:new_generation kcp.dscp:in_place "
      "kcp.streams:in_place kcp.keepalive_timeout:new_generation "
      "kcp.roaming:in_place ");
}

static void another_engine_is_for_new_workers(void **state) {
  (void)state;
  begin("");
  assert_string_equal(take("tunnel = { engine = \"grpc\"; };"), "tunnel.engine:new_generation ");
  assert_int_equal((int)running.tunnel.engine, STREAM_GRPC);
}

static void what_was_derived_stays_where_nothing_was_said_of_it(void **state) {
  (void)state;
  begin("");
  running.worker.count = 2;  // of 0, the cores
  assert_string_equal(take("log = { level = \"debug\"; };"), "log.level:in_place ");
  assert_int_equal(running.worker.count, 2);
  assert_string_equal(take("log = { level = \"debug\"; }; worker = { count = 3; };"),
                      "worker.count:in_place ");
  assert_int_equal(running.worker.count, 3);
}

static void the_lists_of_a_listener_that_moves_wait_with_it(void **state) {
  (void)state;
  begin("server = { tcp = { addr = \"h:1\"; allow = \"192.0.2.0/24\"; }; };");
  assert_string_equal(take("server = { tcp = { addr = \"h:2\"; }; };"),
                      "server.tcp.addr:restart server.tcp.allow:restart ");
  assert_int_equal(running.server.listeners[LISTENER_TCP].allow.count, 1);
  assert_string_equal(take("server = { tcp = { addr = \"h:1\"; backlog = 5; }; };"),
                      "server.tcp.allow:in_place server.tcp.backlog:in_place ");
}

static void nodes_without_a_color_stay_with_the_label_that_counts(void **state) {
  (void)state;
  begin(
      "label = { color = \"blue\"; }; nodes = ( { service = \"s\"; addr = \"h:1\"; },\n"
      "{ service = \"s\"; addr = \"h:3\"; color = \"green\"; } );");
  assert_string_equal(take("label = { color = \"green\"; };\n"
                           "nodes = ( { service = \"s\"; addr = \"h:1\"; },\n"
                           "{ service = \"s\"; addr = \"h:2\"; color = \"red\"; },\n"
                           "{ service = \"s\"; addr = \"h:3\"; color = \"green\"; } );"),
                      "label.color:restart nodes:in_place ");
  assert_string_equal(running.registry.nodes[0].color, "blue");
  assert_string_equal(running.registry.nodes[1].color, "red");
  assert_string_equal(running.registry.nodes[2].color, "green");
}

static void nodes_are_taken_as_a_whole(void **state) {
  (void)state;
  begin("nodes = ( { service = \"s\"; addr = \"h:1\"; } );");
  assert_string_equal(take("nodes = ( { service = \"s\"; addr = \"h:1\"; weight = 5; },\n"
                           "{ service = \"s\"; addr = \"h:2\"; } );"),
                      "nodes:in_place ");
  assert_int_equal(running.registry.node_count, 2);
  assert_int_equal(running.registry.nodes[0].weight, 5);
  assert_string_equal(take(""), "nodes:in_place ");
  assert_int_equal(running.registry.node_count, 0);
}

#define PLAYER_TUNNEL \
  "{ name = \"player\"; service = \"p\"; method = \"/p.S/T\"; default = true; main = true; }"
#define ROOM_TUNNEL(modules) \
  "{ name = \"room\"; service = \"r\"; method = \"/r.S/T\"; modules = " modules "; }"
#define TEAM_TUNNEL   "{ name = \"team\"; service = \"t\"; method = \"/t.S/T\"; modules = [9]; }"
#define TUNNELS(list) "tunnel = { types = ( " list " ); };"

static void tunnel_types_keep_their_places(void **state) {
  (void)state;
  begin(TUNNELS(PLAYER_TUNNEL ", " ROOM_TUNNEL("[6]")));
  // In another order, with other modules, and a new one.
  assert_string_equal(take(TUNNELS(TEAM_TUNNEL ", " ROOM_TUNNEL("[6, 7]") ", " PLAYER_TUNNEL)),
                      "tunnel.types.team:in_place tunnel.types.room:in_place ");
  assert_int_equal(running.tunnel.type_count, 3);
  assert_string_equal(running.tunnel.types[0].name, "player");
  assert_string_equal(running.tunnel.types[1].name, "room");
  assert_int_equal(running.tunnel.types[1].module_count, 2);
  assert_string_equal(running.tunnel.types[2].name, "team");
  // One that is gone serves no module; when it comes back it is the same again.
  assert_string_equal(take(TUNNELS(PLAYER_TUNNEL ", " TEAM_TUNNEL)), "tunnel.types.room:in_place ");
  assert_int_equal(running.tunnel.type_count, 3);
  assert_int_equal(running.tunnel.types[1].module_count, 0);
  assert_string_equal(take(TUNNELS(PLAYER_TUNNEL ", " TEAM_TUNNEL)), "");
  assert_string_equal(take(TUNNELS(PLAYER_TUNNEL ", " TEAM_TUNNEL ", " ROOM_TUNNEL("[6]"))),
                      "tunnel.types.room:in_place ");
  assert_int_equal(running.tunnel.types[1].module_count, 1);
}

static void a_module_does_not_go_over_to_a_new_type_while_its_own_waits(void **state) {
  (void)state;
  begin(TUNNELS(PLAYER_TUNNEL ", " ROOM_TUNNEL("[6]")));
  assert_string_equal(
      take(TUNNELS(PLAYER_TUNNEL ", { name = \"room\"; service = \"other\"; method = \"/r.S/T\"; "
                                 "modules = [7]; }, "
                                 "{ name = \"team\"; service = \"t\"; method = \"/t.S/T\"; "
                                 "modules = [6]; }")),
      "tunnel.types.room:restart tunnel.types.team:restart ");
  assert_int_equal(running.tunnel.type_count, 2);
}

static void a_tunnel_type_that_is_another_now_waits(void **state) {
  (void)state;
  begin(TUNNELS(PLAYER_TUNNEL ", " ROOM_TUNNEL("[6]")));
  assert_string_equal(
      take(TUNNELS(PLAYER_TUNNEL ", { name = \"room\"; service = \"other\"; method = \"/r.S/T\"; "
                                 "modules = [6]; }")),
      "tunnel.types.room:restart ");
  assert_string_equal(running.tunnel.types[1].service, "r");
  assert_string_equal(
      take(TUNNELS("{ name = \"hero\"; service = \"p\"; method = \"/p.S/T\"; main = true; }")),
      "tunnel.types.player:restart tunnel.types.room:restart tunnel.types.hero:restart ");
  assert_true(running.tunnel.types[0].main);
  assert_int_equal(running.tunnel.types[1].module_count, 1);
}

static void a_new_service_has_to_be_watched_in_etcd_from_the_start(void **state) {
  (void)state;
  begin("registry = \"etcd\"; " TUNNELS(PLAYER_TUNNEL));
  assert_string_equal(take("registry = \"etcd\"; " TUNNELS(PLAYER_TUNNEL ", " TEAM_TUNNEL)),
                      "tunnel.types.team:restart ");
  assert_int_equal(running.tunnel.type_count, 1);
}

static void there_is_room_for_so_many_tunnel_types(void **state) {
  (void)state;
  char text[4096] = "tunnel = { types = ( " PLAYER_TUNNEL;
  begin(TUNNELS(PLAYER_TUNNEL));
  for (int i = 1; i < CONFIG_TUNNEL_TYPES; i++) {
    snprintf(text + strlen(text), sizeof text - strlen(text),
             ", { name = \"t%d\"; service = \"s\"; method = \"/t.S/T\"; modules = [%d]; }", i,
             10 + i);
  }
  strcat(text, " ); };");
  take(text);
  assert_int_equal(running.tunnel.type_count, CONFIG_TUNNEL_TYPES);
  // One more, in place of all others or not: those keep their places.
  assert_non_null(
      strstr(take(TUNNELS(PLAYER_TUNNEL ", " TEAM_TUNNEL)), "tunnel.types.team:restart "));
  assert_int_equal(running.tunnel.type_count, CONFIG_TUNNEL_TYPES);
  assert_int_equal(running.tunnel.types[1].module_count, 1);
}

#define TCP_LISTENER(addr, more) "{ transport = \"tcp\"; addr = \"" addr "\"; " more " }"
#define LISTENER_LIST(list)      "server = { listeners = ( " list " ); };"

static void listeners_are_known_by_their_address(void **state) {
  (void)state;
  begin(LISTENER_LIST(TCP_LISTENER("h:1", "") ", " TCP_LISTENER("h:2", "backlog = 7;")));
  // In another order, one of them changed.
  assert_string_equal(take(LISTENER_LIST(TCP_LISTENER("h:2", "backlog = 7;") ", " TCP_LISTENER(
                          "h:1", "backlog = 5;"))),
                      "server.listeners[0].backlog:in_place ");
  assert_int_equal(running.server.listeners[LISTENER_MORE].backlog, 5);
  assert_int_equal(running.server.listeners[LISTENER_MORE + 1].backlog, 7);
  assert_string_equal(take(LISTENER_LIST(TCP_LISTENER("h:1", "backlog = 5;"))),
                      "server.listeners:restart ");
  assert_string_equal(
      take(LISTENER_LIST(TCP_LISTENER("h:1", "backlog = 5;") ", " TCP_LISTENER("h:3", ""))),
      "server.listeners:restart ");
  assert_int_equal(running.server.listener_count, LISTENER_MORE + 2);
  assert_string_equal(take(LISTENER_LIST(TCP_LISTENER("h:2", "backlog = 7;") ", " TCP_LISTENER(
                          "h:1", "allow = \"192.0.2.0/24\"; backlog = 5;"))),
                      "server.listeners[0].allow:in_place ");
  assert_int_equal(running.server.listeners[LISTENER_MORE].allow.count, 1);
}

static void etcd_and_redis_are_read_and_travel(void **state) {
  (void)state;
  load_good(
      "registry = \"etcd\"; routes = \"redis\";\n"
      "etcd = { endpoints = [\"https://a:1\", \"b:2\"]; username = \"u\"; lease_ttl = \"9s\"; };\n"
      "data = { redis = { addr = [\"r:1\", \"[::1]:2\"]; cluster = true; read_timeout = \"1s\"; }; "
      "};");
  assert_int_equal(config.registry.source, REGISTRY_ETCD);
  assert_int_equal(config.routes.store, ROUTES_REDIS);
  assert_string_equal(config.etcd.endpoints, "https://a:1,b:2");
  assert_string_equal(config.etcd.username, "u");
  assert_int_equal(config.etcd.lease_ttl_ms, 9000);
  assert_string_equal(config.data.redis.addr, "r:1,[::1]:2");
  assert_true(config.data.redis.cluster);
  assert_int_equal(config.data.redis.read_timeout_ms, 1000);
  assert_string_equal(secrets.redis_password, "");
  FILE *file = fopen(main_file, "w+");
  assert_int_equal(config_save(&config, file), 0);
  assert_int_equal(config_load_fd(fileno(file), &other, on_fault, &config), 0);
  fclose(file);
  assert_memory_equal(&config, &other, sizeof config);
}

static int load_with_token(const char *token) {
  char certificate_and_token[4096];
  snprintf(certificate_and_token, sizeof certificate_and_token, "%s\"; push_token = \"%s",
           CLIENT_CERT_UNTIL_2119, token);
  char text[8192];
  snprintf(text, sizeof text, SECRET(ACCOUNT_KEY, SERVER_KEY, "%s"), certificate_and_token);
  write_file(secret_file, text, 0640);
  return load("@include \"secret.conf\"\n");
}

static void a_push_token_is_one_that_a_header_can_have(void **state) {
  (void)state;
  assert_int_equal(load_with_token("open sesame"), 0);
  assert_string_equal(secrets.push_token, "open sesame");
  for (size_t i = 0; i < 4; i++) {
    static const char *const tokens[] = {" sesame", "sesame ", "ses\\name", "s\xc3\xa9same"};
    assert_int_equal(load_with_token(tokens[i]), ERROR_INVALID);
    assert_non_null(strstr(faults, "secret.push_token: must be printable ASCII"));
  }
}

static void passwords_are_secrets(void **state) {
  (void)state;
  write_file(
      secret_file,
      SECRET(ACCOUNT_KEY, SERVER_KEY,
             CLIENT_CERT_UNTIL_2119
             "\"; redis_password = \"r\"; redis_sentinel_password = \"s\"; etcd_password = \"e"),
      0640);
  assert_int_equal(load("@include \"secret.conf\"\n"), 0);
  assert_string_equal(secrets.redis_password, "r");
  assert_string_equal(secrets.redis_sentinel_password, "s");
  assert_string_equal(secrets.etcd_password, "e");
  expect_fault("data = { redis = { password = \"x\"; }; };",
               ":1: data.redis.password: is a secret: put it into secret.conf, as "
               "secret.redis_password");
  expect_fault("etcd = { password = \"x\"; };",
               ":1: etcd.password: is a secret: put it into secret.conf, as secret.etcd_password");
  setenv("JANUS_SECRET_REDIS_PASSWORD", "x", 1);
  write_file(secret_file, GOOD_SECRET, 0640);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  unsetenv("JANUS_SECRET_REDIS_PASSWORD");
}

static void a_tls_key_is_a_secret_and_its_file_closed_to_others(void **state) {
  (void)state;
  char key_file[128];
  snprintf(key_file, sizeof key_file, "%s/redis.key", folder);
  write_file(key_file, "KEY", 0600);
  load_good(
      "data = { redis = { tls = { key = \"redis.key\"; cert = \"redis.key\"; }; }; };\n"
      "tunnel = { tls = { key = \"redis.key\"; cert = \"redis.key\"; server_name = \"roma\"; }; "
      "};");
  assert_string_equal(secrets.redis_tls_key, "KEY");
  assert_string_equal(secrets.tunnel_tls_key, "KEY");
  assert_string_equal(config.tunnel.tls.server_name, "roma");
  assert_string_equal(config.data.redis.tls.key, key_file);
  assert_int_equal(chmod(key_file, 0644), 0);
  assert_int_equal(
      load("data = { redis = { tls = { key = \"redis.key\"; cert = \"redis.key\"; }; }; };"
           "\n@include \"secret.conf\"\n"),
      ERROR_INVALID);
  assert_non_null(strstr(faults, "chmod o-rwx"));
  expect_fault("tunnel = { tls = { cert = \"redis.key\"; }; };",
               ":1: tunnel.tls.cert: and tunnel.tls.key go together");
  expect_fault("tunnel = { tls = { enabled = true; }; };", ":1: tunnel.tls.enabled: unknown key");
  unlink(key_file);
  expect_fault("etcd = { tls = { ca = \"/nowhere\"; }; };",
               ":1: etcd.tls.ca: /nowhere can't be read: No such file or directory");
}

static void bad_addresses_and_modes_are_faults(void **state) {
  (void)state;
  expect_fault(
      "data = { redis = { addr = [\"a:1\", \"b\"]; cluster = true; }; };",
      ":1: data.redis.addr: must be host:port, several separated by commas, not \"a:1,b\"");
  expect_fault("data = { redis = { addr = 5; }; };",
               ":1: data.redis.addr: must be host:port in quotes, or an array of such, "
               "[\"...\", \"...\"], not a number");
  expect_fault("data = { redis = { addr = \"a:1,b:1\"; }; };",
               ":1: data.redis.addr: must be one, unless data.redis.cluster or "
               "data.redis.sentinel_master is set");
  expect_fault("data = { redis = { cluster = true; sentinel_master = \"x\"; }; };",
               ":1: data.redis.cluster: can't go with data.redis.sentinel_master");
}

static void assert_allowed(const char *const *texts) {
  size_t count = 0;
  for (; texts[count] != NULL; count++) {
    char text[NETWORK_TEXT_BYTES];
    assert_true(count < config.push.allow.count);
    assert_string_equal(network_format(&config.push.allow.networks[count], text), texts[count]);
  }
  assert_int_equal(config.push.allow.count, count);
}

static void networks_are_read_and_travel(void **state) {
  (void)state;
  load_good("");
  assert_allowed((const char *const[]){"127.0.0.0/8", "::1", "10.0.0.0/8", "172.16.0.0/12",
                                       "192.168.0.0/16", "fc00::/7", NULL});
  load_good("push = { allow = []; };");
  assert_allowed((const char *const[]){NULL});
  load_good("push = { allow = \"\"; };");
  assert_allowed((const char *const[]){NULL});
  load_good("push = { allow = \"10.1.2.3/8, ::1\"; };");
  assert_allowed((const char *const[]){"10.0.0.0/8", "::1", NULL});
  load_good("push = { allow = ( \"192.0.2.7\", \"::ffff:10.0.0.0/104\" ); };");
  assert_allowed((const char *const[]){"192.0.2.7", "10.0.0.0/8", NULL});
  setenv("JANUS_PUSH_ALLOW", "2001:db8::/32,192.0.2.1", 1);
  load_good("push = { allow = [\"10.0.0.0/8\"]; };");
  unsetenv("JANUS_PUSH_ALLOW");
  assert_allowed((const char *const[]){"2001:db8::/32", "192.0.2.1", NULL});

  // As many as there may be, of the longest text.
  char text[4096] = "push = { allow = [";
  for (int i = 0; i < NETWORKS_MAX; i++) {
    char one[NETWORK_TEXT_BYTES + 8];
    snprintf(one, sizeof one, "%s\"2001:1db8:1111:1111:1111:1111:1111:%d/127\"", i > 0 ? ", " : "",
             1000 + 2 * i);
    strcat(text, one);
  }
  strcat(text, "]; };");
  load_good(text);
  assert_int_equal(config.push.allow.count, NETWORKS_MAX);
  FILE *file = tmpfile();
  assert_int_equal(config_save(&config, file), 0);
  assert_int_equal(config_load_fd(fileno(file), &other, on_fault, &config), 0);
  fclose(file);
  assert_memory_equal(&config, &other, sizeof config);
}

static void each_bad_network_is_a_fault_of_its_own(void **state) {
  (void)state;
#define NETWORK_FAULT(where, value)                                                           \
  where                                                                                       \
      "push.allow: must be addresses and networks, such as \"192.0.2.7\" or \"10.0.0.0/8\", " \
      "not \"" value "\""
  write_file(secret_file, GOOD_SECRET, 0640);
  assert_int_equal(load("push = { allow = [\"10.0.0.0/33\",\n\"::1\",\n\"here\", \"\"]; };\n"
                        "@include \"secret.conf\"\n"),
                   ERROR_INVALID);
  assert_fault(NETWORK_FAULT("janus.conf:1: ", "10.0.0.0/33"));
  assert_fault(NETWORK_FAULT("janus.conf:3: ", "here"));
  assert_fault(NETWORK_FAULT("janus.conf:3: ", ""));
  assert_int_equal(fault_count, 3);
  expect_fault("push = {\nallow = \"10.0.0.0/8, 10\"; };", NETWORK_FAULT(":2: ", "10"));
  expect_fault("push = { allow = 10; };",
               ":1: push.allow: must be an array of addresses and networks, such as "
               "[\"192.0.2.7\", \"10.0.0.0/8\"], not a number");
  expect_fault("push = { allow = [10]; };",
               ":1: push.allow: must be strings in quotes, not a number");
  expect_fault("push = { allow = { a = \"::1\"; }; };",
               ":1: push.allow: must be an array of addresses and networks, such as "
               "[\"192.0.2.7\", \"10.0.0.0/8\"], not a group { ... }");
  setenv("JANUS_PUSH_ALLOW", "10.0.0.0/8,x", 1);
  assert_int_equal(load("@include \"secret.conf\"\n"), ERROR_INVALID);
  unsetenv("JANUS_PUSH_ALLOW");
  assert_string_equal(faults,
                      "environment: JANUS_PUSH_ALLOW (push.allow): must be addresses and networks, "
                      "such as \"192.0.2.7\" or \"10.0.0.0/8\", not \"x\"\n");
  char text[1024] = "push = { allow = \"";
  for (int i = 0; i < NETWORKS_MAX + 2; i++) {
    strcat(text, "10.0.0.0/8,");
  }
  strcat(text, "\"; };");
  expect_fault(text, ":1: push.allow: has more than 32 networks");
}

static void the_addresses_of_a_large_cluster_travel(void **state) {
  (void)state;
  char text[2048] = "data = { redis = { cluster = true; addr = \"";
  for (int i = 0; i < 40; i++) {
    char one[32];
    snprintf(one, sizeof one, "%sredis-%02d.example:6379", i > 0 ? "," : "", i);
    strcat(text, one);
  }
  strcat(text, "\"; }; };");
  load_good(text);
  FILE *file = tmpfile();
  assert_int_equal(config_save(&config, file), 0);
  assert_int_equal(config_load_fd(fileno(file), &other, on_fault, &config), 0);
  fclose(file);
  assert_memory_equal(&config, &other, sizeof config);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(networks_are_read_and_travel),
      cmocka_unit_test(each_bad_network_is_a_fault_of_its_own),
      cmocka_unit_test(the_addresses_of_a_large_cluster_travel),
      cmocka_unit_test(etcd_and_redis_are_read_and_travel),
      cmocka_unit_test(a_push_token_is_one_that_a_header_can_have),
      cmocka_unit_test(passwords_are_secrets),
      cmocka_unit_test(a_tls_key_is_a_secret_and_its_file_closed_to_others),
      cmocka_unit_test(bad_addresses_and_modes_are_faults),
      cmocka_unit_test(an_empty_file_gives_the_defaults),
      cmocka_unit_test(the_shipped_file_is_the_defaults_and_two_nodes),
      cmocka_unit_test(the_shipped_secrets_say_how_to_make_real_ones),
      cmocka_unit_test(values_are_read_from_the_file),
      cmocka_unit_test(every_fault_is_reported_in_one_run),
      cmocka_unit_test(a_syntax_error_names_file_and_line),
      cmocka_unit_test(a_missing_file_or_include_is_named),
      cmocka_unit_test(bad_values_are_refused),
      cmocka_unit_test(settings_that_do_not_fit_together_are_refused),
      cmocka_unit_test(a_further_tunnel_type_needs_four_lines),
      cmocka_unit_test(tunnel_types_that_contradict_are_refused),
      cmocka_unit_test(the_environment_overrides_the_file),
      cmocka_unit_test(a_bad_value_in_the_environment_names_the_variable),
      cmocka_unit_test(a_secret_in_the_environment_is_refused),
      cmocka_unit_test(secrets_are_read),
      cmocka_unit_test(a_secret_file_that_others_can_read_is_refused),
      cmocka_unit_test(bad_secrets_are_refused_without_being_shown),
      cmocka_unit_test(without_encryption_the_client_certificate_may_be_missing),
      cmocka_unit_test(without_previous_keys_there_are_none),
      cmocka_unit_test(a_previous_account_key_may_stand_alone),
      cmocka_unit_test(previous_certificates_are_as_the_current_ones_where_they_are_left_out),
      cmocka_unit_test(a_previous_certificate_that_has_run_out_is_no_fault_and_of_no_use),
      cmocka_unit_test(faults_of_previous_keys_are_reported_at_their_place_without_being_shown),
      cmocka_unit_test(previous_keys_in_a_file_that_others_can_read_are_refused),
      cmocka_unit_test(a_time_has_a_date_a_clock_and_an_offset),
      cmocka_unit_test(what_is_saved_loads_to_an_equal_struct),
      cmocka_unit_test(listeners_are_read_and_travel),
      cmocka_unit_test(listeners_that_do_not_fit_together_are_refused),
      cmocka_unit_test(listeners_may_share_a_port),
      cmocka_unit_test(the_profile_of_kcp_gives_what_is_not_given),
      cmocka_unit_test(what_kcp_can_not_do_is_refused),
      cmocka_unit_test(a_change_of_kcp_is_for_new_workers_but_for_its_bounds),
      cmocka_unit_test(another_engine_is_for_new_workers),
      cmocka_unit_test(what_can_change_in_place_is_taken_and_the_rest_named),
      cmocka_unit_test(what_was_derived_stays_where_nothing_was_said_of_it),
      cmocka_unit_test(nodes_are_taken_as_a_whole),
      cmocka_unit_test(a_module_does_not_go_over_to_a_new_type_while_its_own_waits),
      cmocka_unit_test(the_lists_of_a_listener_that_moves_wait_with_it),
      cmocka_unit_test(nodes_without_a_color_stay_with_the_label_that_counts),
      cmocka_unit_test(tunnel_types_keep_their_places),
      cmocka_unit_test(a_tunnel_type_that_is_another_now_waits),
      cmocka_unit_test(a_new_service_has_to_be_watched_in_etcd_from_the_start),
      cmocka_unit_test(there_is_room_for_so_many_tunnel_types),
      cmocka_unit_test(listeners_are_known_by_their_address),
      cmocka_unit_test(saved_settings_that_are_damaged_are_refused),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
