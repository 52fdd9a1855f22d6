// janus-bench: load for a gateway, and what it is compared with.
#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/packet.h"
#include "common/seal.h"
#include "tools/bench/bench.h"
#include "tools/client/script.h"

static const struct load_kind {
  const char *name;
  int (*run)(struct bench *bench);
  bool keys;      // logs in
  bool duration;  // has one by default; else standard input's end ends it
  const char *help;
} kinds[] = {
    {"roundtrip", bench_roundtrip, true, true,
     "each client sends its next message when the last came back"},
    {"rate", bench_rate, true, true,
     "a fixed rate, latency measured from when each message was due"},
    {"login", bench_login, true, true, "connect, handshake, close, again and again"},
    {"handshake", bench_handshake, false, true, "the same with the handshake of TLS alone"},
    {"idle", bench_idle, true, false,
     "players with an open tunnel who say nothing, or send a heartbeat now and then\n"
     "               (--heartbeat), until --duration, a signal or stdin's end"},
    {"slow", bench_slow, true, false, "players who ask for much and never read"},
    {"push", bench_push, true, true, "pushes to one player each, through --entrance"},
    {"broadcast", bench_broadcast, true, true,
     "pushes to all, the next when the last player has it"},
    {"direct", bench_direct, false, true, "roundtrip straight to a backend over gRPC"},
    {"routes", bench_routes, false, true, "look-ups in a shared route table; needs no gateway"},
    {"fan-server", bench_fan_server, false, false,
     "plain TCP, from one to all others, for comparisons"},
    {"echo-server", bench_echo_server, false, false, "a plain TCP echo for comparisons"},
};

static const char usage[] =
    "usage: janus-bench KIND [options]\n"
    "\n"
    "Kinds of load:\n";

static const char options_help[] =
    "\n"
    "Options:\n"
    "  --connect HOST:PORT    the gateway, or tcp://HOST:PORT, tls://HOST:PORT,\n"
    "                         ws://HOST:PORT/PATH, wss://HOST:PORT/PATH, kcp://HOST:PORT;\n"
    "                         for direct the backend; for echo-server where to listen\n"
    "                         (default 127.0.0.1:17001)\n"
    "  --tls-ca FILE          check the server against it (default the system's authorities)\n"
    "  --tls-insecure         do not check the server\n"
    "  --tls-cert FILE --tls-key FILE  the client's certificate, PEM\n"
    "  --resume               TLS sessions, once there is one\n"
    "  --kcp-profile NAME     default or low-latency, as the gateway's\n"
    "  --kcp-fec D+P          FEC's shards, or off (default 10+3; low-latency 8+2)\n"
    "  --kcp-streams N        clients on each connection, all with one uid (default 1)\n"
    "  --keys DIR             keys as `janus-keys init DIR` wrote them\n"
    "  --uid N                of the first client (default 1000000), each next has 1 more\n"
    "  --color TEXT --sid N   of the tokens (default none, 1)\n"
    "  --unencrypted          the gateway has encryption off\n"
    "  --plain                no handshake: length-prefixed frames to a plain echo\n"
    "  --clients N            connections or streams (default 200; login and handshake 32)\n"
    "  --login-concurrency N  handshakes under way at a time (default 64)\n"
    "  --size N               bytes of data in each message (default 128)\n"
    "  --each N               with roundtrip: each client sends N messages, and that is all\n"
    "  --every TIME           with roundtrip: so long between an answer and the next message;\n"
    "                         SIGINT and SIGTERM then end it when all is answered\n"
    "  --heartbeat TIME       with idle: each player sends one so often, all evenly spread\n"
    "  --mod M --seq N        of the messages (default user, 1)\n"
    "  --rate N               messages a second in all, for rate (default 10000)\n"
    "  --entrance KIND@H:P    of pushes: redis@, grpc@ or http@ and HOST:PORT;\n"
    "                         plain@ for a fan-server\n"
    "  --topic TEXT           the gateway's own, for push over redis@\n"
    "  --under-way N          pushes at a time (default 64)\n"
    "  --broadcasts N         a second (default: as fast as they arrive)\n"
    "  --duration TIME        of the measured period (default 10s)\n"
    "  --warmup TIME          before it (default 1s)\n"
    "  --count N              end after so many measured ones\n"
    "  --timeout TIME         for connecting and for the handshake (default 10s)\n"
    "  --source A[-N]         source addresses, e.g. 127.0.0.1-8, used in turns\n"
    "  --pids P[,P]           add these processes' CPU time to the report (cpu_us each)\n"
    "  --pid-tree P[,P]       the same with their children\n"
    "  --method M             for direct (default /player.intra.v1.TunnelService/Tunnel)\n"
    "  --streams-per-connection N  for direct (default 1000)\n"
    "  --routes N             in the table of routes (default 1000000)\n"
    "  --request TEXT         what slow sends (default \"flood 1000000 1024\")\n"
    "  --json                 the report as one JSON object\n"
    "  --help, --version\n"
    "\n"
    "Latencies are in microseconds; a percentile is at most 1.6 % above the true value.\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no client could log in.\n";

enum {
  OPTION_CONNECT = 256,
  OPTION_TLS_CA,
  OPTION_TLS_INSECURE,
  OPTION_TLS_CERT,
  OPTION_TLS_KEY,
  OPTION_RESUME,
  OPTION_KCP_PROFILE,
  OPTION_KCP_FEC,
  OPTION_KCP_STREAMS,
  OPTION_KEYS,
  OPTION_UID,
  OPTION_COLOR,
  OPTION_SID,
  OPTION_UNENCRYPTED,
  OPTION_PLAIN,
  OPTION_CLIENTS,
  OPTION_LOGIN_CONCURRENCY,
  OPTION_SIZE,
  OPTION_EACH,
  OPTION_EVERY,
  OPTION_HEARTBEAT,
  OPTION_MOD,
  OPTION_SEQ,
  OPTION_RATE,
  OPTION_ENTRANCE,
  OPTION_TOPIC,
  OPTION_UNDER_WAY,
  OPTION_BROADCASTS,
  OPTION_DURATION,
  OPTION_WARMUP,
  OPTION_COUNT,
  OPTION_TIMEOUT,
  OPTION_SOURCE,
  OPTION_PIDS,
  OPTION_PID_TREE,
  OPTION_METHOD,
  OPTION_STREAMS,
  OPTION_ROUTES,
  OPTION_REQUEST,
  OPTION_JSON,
  OPTION_HELP,
  OPTION_VERSION,
};

static const struct option long_options[] = {
    {"connect", required_argument, NULL, OPTION_CONNECT},
    {"tls-ca", required_argument, NULL, OPTION_TLS_CA},
    {"tls-insecure", no_argument, NULL, OPTION_TLS_INSECURE},
    {"tls-cert", required_argument, NULL, OPTION_TLS_CERT},
    {"tls-key", required_argument, NULL, OPTION_TLS_KEY},
    {"resume", no_argument, NULL, OPTION_RESUME},
    {"kcp-profile", required_argument, NULL, OPTION_KCP_PROFILE},
    {"kcp-fec", required_argument, NULL, OPTION_KCP_FEC},
    {"kcp-streams", required_argument, NULL, OPTION_KCP_STREAMS},
    {"keys", required_argument, NULL, OPTION_KEYS},
    {"uid", required_argument, NULL, OPTION_UID},
    {"color", required_argument, NULL, OPTION_COLOR},
    {"sid", required_argument, NULL, OPTION_SID},
    {"unencrypted", no_argument, NULL, OPTION_UNENCRYPTED},
    {"plain", no_argument, NULL, OPTION_PLAIN},
    {"clients", required_argument, NULL, OPTION_CLIENTS},
    {"login-concurrency", required_argument, NULL, OPTION_LOGIN_CONCURRENCY},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"each", required_argument, NULL, OPTION_EACH},
    {"every", required_argument, NULL, OPTION_EVERY},
    {"heartbeat", required_argument, NULL, OPTION_HEARTBEAT},
    {"mod", required_argument, NULL, OPTION_MOD},
    {"seq", required_argument, NULL, OPTION_SEQ},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"entrance", required_argument, NULL, OPTION_ENTRANCE},
    {"topic", required_argument, NULL, OPTION_TOPIC},
    {"under-way", required_argument, NULL, OPTION_UNDER_WAY},
    {"broadcasts", required_argument, NULL, OPTION_BROADCASTS},
    {"duration", required_argument, NULL, OPTION_DURATION},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"count", required_argument, NULL, OPTION_COUNT},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"source", required_argument, NULL, OPTION_SOURCE},
    {"pids", required_argument, NULL, OPTION_PIDS},
    {"pid-tree", required_argument, NULL, OPTION_PID_TREE},
    {"method", required_argument, NULL, OPTION_METHOD},
    {"streams-per-connection", required_argument, NULL, OPTION_STREAMS},
    {"routes", required_argument, NULL, OPTION_ROUTES},
    {"request", required_argument, NULL, OPTION_REQUEST},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

__attribute__((noreturn)) static void refuse(const char *what, const char *value) {
  bench_say("%s%s%s (--help tells more)", what, value ? ": " : "", value ? value : "");
  exit(BENCH_USAGE);
}

static void print_help(void) {
  fputs(usage, stdout);
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    printf("  %-12s %s\n", kinds[i].name, kinds[i].help);
  }
  fputs(options_help, stdout);
}

static int64_t number_option(const char *what, int64_t least, int64_t most) {
  int64_t number;
  if (number_parse(optarg, least, most, &number) != 0) {
    refuse(what, optarg);
  }
  return number;
}

static int64_t duration_option(const char *what) {
  int64_t ms;
  if (duration_parse(optarg, false, &ms) != 0) {
    refuse(what, optarg);
  }
  return ms;
}

// "127.0.0.1-8": eight addresses from 127.0.0.1 on, that is up to 127.0.0.8.
static void source_option(struct bench_options *options) {
  char text[64];
  struct in_addr first;
  int64_t last = 0;
  if (strlen(optarg) >= sizeof text) {
    refuse("--source is not A.B.C.D or A.B.C.D-N", optarg);
  }
  strcpy(text, optarg);
  char *dash = strchr(text, '-');
  if (dash) {
    *dash++ = '\0';
  }
  if (inet_pton(AF_INET, text, &first) != 1 || (dash && number_parse(dash, 0, 255, &last) != 0)) {
    refuse("--source is not A.B.C.D or A.B.C.D-N", optarg);
  }
  options->source_first = ntohl(first.s_addr);
  uint32_t start = options->source_first & 0xff;
  if (dash && last < start) {
    refuse("--source ends before it begins", optarg);
  }
  options->source_count = dash ? (uint32_t)last - start + 1 : 1;
}

static void pids_option(struct cpu_set *set, bool tree) {
  char *rest = NULL;
  for (char *text = strtok_r(optarg, ",", &rest); text; text = strtok_r(NULL, ",", &rest)) {
    int64_t pid;
    if (number_parse(text, 1, INT32_MAX, &pid) != 0) {
      refuse("not a process id", text);
    }
    int error = tree ? cpu_set_add_tree(set, (pid_t)pid) : cpu_set_add(set, (pid_t)pid);
    if (error != 0) {
      refuse(error == ERROR_NOT_FOUND ? "there is no process" : "too many processes", text);
    }
  }
}

static void set_option(struct bench *bench, int option) {
  struct bench_options *options = &bench->options;
  char fault[512];
  switch (option) {
    case OPTION_CONNECT: options->connect = optarg; break;
    case OPTION_TLS_CA: options->tls.ca = optarg; break;
    case OPTION_TLS_INSECURE: options->tls.insecure = true; break;
    case OPTION_TLS_CERT: options->tls.cert = optarg; break;
    case OPTION_TLS_KEY: options->tls.key = optarg; break;
    case OPTION_RESUME: options->tls.resume = true; break;
    case OPTION_KCP_PROFILE:
      if (kcp_wire_parse_profile(optarg, &options->kcp) != 0) {
        refuse("--kcp-profile is not default or low-latency", optarg);
      }
      break;
    case OPTION_KCP_FEC:
      if (kcp_wire_parse_fec(optarg, &options->kcp) != 0) {
        refuse("--kcp-fec is not like 10+3, or off", optarg);
      }
      break;
    case OPTION_KCP_STREAMS:
      options->kcp_streams = (size_t)number_option("--kcp-streams is not 1 to 64", 1, 64);
      break;
    case OPTION_KEYS:
      if (credentials_load_folder(&options->credentials, optarg, fault, sizeof fault) != 0) {
        refuse(fault, NULL);
      }
      break;
    case OPTION_UID:
      options->wish.uid = number_option("--uid is not a number", 1, INT64_MAX / 2);
      break;
    case OPTION_COLOR: options->wish.color = optarg; break;
    case OPTION_SID:
      options->wish.sid = number_option("--sid is not a number", INT64_MIN, INT64_MAX);
      break;
    case OPTION_UNENCRYPTED: options->mode = CLIENT_OPEN; break;
    case OPTION_PLAIN: options->mode = CLIENT_PLAIN; break;
    case OPTION_CLIENTS:
      options->clients = (size_t)number_option("--clients is not 1 to 100000", 1, 100000);
      break;
    case OPTION_LOGIN_CONCURRENCY:
      options->login_concurrency =
          (size_t)number_option("--login-concurrency is not 1 to 100000", 1, 100000);
      break;
    case OPTION_EACH:
      options->messages_each =
          (size_t)number_option("--each is not 1 to 1000000000", 1, 1000000000);
      break;
    case OPTION_EVERY: options->pause_ms = duration_option("--every is not like 100ms"); break;
    case OPTION_HEARTBEAT:
      options->heartbeat_ms = duration_option("--heartbeat is not like 30s");
      break;
    case OPTION_SIZE:
      options->data_bytes =
          (size_t)number_option("--size is not a number of bytes", 0, CLIENT_SEND_MAX_BYTES);
      break;
    case OPTION_MOD: {
      int64_t mod = number_option("--mod is not a number", INT32_MIN, INT32_MAX);
      options->mod = (int32_t)mod;
      break;
    }
    case OPTION_SEQ:
      options->seq = (int32_t)number_option("--seq is not a number", INT32_MIN, INT32_MAX);
      break;
    case OPTION_RATE:
      options->rate_per_s = (double)number_option("--rate is not a number", 1, 100000000);
      break;
    case OPTION_ENTRANCE: options->entrance = optarg; break;
    case OPTION_TOPIC: options->topic = optarg; break;
    case OPTION_UNDER_WAY:
      options->pushes_under_way =
          (size_t)number_option("--under-way is not 1 to 100000", 1, 100000);
      break;
    case OPTION_BROADCASTS:
      options->broadcasts_per_s = (double)number_option("--broadcasts is not 1 to 1000", 1, 1000);
      break;
    case OPTION_DURATION:
      options->duration_ms = duration_option("--duration is not like 10s");
      break;
    case OPTION_WARMUP: options->warmup_ms = duration_option("--warmup is not like 1s"); break;
    case OPTION_COUNT:
      options->count = number_option("--count is not a number", 1, INT64_MAX);
      break;
    case OPTION_TIMEOUT: options->timeout_ms = duration_option("--timeout is not like 10s"); break;
    case OPTION_SOURCE: source_option(options); break;
    case OPTION_PIDS: pids_option(&bench->cpu, false); break;
    case OPTION_PID_TREE: pids_option(&bench->cpu, true); break;
    case OPTION_METHOD: options->method = optarg; break;
    case OPTION_STREAMS:
      options->streams_per_connection =
          (size_t)number_option("--streams-per-connection is not a number", 1, 1000000);
      break;
    case OPTION_ROUTES:
      options->routes = (size_t)number_option("--routes is not 1 to 100000000", 1, 100000000);
      break;
    case OPTION_REQUEST: options->request = optarg; break;
    case OPTION_JSON: options->json = true; break;
    case 'h':
    case OPTION_HELP: print_help(); exit(BENCH_PASSED);
    case OPTION_VERSION: puts("janus-bench " JANUS_VERSION); exit(BENCH_PASSED);
    default: exit(BENCH_USAGE);
  }
}

static const struct load_kind *find_kind(const char *name) {
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    if (strcmp(kinds[i].name, name) == 0) {
      return &kinds[i];
    }
  }
  refuse("there is no such kind of load", name);
}

static const struct load_kind *parse_arguments(struct bench *bench, int argc, char **argv) {
  struct bench_options *options = &bench->options;
  options->duration_ms = -1;
  int option;
  while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
    set_option(bench, option);
  }
  if (argc - optind != 1) {
    refuse("one kind of load is needed", NULL);
  }
  const struct load_kind *kind = find_kind(argv[optind]);
  if (options->duration_ms < 0) {
    options->duration_ms = kind->duration && options->count == 0 ? 10000 : 0;
  }
  bool again_and_again = kind->run == bench_login || kind->run == bench_handshake;
  if (options->clients == 0) {
    options->clients = again_and_again ? 32 : 200;
  }
  if (again_and_again && options->login_concurrency < options->clients) {
    options->login_concurrency = options->clients;
  }
  if (kind->keys && options->mode != CLIENT_PLAIN && options->credentials.account_key_len == 0) {
    refuse("--keys DIR is needed to log in", NULL);
  }
  const char *detail;
  if (client_target_parse(options->connect, &bench->target, &detail) != 0) {
    bench_say("--connect %s: %s", options->connect, detail);
    exit(BENCH_USAGE);
  }
  return kind;
}

// As many descriptors as we may have.
static void raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

static struct event_base *new_base(void) {
  // Timers exact to the microsecond, for the schedule of `rate`.
  struct event_config *config = event_config_new();
  if (!config) {
    return NULL;
  }
  event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
  struct event_base *base = event_base_new_with_config(config);
  event_config_free(config);
  return base;
}

static void on_signal(evutil_socket_t number, short what, void *argument) {
  struct bench *bench = argument;
  void (*finish)(struct bench *) = bench->finish;
  (void)number;
  (void)what;
  bench->finish = NULL;  // a second one does not wait
  if (finish) {
    finish(bench);
  } else {
    bench_stop(bench, BENCH_PASSED);
  }
}

static void free_event(struct event *event) {
  if (event) {
    event_free(event);
  }
}

int main(int argc, char **argv) {
  static struct bench bench = {
      .options = {.connect = "127.0.0.1:17001",
                  .wish = {.uid = 1000000, .color = "", .sid = 1, .status = 1, .lifetime_s = 3600},
                  .mode = CLIENT_SEALED,
                  .login_concurrency = 64,
                  .data_bytes = 128,
                  .mod = MODULE_USER,
                  .seq = 1,
                  .rate_per_s = 10000,
                  .entrance = "grpc@127.0.0.1:19100",
                  .topic = "127.0.0.1:19100",
                  .pushes_under_way = 64,
                  .warmup_ms = 1000,
                  .timeout_ms = 10000,
                  .streams_per_connection = 1000,
                  .kcp_streams = 1,
                  .routes = 1000000,
                  .method = "/player.intra.v1.TunnelService/Tunnel",
                  .request = "flood 1000000 1024"},
  };
  signal(SIGPIPE, SIG_IGN);
  raise_descriptor_limit();
  if (seal_global_init(true) != 0) {
    bench_say("the cryptographic library cannot be started");
    return BENCH_FAILED;
  }
  const struct load_kind *kind = parse_arguments(&bench, argc, argv);
  bench.base = new_base();
  struct event *interrupt = bench.base ? evsignal_new(bench.base, SIGINT, on_signal, &bench) : NULL;
  struct event *terminate = interrupt ? evsignal_new(bench.base, SIGTERM, on_signal, &bench) : NULL;
  if (!terminate || event_add(interrupt, NULL) != 0 || event_add(terminate, NULL) != 0) {
    bench_say("out of memory");
    return BENCH_FAILED;
  }
  int exit_code = kind->run(&bench);
  free_event(interrupt);
  free_event(terminate);
  free_event(bench.phase_timer);
  free_event(bench.progress_timer);
  free_event(bench.input);
  event_base_free(bench.base);
  explicit_bzero(&bench.options.credentials, sizeof bench.options.credentials);
  return exit_code;
}
