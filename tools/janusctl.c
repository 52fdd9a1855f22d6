// janusctl: asks a running gateway how it is and acts on it, through its control socket.
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/config_value.h"
#include "tools/ctl/answers.h"
#include "tools/ctl/table.h"
#include "tools/ctl/top.h"
#include "tools/ctl/trace.h"

enum {
  EXIT_REFUSED = 1,  // the gateway answered with an error
  EXIT_USAGE = 2,
  EXIT_UNREACHABLE = 3,
};

enum {
  ANSWER_MAX_BYTES = 64 << 20,
  TIMEOUT_S = 5,
  TOP_INTERVAL_LEAST_MS = 100,
};

static const char help[] =
    "janusctl: asks a running gateway how it is, and acts on it\n"
    "\n"
    "Usage: janusctl [--socket PATH] [--json] COMMAND [OPTION]...\n"
    "\n"
    "How it is:\n"
    "  status     version, listeners, links, and how much there is of everything\n"
    "  stats      counters and gauges, in total and for each worker\n"
    "  workers    the worker processes\n"
    "  nodes      the backends known\n"
    "  top        live: throughput, times taken, queues, the hottest sessions; q ends it\n"
    "             [--interval TIME] [--count N]\n"
    "  reload     reads the configuration; TLS certificates and keys are replaced, and\n"
    "             what else has changed is named: it waits for a restart\n"
    "\n"
    "Players:\n"
    "  sessions   those logged in   [--uid N] [--color C] [--sid N] [--address NET]\n"
    "                               [--worker N] [--sort age|traffic|queue|hot] [--limit N]\n"
    "  session    one player, in detail       UID\n"
    "  kick       closes sessions   UID, or as for sessions  [--code C] [--reason TEXT]\n"
    "  ban        keeps out         UID, or --address NET  [--for TIME] [--reason TEXT]\n"
    "  unban      no longer         UID, or --address NET\n"
    "  bans       who is banned     [--limit N]\n"
    "  push       pushes by hand    UID --mod N --seq N [--obj N] [--data-version N]\n"
    "                               [--data TEXT | --hex BYTES] [--color C]\n"
    "  trace      follows one, live UID [--color C] [--connection N] [--for TIME] [--count N]\n"
    "                               [--once]\n"
    "\n"
    "Who is where:\n"
    "  routes [list]          those that the workers see    [--tier gateway|player|object]\n"
    "                                                       [--limit N]\n"
    "  routes get TIER OID    one, and what the store says  [--color C] [--service NAME]\n"
    "  routes stats           how many there are\n"
    "\n"
    "The log:\n"
    "  log          the level of each module; with LEVEL (debug, info, warn or error) sets it:\n"
    "               [LEVEL [--module NAME] [--for TIME]]\n"
    "  log reset    the level that is configured, for all\n"
    "  log reopen   opens the log's file anew, after it was renamed\n"
    "\n"
    "Options:\n"
    "  -s, --socket PATH  the gateway's control.socket (default: $JANUS_CONTROL_SOCKET,\n"
    "                     else " CONFIG_CONTROL_SOCKET
    ")\n"
    "  -j, --json         the answer as JSON, for programs\n"
    "      --uid N        the player, in place of UID behind the command\n"
    "      --address NET  an IP address, or a network such as 192.0.2.0/24\n"
    "      --code C       what the client is told: server, waiting, unauthorized,\n"
    "                     conflicting-login, admin-kick-out (the default) or banned\n"
    "      --reason TEXT  why: for the log, and for the list of bans\n"
    "      --for TIME     such as 90s, 10m or 24h (default: for ever)\n"
    "      --count N      trace: ends after so many packets; top: after so many looks\n"
    "      --once         trace: ends with the player's last session; an error if he is not here\n"
    "      --limit N      at most so many (default 100)\n"
    "      --color C      routes get, push: of this color (default: the gateway's own)\n"
    "      --service NAME of this service (default: the first of the tier)\n"
    "  -h, --help         this text\n"
    "  -V, --version      the version\n"
    "\n"
    "Examples:\n"
    "  janusctl status\n"
    "  janusctl sessions --sort traffic --limit 10\n"
    "  janusctl kick 10001 --reason 'asked by support'\n"
    "  janusctl kick --color blue --code waiting\n"
    "  janusctl session -- -5\n"
    "  janusctl ban --address 192.0.2.0/24 --for 24h --reason flooding\n"
    "  janusctl push 10001 --mod 3 --seq 7 --data hello\n"
    "  janusctl routes get player 10001 --color blue\n"
    "  janusctl --json stats | jq .total.counters.logins\n"
    "\n"
    "Exit status: 0 all is well, 1 the gateway answered with an error, 2 wrong usage,\n"
    "3 the gateway can't be reached.\n";

// --- Asking ---------------------------------------------------------------------

static int unreachable(FILE *complaints, const char *path, int code) {
  fprintf(complaints, "janusctl: no gateway answers at %s: %s\n", path,
          code == EAGAIN ? "not in time" : strerror(code));
  if (code == EACCES || code == EPERM) {
    fprintf(complaints, "Run it as root or as a member of the gateway's group.\n");
  } else {
    fprintf(complaints,
            "Is janusd running? If its control.socket is another one, name it by --socket PATH.\n");
  }
  return EXIT_UNREACHABLE;
}

// A connected socket, or -1 with errno.
static int gateway_connect(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  memcpy(address.sun_path, path, strlen(path));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const struct timeval timeout = {.tv_sec = TIMEOUT_S};
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) != 0 ||
      setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) != 0 ||
      connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
    int saved_errno = errno;
    if (fd >= 0) {
      close(fd);
    }
    errno = saved_errno;
    return -1;
  }
  return fd;
}

static bool gateway_send(int fd, const char *bytes, size_t len) {
  while (len > 0) {
    ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR) {
      return false;
    }
    if (sent > 0) {
      bytes += sent;
      len -= (size_t)sent;
    }
  }
  return true;
}

// All until the gateway closes, malloc'd; NULL with errno.
static char *gateway_receive(int fd, size_t *len) {
  size_t room = 0;
  char *answer = NULL;
  *len = 0;
  for (;;) {
    if (*len == room) {
      room = room == 0 ? 65536 : room * 2;
      char *larger = room <= ANSWER_MAX_BYTES ? realloc(answer, room) : NULL;
      if (larger == NULL) {
        errno = ENOMEM;
        break;
      }
      answer = larger;
    }
    ssize_t got = recv(fd, answer + *len, room - *len, 0);
    if (got == 0) {
      return answer;
    }
    if (got > 0) {
      *len += (size_t)got;
    } else if (errno != EINTR) {
      break;
    }
  }
  int saved_errno = errno;
  free(answer);
  errno = saved_errno;
  return NULL;
}

// The answer, ok or not; NULL when there is none, with the exit status in *status.
static json_t *gateway_ask(const char *path, const json_t *request, FILE *complaints, int *status) {
  size_t len = 0;
  char *line = NULL, *bytes = NULL;
  json_t *answer = NULL;
  json_error_t error;
  int fd = gateway_connect(path);
  if (fd < 0) {
    *status = unreachable(complaints, path, errno);
    return NULL;
  }
  line = json_dumps(request, JSON_COMPACT);
  if (line == NULL || !gateway_send(fd, line, strlen(line)) || !gateway_send(fd, "\n", 1) ||
      (bytes = gateway_receive(fd, &len)) == NULL) {
    *status = unreachable(complaints, path, errno);
    goto out;
  }
  answer = json_loadb(bytes, len, 0, &error);
  if (!json_is_object(answer)) {
    fprintf(complaints, "janusctl: what answers at %s is not a gateway of this kind\n", path);
    *status = EXIT_UNREACHABLE;
    json_decref(answer);
    answer = NULL;
    goto out;
  }
  bool ok = json_is_true(json_object_get(answer, "ok"));
  *status = ok ? EXIT_SUCCESS : EXIT_REFUSED;
  if (!ok) {
    char text[CELL_BYTES];
    cell_format(json_object_get(answer, "error"), CELL_TEXT, text);
    fprintf(complaints, "janusctl: the gateway answered: %s\n", text);
    const json_t *fault;
    size_t i;
    json_array_foreach(json_object_get(answer, "faults"), i, fault) {
      fprintf(complaints, "  %s\n", json_is_string(fault) ? json_string_value(fault) : "?");
    }
  }
out:
  free(bytes);
  free(line);
  close(fd);
  return answer;
}

static int ask(const char *path, const json_t *request, const struct ctl_command *command,
               bool as_json) {
  int status;
  json_t *answer = gateway_ask(path, request, stderr, &status);
  if (!answer) {
    return status;
  }
  if (as_json) {
    json_dumpf(answer, stdout, JSON_INDENT(2));
    printf("\n");
  } else if (status == EXIT_SUCCESS) {
    command->print(answer);
  }
  if (fflush(stdout) != 0) {
    fprintf(stderr, "janusctl: can't write: %s\n", strerror(errno));
    status = EXIT_REFUSED;
  }
  json_decref(answer);
  return status;
}

static json_t *top_ask(const char *path, const json_t *request, FILE *complaints, int *status) {
  json_t *answer = gateway_ask(path, request, complaints, status);
  if (*status != EXIT_SUCCESS) {
    json_decref(answer);
    answer = NULL;
  }
  return answer;
}

static int top(const char *path, const json_t *request, bool as_json) {
  const json_t *interval_ms = json_object_get(request, "interval_ms");
  const struct ctl_top wanted = {
      .path = path,
      .ask = top_ask,
      .as_json = as_json,
      .interval_ms = interval_ms ? json_integer_value(interval_ms) : 1000,
      .looks = json_integer_value(json_object_get(request, "count")),
  };
  return ctl_top_run(&wanted);
}

static int trace(const char *path, const json_t *request, bool as_json) {
  const json_t *for_ms = json_object_get(request, "for_ms");
  const struct ctl_trace wanted = {
      .as_json = as_json,
      .once = json_is_true(json_object_get(request, "once")),
      .packets = json_integer_value(json_object_get(request, "count")),
      .until_ms = for_ms ? clock_monotonic_ms() + json_integer_value(for_ms) : 0,
  };
  int fd = gateway_connect(path);
  if (fd < 0) {
    return unreachable(stderr, path, errno);
  }
  char *line = json_dumps(request, JSON_COMPACT);
  int status = EXIT_UNREACHABLE;
  if (!line || !gateway_send(fd, line, strlen(line)) || !gateway_send(fd, "\n", 1)) {
    unreachable(stderr, path, errno);
  } else {
    switch (ctl_trace_follow(fd, &wanted)) {
      case CTL_TRACE_DONE: status = EXIT_SUCCESS; break;
      case CTL_TRACE_REFUSED: status = EXIT_REFUSED; break;
      case CTL_TRACE_LOST: break;
      case CTL_TRACE_UNWRITTEN:
        fprintf(stderr, "janusctl: can't write: %s\n", strerror(errno));
        status = EXIT_REFUSED;
        break;
    }
  }
  free(line);
  close(fd);
  return status;
}

static int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int usage(const char *format, ...) {
  va_list arguments;
  fprintf(stderr, "janusctl: ");
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, "\nTry janusctl --help.\n");
  return EXIT_USAGE;
}

// --- The command line -------------------------------------------------------------

enum kind {
  KIND_TEXT,
  KIND_NUMBER,
  KIND_UNSIGNED,  // of 64 bits; in the request as the signed number of the same bits
  KIND_TIER,
  KIND_FLAG,
  KIND_DURATION,  // as text; in ms in the request
  KIND_DATA,      // text; its bytes in the request
  KIND_HEX,       // the same in hexadecimal
};

// An option of a command, and what becomes of it in the request.
static const struct argument {
  const char *name;
  char letter;
  const char *member;
  enum kind kind;
  int64_t least;
  int64_t most;
} arguments[] = {
    {"uid", 'u', "uid", KIND_NUMBER, INT64_MIN, INT64_MAX},
    {"sid", 'I', "sid", KIND_NUMBER, INT64_MIN, INT64_MAX},
    {"color", 'c', "color", KIND_TEXT, 0, 0},
    {"address", 'A', "address", KIND_TEXT, 0, 0},
    {"worker", 'W', "worker", KIND_NUMBER, 0, CONFIG_WORKERS},
    {"sort", 'O', "sort", KIND_TEXT, 0, 0},
    {"limit", 'n', "limit", KIND_NUMBER, 1, INT32_MAX},
    {"code", 'C', "code", KIND_TEXT, 0, 0},
    {"reason", 'R', "reason", KIND_TEXT, 0, 0},
    {"connection", 'N', "connection", KIND_UNSIGNED, 0, 0},
    {"count", 'K', "count", KIND_NUMBER, 1, INT64_MAX},
    {"once", 'o', "once", KIND_FLAG, 0, 0},
    {"for", 'F', "for_ms", KIND_DURATION, 0, 0},
    {"interval", 'i', "interval_ms", KIND_DURATION, 0, 0},
    {"mod", 'M', "mod", KIND_NUMBER, INT32_MIN, INT32_MAX},
    {"seq", 'Q', "seq", KIND_NUMBER, INT32_MIN, INT32_MAX},
    {"obj", 'B', "obj", KIND_NUMBER, INT64_MIN, INT64_MAX},
    {"data-version", 'E', "data_version", KIND_UNSIGNED, 0, 0},
    {"data", 'D', "data", KIND_DATA, 0, 0},
    {"hex", 'X', "data", KIND_HEX, 0, 0},
    {"tier", 't', "tier", KIND_TIER, 0, 0},
    {"service", 'S', "service", KIND_TEXT, 0, 0},
    {"level", 'l', "level", KIND_TEXT, 0, 0},
    {"module", 'm', "module", KIND_TEXT, 0, 0},
};
enum { ARGUMENTS = sizeof arguments / sizeof *arguments };

static const struct argument *argument_of(int letter) {
  for (size_t i = 0; i < ARGUMENTS; i++) {
    if (arguments[i].letter == letter) {
      return &arguments[i];
    }
  }
  return NULL;
}

static bool number_parse(const char *text, int64_t least, int64_t most, json_int_t *number) {
  char *end;
  errno = 0;
  *number = strtoll(text, &end, 10);
  return errno == 0 && end != text && *end == '\0' && *number >= least && *number <= most;
}

static bool unsigned_parse(const char *text, json_int_t *number) {
  char *end;
  errno = 0;
  *number = (json_int_t)strtoull(text, &end, 10);
  return errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0';
}

static bool is_tier(const char *text) {
  return strcmp(text, "gateway") == 0 || strcmp(text, "player") == 0 || strcmp(text, "object") == 0;
}

static json_t *base64_of(const uint8_t *bytes, size_t len) {
  size_t room = sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL);
  char *text = malloc(room);
  json_t *value = NULL;
  if (text) {
    value = json_string(sodium_bin2base64(text, room, bytes, len, sodium_base64_VARIANT_ORIGINAL));
  }
  free(text);
  return value;
}

static json_t *hex_decode(const char *text) {
  size_t len = strlen(text);
  uint8_t *bytes = malloc(len + 1);
  size_t decoded = 0;
  json_t *value = NULL;
  if (bytes && sodium_hex2bin(bytes, len, text, len, ": ", &decoded, NULL) == 0 &&
      len >= 2 * decoded) {
    value = base64_of(bytes, decoded);
  }
  free(bytes);
  return value;
}

// Puts an option's value into the request. Returns what it must be, or NULL.
static const char *take(json_t *request, const struct argument *argument, const char *text) {
  json_int_t number;
  int64_t ms;
  json_t *value = NULL;
  switch (argument->kind) {
    case KIND_TEXT: value = json_string(text); break;
    case KIND_FLAG: value = json_true(); break;
    case KIND_TIER: value = is_tier(text) ? json_string(text) : NULL; break;
    case KIND_NUMBER:
      value = number_parse(text, argument->least, argument->most, &number) ? json_integer(number)
                                                                           : NULL;
      break;
    case KIND_UNSIGNED: value = unsigned_parse(text, &number) ? json_integer(number) : NULL; break;
    case KIND_DURATION:
      value = config_value_parse_duration(text, &ms) ? json_integer(ms) : NULL;
      break;
    case KIND_DATA: value = base64_of((const uint8_t *)text, strlen(text)); break;
    case KIND_HEX: value = hex_decode(text); break;
  }
  static const char *const wanted[] = {
      [KIND_TEXT] = "UTF-8",
      [KIND_NUMBER] = "a whole number in its range",
      [KIND_UNSIGNED] = "a whole number of 64 bits, 0 or more",
      [KIND_FLAG] = "nothing",
      [KIND_TIER] = "gateway, player or object",
      [KIND_DURATION] = "a time such as 90s, 10m or 24h",
      [KIND_DATA] = "text",
      [KIND_HEX] = "hexadecimal digits",
  };
  if (!value) {
    return wanted[argument->kind];
  }
  json_object_set_new(request, argument->member, value);
  return NULL;
}

// The words of a command after its name. Returns how many there are, negative after saying
// what is wrong.
static int take_words(json_t *request, const struct ctl_command *command, int argc, char **argv) {
  int count = 0;
  for (const char *word = command->words; *word != '\0'; word++) {
    bool optional = *word >= 'A' && *word <= 'Z';
    const struct argument *argument = argument_of(*word == 'o' ? 'u'
                                                  : optional   ? *word - 'A' + 'a'
                                                               : *word);
    const char *text = count < argc ? argv[count] : NULL;
    if (!text && optional) {
      break;
    }
    const char *fault = text ? take(request, argument, text) : "missing";
    if (fault) {
      usage("%s: %s is to be %s", command->name, text ? text : "what follows it",
            text ? fault : "given");
      return -1;
    }
    if (*word == 'o') {  // an object's number, where a player's goes elsewhere
      json_object_set(request, "oid", json_object_get(request, "uid"));
      json_object_del(request, "uid");
    }
    count++;
  }
  return count;
}

// Returns what is wrong with the options for this command, or NULL.
static const char *check_options(const struct ctl_command *command, const char *given) {
  if (strspn(given, command->options) != strlen(given)) {
    return "does not take that option";
  }
  if (strchr(given, 'D') && strchr(given, 'X')) {
    return "takes --data or --hex, not both";
  }
  for (const char *needed = command->needed; needed && *needed != '\0'; needed++) {
    if (!strchr(given, *needed)) {
      return "needs --mod and --seq";
    }
  }
  return NULL;
}

// A command may be two words.
static const struct ctl_command *find_command(int argc, char **argv, int *words) {
  char name[64];
  *words = 1;
  if (strcmp(argv[0], "log") == 0 && argc > 1) {
    snprintf(name, sizeof name, "log %.32s", argv[1]);
    const struct ctl_command *command = ctl_command_named(name);
    *words = command ? 2 : 1;  // else it is a level
    return command ? command : ctl_command_named("log");
  }
  if (strcmp(argv[0], "routes") == 0 && argc > 1) {
    *words = 2;
    if (strcmp(argv[1], "list") != 0) {
      snprintf(name, sizeof name, "%.16s %.32s", argv[0], argv[1]);
      return ctl_command_named(name);
    }
  }
  return ctl_command_named(argv[0]);
}

struct line {
  const char *socket;
  bool as_json;
  char given[ARGUMENTS + 1];  // letters of the options
  json_t *request;
};

enum { LINE_GOES_ON = -1 };

// The options. Returns LINE_GOES_ON, or the exit status.
static int read_options(int argc, char **argv, struct line *line) {
  struct option options[ARGUMENTS + 5] = {
      {"socket", required_argument, NULL, 's'},
      {"json", no_argument, NULL, 'j'},
      {"help", no_argument, NULL, 'h'},
      {"version", no_argument, NULL, 'V'},
  };
  int letter;
  for (size_t i = 0; i < ARGUMENTS; i++) {
    options[4 + i] = (struct option){
        arguments[i].name, arguments[i].kind == KIND_FLAG ? no_argument : required_argument, NULL,
        arguments[i].letter};
  }
  while ((letter = getopt_long(argc, argv, "s:ju:t:n:c:S:hV", options, NULL)) != -1) {
    const struct argument *argument = argument_of(letter);
    if (letter == 's') {
      line->socket = optarg;
    } else if (letter == 'j') {
      line->as_json = true;
    } else if (letter == 'h') {
      fputs(help, stdout);
      return EXIT_SUCCESS;
    } else if (letter == 'V') {
      puts("janusctl " JANUS_VERSION);
      return EXIT_SUCCESS;
    } else if (!argument) {
      return usage("that option is not understood (before a negative number goes --)");
    } else {
      const char *fault = take(line->request, argument, optarg);
      if (fault) {
        return usage("--%s takes %s, not %s", argument->name, fault, optarg);
      }
      if (!strchr(line->given, letter)) {
        line->given[strlen(line->given)] = (char)letter;
      }
    }
  }
  return LINE_GOES_ON;
}

static int run(int argc, char **argv, struct line *line) {
  int status = read_options(argc, argv, line);
  int words;
  if (status != LINE_GOES_ON) {
    return status;
  }
  if (optind == argc) {
    return usage(
        "which command? status, stats, top, workers, reload, sessions, session, kick, ban, unban, "
        "bans, push, trace, log, routes or nodes");
  }
  const struct ctl_command *command = find_command(argc - optind, argv + optind, &words);
  if (!command) {
    return usage("there is no command %s", argv[optind]);
  }
  optind += words;
  const char *wrong = check_options(command, line->given);
  if (wrong) {
    return usage("%s %s", command->name, wrong);
  }
  bool uid_given = strchr(line->given, 'u') != NULL;
  int taken = uid_given ? 0 : take_words(line->request, command, argc - optind, argv + optind);
  if (taken < 0) {
    return EXIT_USAGE;
  }
  if (optind + taken < argc) {
    return usage("one command at a time; %s is too much", argv[optind + taken]);
  }
  json_object_set_new(line->request, "command", json_string(command->name));
  if (strcmp(command->name, "top") == 0) {
    const json_t *interval_ms = json_object_get(line->request, "interval_ms");
    if (interval_ms && json_integer_value(interval_ms) < TOP_INTERVAL_LEAST_MS) {
      return usage("top takes an --interval of %dms or more", TOP_INTERVAL_LEAST_MS);
    }
    return top(line->socket, line->request, line->as_json);
  }
  if (!command->print) {
    return trace(line->socket, line->request, line->as_json);
  }
  return ask(line->socket, line->request, command, line->as_json);
}

int main(int argc, char **argv) {
  struct line line = {.socket = getenv("JANUS_CONTROL_SOCKET"), .request = json_object()};
  if (!line.socket || line.socket[0] == '\0') {
    line.socket = CONFIG_CONTROL_SOCKET;
  }
  int status = run(argc, argv, &line);
  json_decref(line.request);
  return status;
}
