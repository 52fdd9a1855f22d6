// janus-client: a game client for the command line, by hand or by a script.
#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/seal.h"
#include "common/token.h"
#include "proto/message.pb-c.h"
#include "tools/client/client.h"
#include "tools/client/credentials.h"
#include "tools/client/names.h"
#include "tools/client/script.h"
#include "tools/client/show.h"

enum {
  EXIT_PASSED = 0,
  EXIT_EXPECTATION = 1,
  EXIT_USAGE = 2,
  EXIT_CONNECT = 3,
};

enum {
  INBOX_MAX_PACKETS = 4096,  // received and not taken by an expect; the oldest go first
  INBOX_MAX_BYTES = 64 * 1024 * 1024,
  SENT_TIMES = 256,  // remembered, to say how long an answer took
  FLUSH_POLL_MS = 5,
  SCRIPT_MAX_BYTES = 16 * 1024 * 1024,
  DEFAULT_TIMEOUT_MS = 5000,
};

// A packet that no expect has taken.
struct received {
  struct received *next;
  struct packet packet;
  uint8_t data[];
};

struct sent {
  int64_t at_ns;
  int32_t index;
  int32_t mod;
};

struct options {
  const char *connect;
  const char *token;
  const char *script_path;
  const char *script_text;
  struct token_wish wish;
  int64_t timeout_ms;
  int64_t message_max_bytes;
  struct client_target target;
  struct client_tls tls;
  struct kcp_wire kcp;
  bool encrypted;
  bool json;
};

struct program {
  struct options options;
  struct credentials credentials;
  struct client_identity identity;
  struct event_base *base;
  struct client_group *group;
  struct client *client;  // NULL once closed
  struct event *timer;    // of the command under way
  struct event *input;    // standard input; NULL when the script is known already
  struct show show;
  bool interactive;
  bool logged_in;
  bool input_over;
  bool timer_fired;
  bool waiting;  // the first command is under way
  int exit_code;

  struct command *commands;
  struct received *inbox;
  size_t inbox_count;
  size_t inbox_bytes;
  struct sent sent[SENT_TIMES];

  char *line;  // of standard input, as far as it has come
  size_t line_len;
  unsigned line_number;
};

// --- What was received -----------------------------------------------------------

static void drop_oldest(struct program *program) {
  struct received *oldest = program->inbox;
  if (!oldest) {
    return;
  }
  program->inbox = oldest->next;
  program->inbox_count--;
  program->inbox_bytes -= oldest->packet.data_len;
  free(oldest);
}

static void keep_packet(struct program *program, const struct packet *packet) {
  struct received *received = malloc(sizeof *received + packet->data_len);
  if (!received) {
    return;
  }
  received->next = NULL;
  received->packet = *packet;
  received->packet.data = received->data;
  if (packet->data_len != 0) {
    memcpy(received->data, packet->data, packet->data_len);
  }
  struct received **tail = &program->inbox;
  while (*tail) {
    tail = &(*tail)->next;
  }
  *tail = received;
  program->inbox_count++;
  program->inbox_bytes += packet->data_len;
  while (program->inbox_count > INBOX_MAX_PACKETS || program->inbox_bytes > INBOX_MAX_BYTES) {
    drop_oldest(program);
  }
}

static bool matches(const struct command *command, const struct packet *packet) {
  if (command->kind == COMMAND_EXPECT_LOGOUT) {
    return packet->mod == MODULE_SYSTEM && packet->seq == SYSTEM_LOGOUT &&
           (!command->has_code || show_logout_code(packet) == command->code);
  }
  if ((command->has_mod && packet->mod != command->mod) ||
      (command->has_seq && packet->seq != command->seq) ||
      (command->has_obj && packet->obj != command->obj) ||
      (command->has_size && packet->data_len != command->size) ||
      (command->compress && !packet->compress)) {
    return false;
  }
  if (!command->has_data) {
    return true;
  }
  if (command->contains) {
    return memmem(packet->data, packet->data_len, command->data, command->data_len) != NULL;
  }
  return packet->data_len == command->data_len &&
         memcmp(packet->data, command->data, packet->data_len) == 0;
}

// Takes the first packet that command expects out of the inbox.
static bool take_match(struct program *program, const struct command *command) {
  for (struct received **at = &program->inbox; *at; at = &(*at)->next) {
    if (matches(command, &(*at)->packet)) {
      struct received *found = *at;
      *at = found->next;
      program->inbox_count--;
      program->inbox_bytes -= found->packet.data_len;
      free(found);
      return true;
    }
  }
  return false;
}

// --- Commands --------------------------------------------------------------------

enum result { RESULT_DONE, RESULT_WAITING, RESULT_FAILED };

static void set_timer(struct program *program, int64_t ms) {
  struct timeval after = clock_timeval(ms);
  event_add(program->timer, &after);
}

static enum result send_packet(struct program *program, const struct packet *packet,
                               bool with_compression) {
  if (!program->client) {
    show_event(&program->show, "failed", "cannot send: the connection is closed");
    return RESULT_FAILED;
  }
  int error = client_send(program->client, packet, with_compression);
  if (error != 0) {
    show_event(&program->show, "failed", "cannot send: %s", error_text(error));
    return RESULT_FAILED;
  }
  struct packet shown = *packet;
  shown.index = client_index(program->client);
  program->sent[(unsigned)shown.index % SENT_TIMES] =
      (struct sent){show_now_ns(), shown.index, shown.mod};
  show_packet(&program->show, &(struct show_packet){.event = "sent",
                                                    .packet = &shown,
                                                    .with_compression = with_compression,
                                                    .answer_ns = -1});
  return RESULT_DONE;
}

static enum result send_heartbeat(struct program *program) {
  Message__CSHeartbeat heartbeat = MESSAGE__CSHEARTBEAT__INIT;
  heartbeat.client_time = time(NULL);
  uint8_t data[16];
  struct packet packet = {.mod = MODULE_SYSTEM, .seq = SYSTEM_HEARTBEAT, .data = data};
  packet.data_len = message__csheartbeat__pack(&heartbeat, data);
  return send_packet(program, &packet, false);
}

static enum result expect(struct program *program, const struct command *command) {
  if (take_match(program, command)) {
    return RESULT_DONE;
  }
  if (!program->client) {
    show_event(&program->show, "failed", "line %u: `%s`: the connection is closed", command->line,
               command->text);
    return RESULT_FAILED;
  }
  return RESULT_WAITING;
}

// Looks at the first command, for the first time or again.
static enum result execute(struct program *program, struct command *command) {
  switch (command->kind) {
    case COMMAND_SEND: {
      struct packet packet = {.mod = command->mod,
                              .seq = command->seq,
                              .obj = command->obj,
                              .data_version = command->version,
                              .data = command->data,
                              .data_len = command->data_len};
      return send_packet(program, &packet, command->compress);
    }
    case COMMAND_HEARTBEAT: return send_heartbeat(program);
    case COMMAND_EXPECT:
    case COMMAND_EXPECT_LOGOUT: return expect(program, command);
    case COMMAND_EXPECT_CLOSED: return program->client ? RESULT_WAITING : RESULT_DONE;
    case COMMAND_WAIT: return program->timer_fired ? RESULT_DONE : RESULT_WAITING;
    case COMMAND_CLOSE:
      if (program->client && client_queued_bytes(program->client) > 0) {
        command->duration_ms = FLUSH_POLL_MS;
        return RESULT_WAITING;
      }
      if (program->client) {
        show_event(&program->show, "closed", "closed by this side");
      }
      client_free(program->client);
      program->client = NULL;
      return RESULT_DONE;
    case COMMAND_HELP:
      fputs(script_help, stdout);
      fflush(stdout);
      return RESULT_DONE;
  }
  return RESULT_FAILED;
}

static bool is_expectation(const struct command *command) {
  return command->kind == COMMAND_EXPECT || command->kind == COMMAND_EXPECT_LOGOUT ||
         command->kind == COMMAND_EXPECT_CLOSED;
}

static void start_timer_of(struct program *program, const struct command *command) {
  int64_t ms = command->duration_ms >= 0 ? command->duration_ms : program->options.timeout_ms;
  set_timer(program, ms);
}

static void pop_command(struct program *program) {
  struct command *command = program->commands;
  program->commands = command->next;
  command_free(command);
  event_del(program->timer);
  program->timer_fired = false;
  program->waiting = false;
}

static void stop(struct program *program, int exit_code) {
  program->exit_code = exit_code;
  event_base_loopbreak(program->base);
}

static void prompt(struct program *program) {
  if (program->interactive) {
    fputs("> ", stdout);
    fflush(stdout);
  }
}

// Goes through the commands as far as they can be done. Called after everything
// that may let one go on: the login, a packet, the end, a timer, a line of input.
static void advance(struct program *program) {
  bool worked = false;
  while (program->logged_in && program->commands) {
    struct command *command = program->commands;
    enum result result = execute(program, command);
    if (result == RESULT_WAITING && program->timer_fired && is_expectation(command)) {
      show_event(&program->show, "failed", "line %u: `%s`: not within the time", command->line,
                 command->text);
      result = RESULT_FAILED;
    }
    if (result == RESULT_WAITING) {
      if (!program->waiting || program->timer_fired) {
        program->waiting = true;
        program->timer_fired = false;
        start_timer_of(program, command);
      }
      return;
    }
    if (result == RESULT_DONE && is_expectation(command)) {
      show_event(&program->show, "passed", "ok: %s", command->text);
    }
    pop_command(program);
    worked = true;
    if (result == RESULT_FAILED && !program->interactive) {
      stop(program, EXIT_EXPECTATION);
      return;
    }
  }
  if (program->logged_in && program->input_over) {
    stop(program, EXIT_PASSED);
  } else if (worked) {
    prompt(program);
  }
}

static void on_timer(evutil_socket_t fd, short what, void *argument) {
  (void)fd;
  (void)what;
  struct program *program = argument;
  program->timer_fired = true;
  advance(program);
}

// --- The connection --------------------------------------------------------------

static void on_connected(void *owner) {
  struct program *program = owner;
  show_event(&program->show, "connected", "connected to %s", program->options.connect);
}

static void on_login(void *owner) {
  struct program *program = owner;
  program->logged_in = true;
  show_event(&program->show, "login", "logged in, %s",
             program->options.encrypted ? "messages are sealed" : "messages are not encrypted");
  prompt(program);
  advance(program);
}

static void on_message(void *owner, const struct client_message *message) {
  struct program *program = owner;
  const struct packet *packet = message->packet;
  struct show_packet shown = {.event = "received",
                              .packet = packet,
                              .wire_bytes = message->wire_bytes,
                              .packed_bytes = message->data_bytes,
                              .answer_ns = -1};
  const struct sent *sent = &program->sent[(unsigned)packet->index % SENT_TIMES];
  if (packet->index > 0 && sent->index == packet->index && sent->mod == packet->mod) {
    shown.answer_ns = show_now_ns() - sent->at_ns;
  }
  show_packet(&program->show, &shown);
  keep_packet(program, packet);
  advance(program);
}

static void on_closed(void *owner, enum client_end end, const char *detail) {
  struct program *program = owner;
  client_free(program->client);
  program->client = NULL;
  if (!program->logged_in) {
    show_event(&program->show, "failed", "%s: %s",
               end == CLIENT_END_CONNECT ? "cannot connect" : "login failed", detail);
    stop(program, EXIT_CONNECT);
    return;
  }
  show_event(&program->show, "closed", "the gateway ended the connection: %s", detail);
  if (program->interactive) {
    stop(program, EXIT_PASSED);
    return;
  }
  advance(program);
}

static const struct client_events events = {.on_connected = on_connected,
                                            .on_login = on_login,
                                            .on_message = on_message,
                                            .on_closed = on_closed};

// --- The script ------------------------------------------------------------------

// Adds the commands in text. False after saying what is wrong with it.
static bool add_commands(struct program *program, const char *text, size_t len, unsigned line) {
  char fault[512];
  struct command *commands;
  if (script_parse(text, len, line, &commands, fault, sizeof fault) != 0) {
    fprintf(stderr, "janus-client: %s\n", fault);
    return false;
  }
  struct command **tail = &program->commands;
  while (*tail) {
    tail = &(*tail)->next;
  }
  *tail = commands;
  return true;
}

static bool take_line(struct program *program, size_t len) {
  program->line_number++;
  if (add_commands(program, program->line, len, program->line_number)) {
    return true;
  }
  if (program->interactive) {
    prompt(program);
    return true;
  }
  stop(program, EXIT_USAGE);
  return false;
}

static void on_input(evutil_socket_t fd, short what, void *argument) {
  (void)what;
  struct program *program = argument;
  char chunk[4096];
  ssize_t got = read(fd, chunk, sizeof chunk);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (got <= 0) {
    event_del(program->input);
    program->input_over = true;
    if (program->line_len == 0 || take_line(program, program->line_len)) {
      advance(program);
    }
    return;
  }
  char *grown = realloc(program->line, program->line_len + (size_t)got);
  if (grown) {
    program->line = grown;
  }
  if (!grown || program->line_len > SCRIPT_MAX_BYTES) {
    fprintf(stderr, "janus-client: a line of input is too long\n");
    stop(program, EXIT_USAGE);
    return;
  }
  memcpy(grown + program->line_len, chunk, (size_t)got);
  program->line_len += (size_t)got;
  char *end;
  while ((end = memchr(program->line, '\n', program->line_len)) != NULL) {
    size_t len = (size_t)(end - program->line) + 1;
    if (!take_line(program, len)) {
      return;
    }
    memmove(program->line, program->line + len, program->line_len - len);
    program->line_len -= len;
  }
  if (!program->commands) {
    prompt(program);
  }
  advance(program);
}

static bool read_script(struct program *program, FILE *file, const char *name) {
  char *text = malloc(SCRIPT_MAX_BYTES);
  size_t len = text ? fread(text, 1, SCRIPT_MAX_BYTES, file) : 0;
  bool good = text && !ferror(file) && len < SCRIPT_MAX_BYTES;
  if (!good) {
    fprintf(stderr, "janus-client: %s: cannot be read, or is too long\n", name);
  }
  good = good && add_commands(program, text, len, 1);
  free(text);
  return good;
}

// The commands from -e, --script or standard input, of which only a terminal and a
// pipe are read while they come (a file could not be waited for).
static bool prepare_script(struct program *program) {
  const struct options *options = &program->options;
  struct stat status;
  program->input_over = true;
  if (options->script_text) {
    return add_commands(program, options->script_text, strlen(options->script_text), 1);
  }
  if (options->script_path && strcmp(options->script_path, "-") != 0) {
    FILE *file = fopen(options->script_path, "rb");
    if (!file) {
      fprintf(stderr, "janus-client: %s: %s\n", options->script_path, strerror(errno));
      return false;
    }
    bool good = read_script(program, file, options->script_path);
    fclose(file);
    return good;
  }
  if (fstat(STDIN_FILENO, &status) != 0) {
    return true;
  }
  bool terminal = isatty(STDIN_FILENO);
  if (!terminal && !S_ISFIFO(status.st_mode) && !S_ISSOCK(status.st_mode)) {
    return read_script(program, stdin, "standard input");
  }
  program->interactive = terminal && !options->json;
  program->input_over = false;
  program->input = event_new(program->base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, program);
  return program->input && event_add(program->input, NULL) == 0;
}

// --- Options ---------------------------------------------------------------------

static const char usage[] =
    "usage: janus-client [options] [-e 'command; command' | --script FILE]\n"
    "A game client: logs in to a gateway, sends and shows packets. Without a script the\n"
    "commands come from standard input, with a prompt when that is a terminal.\n"
    "\n"
    "  --connect HOST:PORT   the gateway (default 127.0.0.1:17001), or tcp://HOST:PORT,\n"
    "                        tls://HOST:PORT, ws://HOST:PORT/PATH, wss://HOST:PORT/PATH,\n"
    "                        kcp://HOST:PORT\n"
    "  --tls-ca FILE         check the server against it (default the system's authorities)\n"
    "  --tls-insecure        do not check the server\n"
    "  --tls-cert FILE       the client's certificate, PEM\n"
    "  --tls-key FILE        its private key, PEM\n"
    "  --kcp-profile NAME    default or low-latency, as the gateway's\n"
    "  --kcp-fec D+P         FEC's shards, or off (default 10+3; low-latency 8+2)\n"
    "  --kcp-streams N       to open, of which one plays (default 4)\n"
    "  --keys DIR            keys as `janus-keys init DIR` wrote them; makes its own token:\n"
    "    --uid N             of the player (default 10001)\n"
    "    --color TEXT        (default none)\n"
    "    --sid N             server id (default 1)\n"
    "    --status N          1 gate (default), 2 dev, 3 admin, 4 svc\n"
    "    --lifetime TIME     of the token (default 60m)\n"
    "  --token TEXT          a login token\n"
    "  --token-file FILE     the same from a file\n"
    "  --client-key FILE     the client's Ed25519 private key, PEM\n"
    "  --server-key FILE     the server's public key, PEM\n"
    "  --server-cert FILE    the same in its certificate; without either the server's signature\n"
    "                        is not checked\n"
    "  --unencrypted         the gateway has encryption off\n"
    "  -e COMMANDS           run these commands\n"
    "  --script FILE         run the commands in FILE (- for standard input)\n"
    "  --timeout TIME        to connect, to log in and for each expect (default 5s)\n"
    "  --max-message BYTES   largest message accepted (default 16384)\n"
    "  --json                one JSON object for each event and packet\n"
    "  --help, --version\n"
    "\n"
    "Commands:\n";

static const char exits[] =
    "\nExit codes: 0 all went as the script says, 1 an expectation failed or a message could\n"
    "not be sent, 2 wrong usage, 3 no connection or no login.\n";

enum {
  OPTION_CONNECT = 256,
  OPTION_TLS_CA,
  OPTION_TLS_INSECURE,
  OPTION_TLS_CERT,
  OPTION_TLS_KEY,
  OPTION_KCP_PROFILE,
  OPTION_KCP_FEC,
  OPTION_KCP_STREAMS,
  OPTION_KEYS,
  OPTION_UID,
  OPTION_COLOR,
  OPTION_SID,
  OPTION_STATUS,
  OPTION_LIFETIME,
  OPTION_TOKEN,
  OPTION_TOKEN_FILE,
  OPTION_CLIENT_KEY,
  OPTION_SERVER_KEY,
  OPTION_UNENCRYPTED,
  OPTION_SCRIPT,
  OPTION_TIMEOUT,
  OPTION_MAX_MESSAGE,
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
    {"kcp-profile", required_argument, NULL, OPTION_KCP_PROFILE},
    {"kcp-fec", required_argument, NULL, OPTION_KCP_FEC},
    {"kcp-streams", required_argument, NULL, OPTION_KCP_STREAMS},
    {"keys", required_argument, NULL, OPTION_KEYS},
    {"uid", required_argument, NULL, OPTION_UID},
    {"color", required_argument, NULL, OPTION_COLOR},
    {"sid", required_argument, NULL, OPTION_SID},
    {"status", required_argument, NULL, OPTION_STATUS},
    {"lifetime", required_argument, NULL, OPTION_LIFETIME},
    {"token", required_argument, NULL, OPTION_TOKEN},
    {"token-file", required_argument, NULL, OPTION_TOKEN_FILE},
    {"client-key", required_argument, NULL, OPTION_CLIENT_KEY},
    {"server-key", required_argument, NULL, OPTION_SERVER_KEY},
    {"server-cert", required_argument, NULL, OPTION_SERVER_KEY},
    {"unencrypted", no_argument, NULL, OPTION_UNENCRYPTED},
    {"script", required_argument, NULL, OPTION_SCRIPT},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"max-message", required_argument, NULL, OPTION_MAX_MESSAGE},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

static void refuse(const char *what) {
  fprintf(stderr, "janus-client: %s (--help tells more)\n", what);
  exit(EXIT_USAGE);
}

static int64_t number_option(const char *name, const char *text, int64_t least, int64_t most) {
  int64_t number;
  if (number_parse(text, least, most, &number) != 0) {
    fprintf(stderr, "janus-client: --%s %s: not a number from %lld to %lld\n", name, text,
            (long long)least, (long long)most);
    exit(EXIT_USAGE);
  }
  return number;
}

static int64_t duration_option(const char *name, const char *text) {
  int64_t ms;
  if (duration_parse(text, false, &ms) != 0) {
    fprintf(stderr, "janus-client: --%s %s: write it as 500ms or 5s\n", name, text);
    exit(EXIT_USAGE);
  }
  return ms;
}

static const char *read_token_file(const char *path) {
  static char text[TOKEN_TEXT_MAX_BYTES + 2];
  FILE *file = fopen(path, "rb");
  if (!file) {
    fprintf(stderr, "janus-client: %s: %s\n", path, strerror(errno));
    exit(EXIT_USAGE);
  }
  size_t len = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[len] = '\0';
  text[strcspn(text, "\r\n \t")] = '\0';
  return text;
}

static void parse_options(struct program *program, int argc, char **argv) {
  struct options *options = &program->options;
  struct credentials *credentials = &program->credentials;
  char fault[512] = "";
  int error = 0;
  int option;
  while (error == 0 && (option = getopt_long(argc, argv, "e:h", long_options, NULL)) != -1) {
    switch (option) {
      case OPTION_CONNECT: options->connect = optarg; break;
      case OPTION_TLS_CA: options->tls.ca = optarg; break;
      case OPTION_TLS_INSECURE: options->tls.insecure = true; break;
      case OPTION_TLS_CERT: options->tls.cert = optarg; break;
      case OPTION_TLS_KEY: options->tls.key = optarg; break;
      case OPTION_KCP_PROFILE:
        if (kcp_wire_parse_profile(optarg, &options->kcp) != 0) {
          refuse("--kcp-profile is not default or low-latency");
        }
        break;
      case OPTION_KCP_FEC:
        if (kcp_wire_parse_fec(optarg, &options->kcp) != 0) {
          refuse("--kcp-fec is not like 10+3, or off");
        }
        break;
      case OPTION_KCP_STREAMS:
        options->kcp.idle_streams = (unsigned)number_option("kcp-streams", optarg, 1, 64) - 1;
        break;
      case OPTION_KEYS:
        error = credentials_load_folder(credentials, optarg, fault, sizeof fault);
        break;
      case OPTION_UID:
        options->wish.uid = number_option("uid", optarg, INT64_MIN, INT64_MAX);
        break;
      case OPTION_COLOR: options->wish.color = optarg; break;
      case OPTION_SID:
        options->wish.sid = number_option("sid", optarg, INT64_MIN, INT64_MAX);
        break;
      case OPTION_STATUS:
        options->wish.status = (int32_t)number_option("status", optarg, INT32_MIN, INT32_MAX);
        break;
      case OPTION_LIFETIME:
        options->wish.lifetime_s = duration_option("lifetime", optarg) / 1000;
        break;
      case OPTION_TOKEN: options->token = optarg; break;
      case OPTION_TOKEN_FILE: options->token = read_token_file(optarg); break;
      case OPTION_CLIENT_KEY:
        error = credentials_load_client_key(credentials, optarg, fault, sizeof fault);
        break;
      case OPTION_SERVER_KEY:
        error = credentials_load_server_key(credentials, optarg, fault, sizeof fault);
        break;
      case OPTION_UNENCRYPTED: options->encrypted = false; break;
      case 'e': options->script_text = optarg; break;
      case OPTION_SCRIPT: options->script_path = optarg; break;
      case OPTION_TIMEOUT: options->timeout_ms = duration_option("timeout", optarg); break;
      case OPTION_MAX_MESSAGE:
        options->message_max_bytes = number_option("max-message", optarg, 1024, 64 * 1024 * 1024);
        break;
      case OPTION_JSON: options->json = true; break;
      case 'h':
      case OPTION_HELP: printf("%s%s%s", usage, script_help, exits); exit(EXIT_PASSED);
      case OPTION_VERSION: puts("janus-client " JANUS_VERSION); exit(EXIT_PASSED);
      default: exit(EXIT_USAGE);
    }
  }
  if (error != 0) {
    refuse(fault);
  }
  if (optind < argc) {
    refuse("there are arguments too many; a script goes behind -e or --script");
  }
  if (options->script_text && options->script_path) {
    refuse("-e and --script do not go together");
  }
  if (!options->token && credentials->account_key_len == 0) {
    refuse("who logs in? give --keys DIR, or --token with --client-key");
  }
  if (options->encrypted && !credentials->has_client_key) {
    refuse("--client-key (or --keys, or --unencrypted) is needed to sign the handshake");
  }
}

// --- From start to end -----------------------------------------------------------

static int connect_client(struct program *program) {
  struct options *options = &program->options;
  struct client_options wanted = {
      .mode = options->encrypted ? CLIENT_SEALED : CLIENT_OPEN,
      .target = &options->target,
      .identity = &program->identity,
      .server_key = program->credentials.has_server_key ? &program->credentials.server_key : NULL,
      .token = options->token,
      .server_id = options->wish.sid,
      .timeout_ms = options->timeout_ms,
  };
  const char *detail;
  if (client_target_parse(options->connect, &options->target, &detail) != 0) {
    fprintf(stderr, "janus-client: --connect %s: %s\n", options->connect, detail);
    return EXIT_USAGE;
  }
  char fault[512];
  if (options->target.tls &&
      client_group_use_tls(program->group, &options->tls, fault, sizeof fault) != 0) {
    fprintf(stderr, "janus-client: %s\n", fault);
    return EXIT_USAGE;
  }
  if (options->target.kcp && client_group_use_kcp(program->group, &options->kcp) != 0) {
    fputs("janus-client: out of memory\n", stderr);
    return EXIT_CONNECT;
  }
  program->show.start_ns = show_now_ns();
  program->client = client_connect(program->group, &wanted, &events, program);
  if (!program->client) {
    show_event(&program->show, "failed", "cannot connect to %s: %s", options->connect,
               strerror(errno));
    return EXIT_CONNECT;
  }
  return EXIT_PASSED;
}

// What was sent last may still be on its way out.
static void flush(struct program *program) {
  int64_t deadline = show_now_ns() + program->options.timeout_ms * 1000000;
  while (program->client && client_queued_bytes(program->client) > 0 && show_now_ns() < deadline) {
    event_base_loop(program->base, EVLOOP_ONCE);
  }
}

static int run(struct program *program) {
  program->base = event_base_new();
  program->group = program->base
                       ? client_group_new(program->base, (size_t)program->options.message_max_bytes)
                       : NULL;
  program->timer = program->group ? evtimer_new(program->base, on_timer, program) : NULL;
  if (!program->timer) {
    fputs("janus-client: out of memory\n", stderr);
    return EXIT_CONNECT;
  }
  if (!prepare_script(program)) {
    return EXIT_USAGE;
  }
  char *made = NULL;
  if (!program->options.token) {
    made = credentials_make_token(&program->credentials, &program->options.wish);
    if (!made) {
      fputs("janus-client: no token can be made with these keys and this color\n", stderr);
      return EXIT_USAGE;
    }
    program->options.token = made;
  }
  client_identity_init(&program->identity,
                       program->options.encrypted ? &program->credentials.client_key : NULL);
  int exit_code = connect_client(program);
  if (exit_code == EXIT_PASSED) {
    event_base_dispatch(program->base);
    exit_code = program->exit_code;
    if (exit_code == EXIT_PASSED) {
      flush(program);
    }
  }
  free(made);
  return exit_code;
}

static void clean_up(struct program *program) {
  client_free(program->client);
  client_group_free(program->group);
  while (program->commands) {
    struct command *next = program->commands->next;
    command_free(program->commands);
    program->commands = next;
  }
  while (program->inbox) {
    drop_oldest(program);
  }
  if (program->input) {
    event_free(program->input);
  }
  if (program->timer) {
    event_free(program->timer);
  }
  if (program->base) {
    event_base_free(program->base);
  }
  free(program->line);
  explicit_bzero(&program->credentials, sizeof program->credentials);
  explicit_bzero(&program->identity, sizeof program->identity);
}

int main(int argc, char **argv) {
  static struct program program = {
      .options = {.connect = "127.0.0.1:17001",
                  .wish = {.uid = 10001, .color = "", .sid = 1, .status = 1, .lifetime_s = 3600},
                  .timeout_ms = DEFAULT_TIMEOUT_MS,
                  .message_max_bytes = FRAME_BODY_MAX_BYTES,
                  .encrypted = true},
  };
  signal(SIGPIPE, SIG_IGN);
  if (seal_global_init(true) != 0) {
    fputs("janus-client: the cryptographic library cannot be started\n", stderr);
    return EXIT_CONNECT;
  }
  parse_options(&program, argc, argv);
  program.show.json = program.options.json;
  srand48(time(NULL));
  int exit_code = run(&program);
  clean_up(&program);
  return exit_code;
}
