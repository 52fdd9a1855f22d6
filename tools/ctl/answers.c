#include "tools/ctl/answers.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tools/ctl/table.h"

enum { COLUMNS_MAX = 70 };  // of stats: name, total, and each worker

// One of the ports, with what has gone wrong there.
static void listener_print(const char *title, const json_t *listener) {
  static const char *const faults[] = {"refused", "late", "cut"};
  char transport[CELL_BYTES], address[CELL_BYTES], text[3 * CELL_BYTES];
  int len;
  cell_format(json_object_get(listener, "transport"), CELL_TEXT, transport);
  cell_format(json_object_get(listener, "address"), CELL_TEXT, address);
  len = snprintf(text, sizeof text, "%s %s%s", transport, address,
                 json_is_true(json_object_get(listener, "tls")) ? " (TLS)" : "");
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
    json_int_t count = json_integer_value(json_object_get(listener, faults[i]));
    if (count > 0) {
      len += snprintf(text + len, sizeof text - (size_t)len, ", %s %" JSON_INTEGER_FORMAT,
                      faults[i], count);
    }
  }
  line_printf(title, "%s", text);
}

void ctl_print_status(const json_t *answer) {
  const json_t *workers = json_object_get(answer, "workers"), *listener;
  size_t i;
  line_print("state", json_object_get(answer, "state"), CELL_TEXT);
  line_print("version", json_object_get(answer, "version"), CELL_TEXT);
  line_print("pid", json_object_get(answer, "pid"), CELL_NUMBER);
  line_print("started", json_object_get(answer, "started_at_ms"), CELL_TIME);
  line_print("uptime", json_object_get(answer, "uptime_ms"), CELL_DURATION);
  line_printf("workers", "%" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " running",
              json_integer_value(json_object_get(workers, "running")),
              json_integer_value(json_object_get(workers, "configured")));
  json_array_foreach(json_object_get(answer, "listeners"), i, listener) {
    listener_print(i == 0 ? "listening on" : "", listener);
  }
  line_print("reached at", json_object_get(answer, "advertise"), CELL_TEXT);
  line_print("registry", json_object_get(answer, "registry"), CELL_TEXT);
  line_print("routes", json_object_get(answer, "routes"), CELL_TEXT);
  line_print("nodes", json_object_get(answer, "nodes"), CELL_NUMBER);
  line_print("connections", json_object_get(answer, "connections"), CELL_NUMBER);
  line_print("sessions", json_object_get(answer, "sessions"), CELL_NUMBER);
  line_print("tunnels", json_object_get(answer, "tunnels"), CELL_NUMBER);
  if (json_integer_value(json_object_get(answer, "traces")) > 0) {
    line_print("traces", json_object_get(answer, "traces"), CELL_NUMBER);
  }
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

void ctl_print_stats(const json_t *answer) {
  stats_print_group(answer, "gauges", "now", true);
  printf("\n");
  stats_print_group(answer, "counters", "since the start", true);
  printf("\n");
  stats_print_group(answer, "closed", "closed for", false);
}

// Some columns have something in them only at times.
static bool any_has(const json_t *rows, const char *field) {
  const json_t *row;
  size_t i;
  json_array_foreach(rows, i, row) {
    if (json_object_get(row, field)) {
      return true;
    }
  }
  return false;
}

void ctl_print_workers(const json_t *answer) {
  static const struct column columns[] = {
      {"worker", "worker", CELL_NUMBER},     {"generation", "generation", CELL_NUMBER},
      {"socket", "place", CELL_NUMBER},      {"pid", "pid", CELL_NUMBER},
      {"state", "state", CELL_TEXT},         {"drained in", "drain_left_ms", CELL_DURATION},
      {"since", "since_ms", CELL_TIME},      {"uptime", "uptime_ms", CELL_DURATION},
      {"restarts", "restarts", CELL_NUMBER}, {"connections", "connections", CELL_NUMBER},
      {"sessions", "sessions", CELL_NUMBER}, {"tunnels", "tunnels", CELL_NUMBER},
  };
  const json_t *workers = json_object_get(answer, "workers");
  struct column shown[sizeof columns / sizeof *columns];
  size_t count = 0;
  for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
    if (any_has(workers, columns[i].field)) {
      shown[count++] = columns[i];
    }
  }
  table_print(workers, shown, count, "there are no workers");
}

// What the workers say may be missing.
static void completeness_print(const json_t *answer) {
  if (json_is_false(json_object_get(answer, "complete"))) {
    printf("\nNot all of it: a worker did not answer in time, or had too much to say.\n");
  }
}

// fit: how many of all there are are as they were asked for; shown: how many of those are here.
static void rest_print(size_t shown, json_int_t fit, json_int_t all, const char *what) {
  char of_all[64] = "";
  if (fit < all) {
    snprintf(of_all, sizeof of_all, ", of %" JSON_INTEGER_FORMAT " in all", all);
  }
  if ((json_int_t)shown < fit) {
    printf("\n%zu of %" JSON_INTEGER_FORMAT " %s%s; --limit shows more\n", shown, fit, what,
           of_all);
  } else if (fit < all && fit > 0) {
    printf("\n%" JSON_INTEGER_FORMAT " %s%s\n", fit, what, of_all);
  }
}

void ctl_print_sessions(const json_t *answer) {
  static const struct column columns[] = {
      {"uid", "uid", CELL_NUMBER},       {"color", "color", CELL_TEXT},
      {"sid", "sid", CELL_NUMBER},       {"worker", "worker", CELL_NUMBER},
      {"address", "address", CELL_TEXT}, {"transport", "transport", CELL_TEXT},
      {"since", "since_ms", CELL_TIME},  {"in", "bytes_in", CELL_NUMBER},
      {"out", "bytes_out", CELL_NUMBER}, {"queued", "queued_bytes", CELL_NUMBER},
  };
  enum { WITHOUT_TRAFFIC = 7 };
  const json_t *sessions = json_object_get(answer, "sessions");
  json_int_t total = json_integer_value(json_object_get(answer, "total"));
  bool traffic = json_object_get(json_array_get(sessions, 0), "bytes_in") != NULL;
  table_print(sessions, columns, traffic ? sizeof columns / sizeof *columns : WITHOUT_TRAFFIC,
              total > 0 ? "no session is like that" : "no player is logged in");
  rest_print(json_array_size(sessions), json_integer_value(json_object_get(answer, "fit")), total,
             "sessions");
  completeness_print(answer);
}

void ctl_print_route_stats(const json_t *answer) {
  const json_t *stats;
  const char *tier;
  json_object_foreach(json_object_get(answer, "stats"), tier, stats) {
    line_printf(tier, "%" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " used",
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
  line_printf(title, "%s, expires in %s", address, expires);
}

void ctl_print_route_get(const json_t *answer) {
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

void ctl_print_routes(const json_t *answer) {
  static const struct column columns[] = {
      {"tier", "tier", CELL_TEXT},
      {"service", "service", CELL_TEXT},
      {"color", "color", CELL_TEXT},
      {"oid", "oid", CELL_NUMBER},
      {"address", "address", CELL_TEXT},
      {"state", "state", CELL_TEXT},
      {"expires in", "expires_in_ms", CELL_DURATION},
  };
  ctl_print_route_stats(answer);
  printf("\n");
  TABLE_PRINT(json_object_get(answer, "routes"), columns, "there are no routes");
}

void ctl_print_nodes(const json_t *answer) {
  static const struct column columns[] = {
      {"service", "service", CELL_TEXT}, {"address", "address", CELL_TEXT},
      {"color", "color", CELL_TEXT},     {"weight", "weight", CELL_NUMBER},
      {"tls", "tls", CELL_FLAG},         {"state", "state", CELL_TEXT},
      {"since", "since_ms", CELL_TIME},  {"tunnels", "tunnels", CELL_NUMBER},
  };
  TABLE_PRINT(json_object_get(answer, "nodes"), columns, "no backend is known");
}

void ctl_print_kick(const json_t *answer) {
  printf("closed %" JSON_INTEGER_FORMAT "\n",
         json_integer_value(json_object_get(answer, "kicked")));
}

struct line {
  const char *title, *field;
  enum cell cell;
};

static void lines_print(const json_t *object, const struct line lines[], size_t count) {
  for (size_t i = 0; i < count; i++) {
    line_print(lines[i].title, json_object_get(object, lines[i].field), lines[i].cell);
  }
}

void ctl_print_session(const json_t *answer) {
  static const struct line lines[] = {
      {"uid", "uid", CELL_NUMBER},
      {"color", "color", CELL_TEXT},
      {"sid", "sid", CELL_NUMBER},
      {"worker", "worker", CELL_NUMBER},
      {"connection", "connection", CELL_NUMBER},
      {"address", "address", CELL_TEXT},
      {"since", "since_ms", CELL_TIME},
      {"last heard", "quiet_ms", CELL_DURATION},
      {"messages in", "messages_in", CELL_NUMBER},
      {"messages out", "messages_out", CELL_NUMBER},
      {"bytes in", "bytes_in", CELL_NUMBER},
      {"bytes out", "bytes_out", CELL_NUMBER},
      {"queued", "queued_bytes", CELL_NUMBER},
      {"pushes wait", "pushes_waiting", CELL_NUMBER},
      {"input paused", "input_paused", CELL_FLAG},
      {"output full", "output_paused", CELL_FLAG},
  };
  static const struct line path_lines[] = {
      {"round trip", "srtt_ms", CELL_MILLISECONDS},
      {"resend after", "rto_ms", CELL_MILLISECONDS},
      {"loss", "loss_percent", CELL_PERCENT},
      {"segments out", "segments_out", CELL_NUMBER},
      {"sent again", "retransmits", CELL_NUMBER},
      {"segments in", "segments_in", CELL_NUMBER},
      {"FEC recovered", "fec_recovered", CELL_NUMBER},
      {"datagrams in", "datagrams_in", CELL_NUMBER},
      {"datagrams out", "datagrams_out", CELL_NUMBER},
      {"client takes", "client_window", CELL_NUMBER},
      {"gateway takes", "gateway_window", CELL_NUMBER},
      {"in flight", "in_flight", CELL_NUMBER},
      {"stream window", "stream_window_bytes", CELL_NUMBER},
      {"streams", "streams", CELL_NUMBER},
  };
  static const struct column columns[] = {
      {"tunnel", "type", CELL_TEXT},
      {"oid", "oid", CELL_NUMBER},
      {"state", "state", CELL_TEXT},
      {"node", "address", CELL_TEXT},
      {"messages wait", "queued_messages", CELL_NUMBER},
      {"bytes", "queued_bytes", CELL_NUMBER},
  };
  const json_t *session = json_object_get(answer, "session");
  const json_t *path = json_object_get(answer, "path");
  lines_print(session, lines, sizeof lines / sizeof *lines);
  if (path) {
    lines_print(path, path_lines, sizeof path_lines / sizeof *path_lines);
  }
  line_print("siblings", json_object_get(answer, "siblings"), CELL_NUMBER);
  line_printf(
      "gateway route", "%s",
      json_is_true(json_object_get(answer, "route_written")) ? "written" : "not yet written");
  printf("\n");
  TABLE_PRINT(json_object_get(answer, "tunnels"), columns, "no tunnel is open");
  completeness_print(answer);
}

void ctl_print_ban(const json_t *answer) {
  const json_t *until = json_object_get(answer, "until_ms");
  char who[CELL_BYTES], when[CELL_BYTES];
  cell_format(json_object_get(answer, "who"), CELL_TEXT, who);
  cell_format(until, CELL_TIME, when);
  printf("banned %s %s%s; closed %" JSON_INTEGER_FORMAT "\n", who, until ? "until " : "for ever",
         until ? when : "", json_integer_value(json_object_get(answer, "closed")));
}

void ctl_print_unban(const json_t *answer) {
  char who[CELL_BYTES];
  cell_format(json_object_get(answer, "who"), CELL_TEXT, who);
  printf("%s is banned no more\n", who);
}

void ctl_print_bans(const json_t *answer) {
  static const struct column columns[] = {
      {"who", "who", CELL_TEXT}, {"since", "since_ms", CELL_TIME}, {"until", "until_ms", CELL_TIME},
      {"by", "by", CELL_TEXT},   {"reason", "reason", CELL_TEXT},
  };
  const json_t *bans = json_object_get(answer, "bans");
  json_int_t total = json_integer_value(json_object_get(answer, "total"));
  json_int_t pending = json_integer_value(json_object_get(answer, "pending_writes"));
  TABLE_PRINT(bans, columns, "nobody is banned");
  rest_print(json_array_size(bans), total, total, "bans");
  if (pending > 0) {
    printf("\n%" JSON_INTEGER_FORMAT " changes wait for Redis\n", pending);
  }
}

void ctl_print_push(const json_t *answer) {
  char fate[CELL_BYTES];
  cell_format(json_object_get(answer, "fate"), CELL_TEXT, fate);
  printf("pushed: %s\n", fate);
}

void ctl_print_log(const json_t *answer) {
  static const struct column columns[] = {
      {"module", "module", CELL_TEXT},
      {"level", "level", CELL_TEXT},
      {"for", "for_ms", CELL_DURATION},
      {"then", "then", CELL_TEXT},
  };
  line_print("configured", json_object_get(answer, "configured"), CELL_TEXT);
  printf("\n");
  TABLE_PRINT(json_object_get(answer, "modules"), columns, "");
}

void ctl_print_log_reopen(const json_t *answer) {
  (void)answer;
  printf("reopened\n");
}

// --- What becomes of the gateway itself ------------------------------------------------

// Those settings of an answer to reload that change in this way. Returns how many.
static size_t print_changed(const json_t *changed, const char *how, const char *title) {
  const json_t *one;
  size_t i, count = 0;
  json_array_foreach(changed, i, one) {
    const char *way = json_string_value(json_object_get(one, "how"));
    if (way && strcmp(way, how) == 0) {
      line_print(count++ == 0 ? title : "", json_object_get(one, "setting"), CELL_TEXT);
    }
  }
  return count;
}

void ctl_print_reload(const json_t *answer) {
  const json_t *changed = json_object_get(answer, "changed"), *note;
  char generation[64] = "new workers";
  size_t i, count = 0;
  if (json_object_get(answer, "generation")) {
    snprintf(generation, sizeof generation, "generation %" JSON_INTEGER_FORMAT,
             json_integer_value(json_object_get(answer, "generation")));
  }
  count += print_changed(changed, "in_place", "changed");
  count += print_changed(changed, "new_generation", generation);
  count += print_changed(changed, "restart", "at a restart");
  if (count == 0) {
    printf("nothing has changed\n");
  }
  json_array_foreach(json_object_get(answer, "notes"), i, note) {
    line_print(i == 0 ? "note" : "", note, CELL_TEXT);
  }
}

void ctl_print_drain(const json_t *answer) {
  const json_t *drain = json_object_get(answer, "drain");
  line_print("state", json_object_get(drain, "state"), CELL_TEXT);
  line_print("sessions", json_object_get(drain, "sessions"), CELL_NUMBER);
  if (json_object_get(drain, "sessions_at_start")) {
    line_print("at its start", json_object_get(drain, "sessions_at_start"), CELL_NUMBER);
  }
  if (json_object_get(drain, "left_ms")) {
    line_print("done within", json_object_get(drain, "left_ms"), CELL_DURATION);
  }
}

void ctl_print_undrain(const json_t *answer) {
  (void)answer;
  printf("players are taken again\n");
}

void ctl_print_worker_restart(const json_t *answer) {
  printf("worker %" JSON_INTEGER_FORMAT " drains; its successor is worker %" JSON_INTEGER_FORMAT
         "\n",
         json_integer_value(json_object_get(answer, "worker")),
         json_integer_value(json_object_get(answer, "successor")));
}

void ctl_print_upgrade(const json_t *answer) {
  char version[CELL_BYTES];
  cell_format(json_object_get(answer, "version"), CELL_TEXT, version);
  printf("version %s runs, with generation %" JSON_INTEGER_FORMAT "\n", version,
         json_integer_value(json_object_get(answer, "generation")));
}
