// janusctl: asks a running gateway how it is and acts on it, through its control socket.
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/config.h"

enum {
  EXIT_REFUSED = 1,  // the gateway answered with an error
  EXIT_USAGE = 2,
  EXIT_UNREACHABLE = 3,
};

enum {
  ANSWER_MAX_BYTES = 64 << 20,
  TIMEOUT_S = 5,
  CELL_BYTES = 192,
  COLUMNS_MAX = 70,  // of stats: name, total, and each worker
};

static const char help[] =
    "janusctl: asks a running gateway how it is, and acts on it\n"
    "\n"
    "Usage: janusctl [--socket PATH] [--json] COMMAND [OPTION]...\n"
    "\n"
    "Commands:\n"
    "  status     version, listeners, and how much there is of everything\n"
    "  stats      counters and gauges, in total and for each worker\n"
    "  workers    the worker processes\n"
    "  sessions   players logged in    [--uid N] [--color C] [--sid N] [--address IP]\n"
    "                                  [--worker N] [--limit N]\n"
    "  kick       closes sessions      UID, or as for sessions  [--code C] [--reason TEXT]\n"
    "  routes     who is where\n"
    "    [list]         those that the workers see   [--tier gateway|player|object] [--limit N]\n"
    "    get TIER OID   one, and what the store says  [--color C] [--service NAME]\n"
    "    stats          how many there are\n"
    "  nodes      the backends known\n"
    "\n"
    "Options:\n"
    "  -s, --socket PATH  the gateway's control.socket (default: $JANUS_CONTROL_SOCKET,\n"
    "                     else " CONFIG_CONTROL_SOCKET
    ")\n"
    "  -j, --json         the answer as JSON, for programs\n"
    "  -u, --uid N        sessions, kick: of this player only\n"
    "      --color C      sessions, kick: of this color only\n"
    "      --sid N        sessions, kick: of this server id only\n"
    "      --address IP   sessions, kick: of clients at this address only\n"
    "      --worker N     sessions, kick: of this worker only\n"
    "      --code C       kick: what the client is told: server, waiting, unauthorized,\n"
    "                     conflicting-login, admin-kick-out (the default) or banned\n"
    "      --reason TEXT  kick: why, for the gateway's log\n"
    "  -t, --tier TIER    routes: of this tier only\n"
    "  -n, --limit N      sessions, routes: at most so many (default 100)\n"
    "  -c, --color C      routes get: of this color (default: the gateway's own)\n"
    "  -S, --service NAME routes get: of this service (default: the first of the tier)\n"
    "  -h, --help         this text\n"
    "  -V, --version      the version\n"
    "\n"
    "Examples:\n"
    "  janusctl status\n"
    "  janusctl sessions --uid 10001\n"
    "  janusctl kick 10001 --reason 'asked by support'\n"
    "  janusctl kick --color blue --code waiting\n"
    "  janusctl routes --tier player --limit 20\n"
    "  janusctl routes get player 10001 --color blue\n"
    "  janusctl --json stats | jq .total.counters.logins\n"
    "\n"
    "Exit status: 0 all is well, 1 the gateway answered with an error, 2 wrong usage,\n"
    "3 the gateway can't be reached.\n";

// --- Tables -------------------------------------------------------------------

enum cell { CELL_TEXT, CELL_NUMBER, CELL_TIME, CELL_DURATION };

struct column {
  const char *title;
  const char *field;
  enum cell cell;
};

static void duration_format(int64_t ms, char *text, size_t size) {
  int64_t s = ms / 1000;
  if (s >= 24 * 3600) {
    snprintf(text, size, "%" PRId64 "d%02" PRId64 "h", s / 86400, s / 3600 % 24);
  } else if (s >= 3600) {
    snprintf(text, size, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
  } else if (s >= 60) {
    snprintf(text, size, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
  } else {
    snprintf(text, size, "%" PRId64 ".%" PRId64 "s", s, ms / 100 % 10);
  }
}

// "-" for what the answer does not have or leaves empty.
static void cell_format(const json_t *value, enum cell cell, char text[CELL_BYTES]) {
  int64_t number = json_integer_value(value);
  time_t seconds = (time_t)(number / 1000);
  struct tm utc;
  if (json_is_string(value) && json_string_length(value) > 0) {
    snprintf(text, CELL_BYTES, "%s", json_string_value(value));
    for (char *c = text; *c != '\0'; c++) {  // nothing that steers the terminal
      *c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
    }
  } else if (!json_is_integer(value)) {
    snprintf(text, CELL_BYTES, "-");
  } else if (cell == CELL_TIME && gmtime_r(&seconds, &utc) != NULL) {
    strftime(text, CELL_BYTES, "%Y-%m-%d %H:%M:%SZ", &utc);
  } else if (cell == CELL_DURATION) {
    duration_format(number, text, CELL_BYTES);
  } else {
    snprintf(text, CELL_BYTES, "%" PRId64, number);
  }
}

// Prints an array of objects with a line of titles; numbers to the right.
static void table_print(const json_t *rows, const struct column *columns, size_t column_count,
                        const char *when_empty) {
  size_t width[COLUMNS_MAX], i;
  char text[CELL_BYTES];
  const json_t *row;
  if (json_array_size(rows) == 0) {
    printf("%s\n", when_empty);
    return;
  }
  for (size_t c = 0; c < column_count; c++) {
    width[c] = strlen(columns[c].title);
    json_array_foreach(rows, i, row) {
      cell_format(json_object_get(row, columns[c].field), columns[c].cell, text);
      width[c] = strlen(text) > width[c] ? strlen(text) : width[c];
    }
  }
  for (size_t line = 0; line <= json_array_size(rows); line++) {
    for (size_t c = 0; c < column_count; c++) {
      bool right = columns[c].cell == CELL_NUMBER || columns[c].cell == CELL_DURATION;
      if (line == 0) {
        snprintf(text, sizeof text, "%s", columns[c].title);
      } else {
        cell_format(json_object_get(json_array_get(rows, line - 1), columns[c].field),
                    columns[c].cell, text);
      }
      // No blanks at the end of a line.
      int pad = c + 1 < column_count || right ? (int)width[c] : 0;
      printf("%s%*s", c == 0 ? "" : "  ", right ? pad : -pad, text);
    }
    printf("\n");
  }
}

#define TABLE_PRINT(rows, columns, when_empty) \
  table_print(rows, columns, sizeof columns / sizeof *columns, when_empty)

// --- The answers ----------------------------------------------------------------

static void line_print(const char *title, const json_t *value, enum cell cell) {
  char text[CELL_BYTES];
  cell_format(value, cell, text);
  printf("%-13s %s\n", title, text);
}

static void status_print(const json_t *answer) {
  const json_t *workers = json_object_get(answer, "workers"), *listener;
  size_t i;
  line_print("state", json_object_get(answer, "state"), CELL_TEXT);
  line_print("version", json_object_get(answer, "version"), CELL_TEXT);
  line_print("pid", json_object_get(answer, "pid"), CELL_NUMBER);
  line_print("started", json_object_get(answer, "started_at_ms"), CELL_TIME);
  line_print("uptime", json_object_get(answer, "uptime_ms"), CELL_DURATION);
  printf("%-13s%" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " running\n", "workers",
         json_integer_value(json_object_get(workers, "running")),
         json_integer_value(json_object_get(workers, "configured")));
  json_array_foreach(json_object_get(answer, "listeners"), i, listener) {
    char transport[CELL_BYTES], address[CELL_BYTES];
    cell_format(json_object_get(listener, "transport"), CELL_TEXT, transport);
    cell_format(json_object_get(listener, "address"), CELL_TEXT, address);
    printf("%-13s%s %s\n", i == 0 ? "listening on" : "", transport, address);
  }
  line_print("reached at", json_object_get(answer, "advertise"), CELL_TEXT);
  line_print("registry", json_object_get(answer, "registry"), CELL_TEXT);
  line_print("routes", json_object_get(answer, "routes"), CELL_TEXT);
  line_print("nodes", json_object_get(answer, "nodes"), CELL_NUMBER);
  line_print("connections", json_object_get(answer, "connections"), CELL_NUMBER);
  line_print("sessions", json_object_get(answer, "sessions"), CELL_NUMBER);
  line_print("tunnels", json_object_get(answer, "tunnels"), CELL_NUMBER);
  static const struct column columns[] = {
      {"link", "name", CELL_TEXT},
      {"state", "state", CELL_TEXT},
      {"where", "where", CELL_TEXT},
      {"since", "since_ms", CELL_TIME},
      {"lost", "lost", CELL_NUMBER},
      {"last error", "last_error_ms", CELL_TIME},
      {"which was", "last_error", CELL_TEXT},
  };
  if (json_array_size(json_object_get(answer, "links")) > 0) {
    printf("\n");
    TABLE_PRINT(json_object_get(answer, "links"), columns, "");
  }
}

// One group of numbers as a table: a line for each name, a column for the total
// and each worker.
static void stats_print_group(const json_t *answer, const char *group, const char *title,
                              bool zeros) {
  const json_t *total = json_object_get(answer, "total"), *value;
  const json_t *workers = json_object_get(answer, "workers");
  struct column columns[COLUMNS_MAX] = {{title, "name", CELL_TEXT},
                                        {"total", "total", CELL_NUMBER}};
  char titles[COLUMNS_MAX][32];
  size_t column_count = 2;
  json_t *rows = json_array();
  const char *name;
  while (column_count - 2 < json_array_size(workers) && column_count < COLUMNS_MAX) {
    const json_t *worker = json_array_get(workers, column_count - 2);
    snprintf(titles[column_count], sizeof titles[0], "worker %" JSON_INTEGER_FORMAT,
             json_integer_value(json_object_get(worker, "worker")));
    columns[column_count] =
        (struct column){titles[column_count], titles[column_count], CELL_NUMBER};
    column_count++;
  }
  json_object_foreach(json_object_get(total, group), name, value) {
    if (!zeros && json_integer_value(value) == 0) {
      continue;
    }
    json_t *row = json_pack("{s:s, s:I}", "name", name, "total", json_integer_value(value));
    for (size_t c = 2; c < column_count; c++) {
      const json_t *of_worker = json_object_get(json_array_get(workers, c - 2), group);
      json_object_set_new(row, columns[c].field,
                          json_integer(json_integer_value(json_object_get(of_worker, name))));
    }
    json_array_append_new(rows, row);
  }
  table_print(rows, columns, column_count, "no connection has been closed yet");
  json_decref(rows);
}

static void stats_print(const json_t *answer) {
  stats_print_group(answer, "gauges", "now", true);
  printf("\n");
  stats_print_group(answer, "counters", "since the start", true);
  printf("\n");
  stats_print_group(answer, "closed", "closed for", false);
}

static void workers_print(const json_t *answer) {
  static const struct column columns[] = {
      {"worker", "worker", CELL_NUMBER},
      {"pid", "pid", CELL_NUMBER},
      {"state", "state", CELL_TEXT},
      {"since", "since_ms", CELL_TIME},
      {"uptime", "uptime_ms", CELL_DURATION},
      {"restarts", "restarts", CELL_NUMBER},
      {"connections", "connections", CELL_NUMBER},
      {"sessions", "sessions", CELL_NUMBER},
      {"tunnels", "tunnels", CELL_NUMBER},
  };
  TABLE_PRINT(json_object_get(answer, "workers"), columns, "there are no workers");
}

static void sessions_print(const json_t *answer) {
  static const struct column columns[] = {
      {"uid", "uid", CELL_NUMBER},
      {"color", "color", CELL_TEXT},
      {"sid", "sid", CELL_NUMBER},
      {"worker", "worker", CELL_NUMBER},
      {"connection", "connection", CELL_NUMBER},
      {"address", "address", CELL_TEXT},
      {"since", "since_ms", CELL_TIME},
  };
  const json_t *sessions = json_object_get(answer, "sessions");
  json_int_t total = json_integer_value(json_object_get(answer, "total"));
  TABLE_PRINT(sessions, columns, "no player is logged in");
  if ((size_t)total > json_array_size(sessions)) {
    printf("\n%zu of %" JSON_INTEGER_FORMAT " sessions; --limit shows more\n",
           json_array_size(sessions), total);
  }
}

static void route_stats_print(const json_t *answer) {
  const json_t *stats;
  const char *tier;
  json_object_foreach(json_object_get(answer, "stats"), tier, stats) {
    printf("%-13s%" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " used\n", tier,
           json_integer_value(json_object_get(stats, "used")),
           json_integer_value(json_object_get(stats, "capacity")));
  }
  line_print("bytes", json_object_get(answer, "bytes"), CELL_NUMBER);
  line_print("held", json_object_get(answer, "held"), CELL_NUMBER);
  line_print("to write", json_object_get(answer, "queued_writes"), CELL_NUMBER);
}

static void route_place_print(const char *title, const json_t *place, const json_t *says) {
  char address[CELL_BYTES], expires[CELL_BYTES];
  if (!json_is_object(place)) {
    line_print(title, says, CELL_TEXT);
    return;
  }
  cell_format(json_object_get(place, "address"), CELL_TEXT, address);
  cell_format(json_object_get(place, "expires_in_ms"), CELL_DURATION, expires);
  printf("%-13s%s, expires in %s\n", title, address, expires);
}

static void route_get_print(const json_t *answer) {
  line_print("key", json_object_get(answer, "key"), CELL_TEXT);
  const json_t *guess = json_object_get(answer, "guess");
  if (guess) {
    line_print("workers guess", guess, CELL_TEXT);
  } else {
    route_place_print("workers see", json_object_get(answer, "table"), NULL);
  }
  route_place_print("store has", json_object_get(answer, "store"),
                    json_object_get(answer, "store_says"));
  line_print("tunnels here", json_object_get(answer, "tunnels"), CELL_NUMBER);
}

static void routes_print(const json_t *answer) {
  static const struct column columns[] = {
      {"tier", "tier", CELL_TEXT},
      {"service", "service", CELL_TEXT},
      {"color", "color", CELL_TEXT},
      {"oid", "oid", CELL_NUMBER},
      {"address", "address", CELL_TEXT},
      {"state", "state", CELL_TEXT},
      {"expires in", "expires_in_ms", CELL_DURATION},
  };
  route_stats_print(answer);
  printf("\n");
  TABLE_PRINT(json_object_get(answer, "routes"), columns, "there are no routes");
}

static void nodes_print(const json_t *answer) {
  static const struct column columns[] = {
      {"service", "service", CELL_TEXT},   {"address", "address", CELL_TEXT},
      {"color", "color", CELL_TEXT},       {"weight", "weight", CELL_NUMBER},
      {"state", "state", CELL_TEXT},       {"since", "since_ms", CELL_TIME},
      {"tunnels", "tunnels", CELL_NUMBER},
  };
  TABLE_PRINT(json_object_get(answer, "nodes"), columns, "no backend is known");
}

static void kick_print(const json_t *answer) {
  printf("closed %" JSON_INTEGER_FORMAT "\n",
         json_integer_value(json_object_get(answer, "kicked")));
}

static const struct command {
  const char *name;
  void (*print)(const json_t *answer);
  const char *options;  // the letters that it takes
} commands[] = {
    {"status", status_print, ""},          {"stats", stats_print, ""},
    {"workers", workers_print, ""},        {"sessions", sessions_print, "uncIAW"},
    {"routes", routes_print, "tn"},        {"routes stats", route_stats_print, ""},
    {"routes get", route_get_print, "cS"}, {"nodes", nodes_print, ""},
    {"kick", kick_print, "ucIAWCR"},
};

// --- Asking ---------------------------------------------------------------------

static int unreachable(const char *path, int code) {
  fprintf(stderr, "janusctl: no gateway answers at %s: %s\n", path,
          code == EAGAIN ? "not in time" : strerror(code));
  if (code == EACCES || code == EPERM) {
    fprintf(stderr, "Run it as root or as a member of the gateway's group.\n");
  } else {
    fprintf(stderr,
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

static int ask(const char *path, const json_t *request, const struct command *command,
               bool as_json) {
  int status = EXIT_UNREACHABLE;
  size_t len = 0;
  char *line = NULL, *bytes = NULL;
  json_t *answer = NULL;
  json_error_t error;
  int fd = gateway_connect(path);
  if (fd < 0) {
    return unreachable(path, errno);
  }
  line = json_dumps(request, JSON_COMPACT);
  if (line == NULL || !gateway_send(fd, line, strlen(line)) || !gateway_send(fd, "\n", 1) ||
      (bytes = gateway_receive(fd, &len)) == NULL) {
    status = unreachable(path, errno);
    goto out;
  }
  answer = json_loadb(bytes, len, 0, &error);
  if (!json_is_object(answer)) {
    fprintf(stderr, "janusctl: what answers at %s is not a gateway of this kind\n", path);
    goto out;
  }
  bool ok = json_is_true(json_object_get(answer, "ok"));
  status = ok ? EXIT_SUCCESS : EXIT_REFUSED;
  if (!ok) {
    char text[CELL_BYTES];
    cell_format(json_object_get(answer, "error"), CELL_TEXT, text);
    fprintf(stderr, "janusctl: the gateway answered: %s\n", text);
  }
  if (as_json) {
    json_dumpf(answer, stdout, JSON_INDENT(2));
    printf("\n");
  } else if (ok) {
    command->print(answer);
  }
  if (fflush(stdout) != 0) {
    fprintf(stderr, "janusctl: can't write: %s\n", strerror(errno));
    status = EXIT_REFUSED;
  }
out:
  json_decref(answer);
  free(bytes);
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

static bool number_parse(const char *text, int64_t min, json_int_t *number) {
  char *end;
  errno = 0;
  *number = strtoll(text, &end, 10);
  return errno == 0 && end != text && *end == '\0' && *number >= min;
}

static bool is_tier(const char *text) {
  return strcmp(text, "gateway") == 0 || strcmp(text, "player") == 0 || strcmp(text, "object") == 0;
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"socket", required_argument, NULL, 's'},
      {"json", no_argument, NULL, 'j'},
      {"uid", required_argument, NULL, 'u'},
      {"tier", required_argument, NULL, 't'},
      {"limit", required_argument, NULL, 'n'},
      {"color", required_argument, NULL, 'c'},
      {"service", required_argument, NULL, 'S'},
      {"sid", required_argument, NULL, 'I'},
      {"address", required_argument, NULL, 'A'},
      {"worker", required_argument, NULL, 'W'},
      {"code", required_argument, NULL, 'C'},
      {"reason", required_argument, NULL, 'R'},
      {"help", no_argument, NULL, 'h'},
      {"version", no_argument, NULL, 'V'},
      {0},
  };
  const char *path = getenv("JANUS_CONTROL_SOCKET");
  const char *tier = NULL, *color = NULL, *service = NULL;
  const char *address = NULL, *code = NULL, *reason = NULL;
  char given[16] = "";  // the letters of the options for one command
  json_int_t uid = 0, sid = 0, worker = 0, limit = 100;
  bool as_json = false;
  int option;
  path = path != NULL && *path != '\0' ? path : CONFIG_CONTROL_SOCKET;
  while ((option = getopt_long(argc, argv, "s:ju:t:n:c:S:hV", options, NULL)) != -1) {
    switch (option) {
      case 's': path = optarg; break;
      case 'j': as_json = true; break;
      case 'u':
        if (!number_parse(optarg, INT64_MIN, &uid)) {
          return usage("--uid takes a number, not %s", optarg);
        }
        break;
      case 't':
        tier = optarg;
        if (!is_tier(tier)) {
          return usage("--tier takes gateway, player or object, not %s", optarg);
        }
        break;
      case 'n':
        if (!number_parse(optarg, 1, &limit)) {
          return usage("--limit takes a number from 1, not %s", optarg);
        }
        break;
      case 'I':
        if (!number_parse(optarg, INT64_MIN, &sid)) {
          return usage("--sid takes a number, not %s", optarg);
        }
        break;
      case 'W':
        if (!number_parse(optarg, 0, &worker)) {
          return usage("--worker takes a number from 0, not %s", optarg);
        }
        break;
      case 'A': address = optarg; break;
      case 'C': code = optarg; break;
      case 'R': reason = optarg; break;
      case 'c': color = optarg; break;
      case 'S': service = optarg; break;
      case 'h': fputs(help, stdout); return EXIT_SUCCESS;
      case 'V': puts("janusctl " JANUS_VERSION); return EXIT_SUCCESS;
      default: return usage("that option is not understood");
    }
    if (strchr("utncSIAWCR", option) != NULL && strchr(given, option) == NULL) {
      given[strlen(given)] = (char)option;
    }
  }
  if (optind == argc) {
    return usage("which command? status, stats, workers, sessions, routes, nodes or kick");
  }
  // A command may be two words, and only routes get takes more than that.
  char name[32];
  int words = 1;
  snprintf(name, sizeof name, "%s", argv[optind]);
  if (strcmp(name, "routes") == 0 && optind + 1 < argc) {
    words = 2;
    if (strcmp(argv[optind + 1], "list") != 0) {
      snprintf(name, sizeof name, "routes %.16s", argv[optind + 1]);
    }
  }
  json_int_t oid = 0;
  if (strcmp(name, "routes get") == 0) {
    words = 4;
    if (optind + words > argc || !is_tier(argv[optind + 2]) ||
        !number_parse(argv[optind + 3], INT64_MIN, &oid)) {
      return usage("routes get takes gateway, player or object, and a number");
    }
    tier = argv[optind + 2];
  }
  if (strcmp(name, "kick") == 0 && optind + 1 < argc && strchr(given, 'u') == NULL) {
    words = 2;
    if (!number_parse(argv[optind + 1], INT64_MIN, &uid)) {
      return usage("kick takes the number of a player, not %s", argv[optind + 1]);
    }
    given[strlen(given)] = 'u';
  }
  if (optind + words < argc) {
    return usage("one command at a time; %s is too much", argv[optind + words]);
  }
  const struct command *command = NULL;
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    if (strcmp(name, commands[i].name) == 0) {
      command = &commands[i];
    }
  }
  if (command == NULL) {
    return usage("there is no command %s", name);
  }
  if (strspn(given, command->options) != strlen(given)) {
    return usage("%s does not take that option", command->name);
  }

  json_t *request = json_pack("{s:s}", "command", command->name);
  if (strchr(command->options, 'n') != NULL) {
    json_object_set_new(request, "limit", json_integer(limit));
  }
  if (strchr(given, 'u') != NULL) {
    json_object_set_new(request, "uid", json_integer(uid));
  }
  if (strchr(given, 'I') != NULL) {
    json_object_set_new(request, "sid", json_integer(sid));
  }
  if (strchr(given, 'W') != NULL) {
    json_object_set_new(request, "worker", json_integer(worker));
  }
  const struct {
    const char *name, *text;
  } texts[] = {{"address", address}, {"code", code},   {"reason", reason},
               {"tier", tier},       {"color", color}, {"service", service}};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    // Left out, it would mean more than was asked for.
    if (texts[i].text != NULL &&
        json_object_set_new(request, texts[i].name, json_string(texts[i].text)) != 0) {
      json_decref(request);
      return usage("the %s is not UTF-8", texts[i].name);
    }
  }
  if (strcmp(name, "routes get") == 0) {
    json_object_set_new(request, "oid", json_integer(oid));
  }
  int status = ask(path, request, command, as_json);
  json_decref(request);
  return status;
}
