#include "tools/ctl/look.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/counters.h"
#include "tools/ctl/table.h"

// --- Two looks compared -----------------------------------------------------------------

static double number_at(const json_t *values, const char *group, const char *name) {
  return json_number_value(json_object_get(json_object_get(values, group), name));
}

// A gateway that was started in between counts from 0 again.
static double grown(const json_t *before, const json_t *now, const char *name) {
  double was = number_at(before, "counters", name);
  double is = number_at(now, "counters", name);
  return is >= was ? is - was : is;
}

static void read_histogram(const json_t *values, const char *name,
                           struct histogram_values *histogram) {
  const json_t *one = json_object_get(json_object_get(values, "histograms"), name);
  const json_t *buckets = json_object_get(one, "buckets");
  *histogram = (struct histogram_values){.sum_us = 0};
  for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++) {
    histogram->bucket[i] = (uint64_t)json_integer_value(json_array_get(buckets, i));
  }
}

static json_t *compare_histogram(const json_t *before, const json_t *now, const char *name) {
  struct histogram_values was;
  struct histogram_values is;
  uint64_t count = 0;
  read_histogram(before, name, &was);
  read_histogram(now, name, &is);
  for (int i = 0; i <= HISTOGRAM_BOUNDS; i++) {
    is.bucket[i] -= is.bucket[i] >= was.bucket[i] ? was.bucket[i] : 0;
    count += is.bucket[i];
  }
  return json_pack("{s:I, s:f, s:f}", "count", (json_int_t)count, "p50_us",
                   histogram_quantile_us(&is, 0.5), "p99_us", histogram_quantile_us(&is, 0.99));
}

// Counters of which the growth is told, and its rate.
static const char *const counted[] = {"messages_in", "messages_out", "received_bytes", "sent_bytes",
                                      "logins"};
static const char *const levels[] = {"sessions",        "connections",      "tunnels",
                                     "queued_in_bytes", "queued_out_bytes", "pushes_waiting"};

static json_t *compare_values(const json_t *before, const json_t *now, double seconds) {
  json_t *row = json_object();
  json_t *latencies = json_object();
  for (size_t i = 0; i < sizeof counted / sizeof *counted; i++) {
    char name[64];
    double more = grown(before, now, counted[i]);
    snprintf(name, sizeof name, "%s_per_s", counted[i]);
    json_object_set_new(row, counted[i], json_integer((json_int_t)more));
    json_object_set_new(row, name, json_real(seconds > 0 ? more / seconds : 0));
  }
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
    json_object_set_new(row, levels[i],
                        json_integer((json_int_t)number_at(now, "gauges", levels[i])));
  }
  const char *name;
  const json_t *histogram;
  json_object_foreach(json_object_get(now, "histograms"), name, histogram) {
    json_object_set_new(latencies, name, compare_histogram(before, now, name));
  }
  json_object_set_new(row, "latencies", latencies);
  return row;
}

json_t *ctl_look_compare(const json_t *before, const json_t *now, double seconds) {
  json_t *rows = json_array();
  const json_t *worker;
  size_t i;
  json_array_foreach(json_object_get(now, "workers"), i, worker) {
    const json_t *was = json_array_get(json_object_get(before, "workers"), i);
    json_t *row = compare_values(was, worker, seconds);
    json_object_set(row, "worker", json_object_get(worker, "worker"));
    json_array_append_new(rows, row);
  }
  return json_pack(
      "{s:f, s:o, s:o}", "seconds", seconds, "total",
      compare_values(json_object_get(before, "total"), json_object_get(now, "total"), seconds),
      "workers", rows);
}

// --- On paper ---------------------------------------------------------------------------

static double number_of(const json_t *row, const char *name) {
  return json_number_value(json_object_get(row, name));
}

// 1234, 12.3k, 4.5M
static const char *shorten(double value, char text[16]) {
  static const char units[] = " kMGT";
  size_t unit = 0;
  while (value >= 10000 && unit < sizeof units - 2) {
    value /= 1000;
    unit++;
  }
  if (unit == 0) {
    snprintf(text, 16, "%.0f", value);
  } else {
    snprintf(text, 16, "%.1f%c", value, units[unit]);
  }
  return text;
}

static void print_row(FILE *out, const char *name, const json_t *row) {
  static const char *const columns[] = {
      "sessions",          "connections",        "tunnels",
      "messages_in_per_s", "messages_out_per_s", "received_bytes_per_s",
      "sent_bytes_per_s",  "queued_in_bytes",    "queued_out_bytes"};
  const json_t *lag = json_object_get(json_object_get(row, "latencies"), "loop_lag_seconds");
  fprintf(out, "%-7s", name);
  for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
    char text[16];
    fprintf(out, " %9s", shorten(number_of(row, columns[i]), text));
  }
  fprintf(out, " %7.2fms\n", number_of(lag, "p99_us") / 1000);
}

static void print_latencies(FILE *out, const json_t *total, double seconds) {
  static const struct {
    const char *title;
    const char *name;
  } shown[] = {
      {"message in", "message_latency_seconds{direction=\"in\"}"},
      {"message out", "message_latency_seconds{direction=\"out\"}"},
      {"login", "handshake_seconds"},
      {"tunnel opening", "tunnel_open_seconds"},
      {"Redis call", "redis_call_seconds"},
      {"etcd call", "etcd_call_seconds"},
      {"loop lag", "loop_lag_seconds"},
  };
  fprintf(out, "\n%-16s %9s %11s %11s\n", "time taken by", "a second", "p50", "p99");
  for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
    const json_t *one = json_object_get(json_object_get(total, "latencies"), shown[i].name);
    char text[16];
    if (number_of(one, "count") > 0) {
      fprintf(out, "%-16s %9s %9.3fms %9.3fms\n", shown[i].title,
              shorten(number_of(one, "count") / seconds, text), number_of(one, "p50_us") / 1000,
              number_of(one, "p99_us") / 1000);
    }
  }
}

static void print_sessions(FILE *out, const json_t *sessions) {
  const json_t *one;
  size_t i;
  fprintf(out, "\n%-20s %-20s %6s %9s %9s %9s  %s\n", "hottest sessions", "connection", "worker",
          "in/s", "out/s", "queued", "address");
  json_array_foreach(sessions, i, one) {
    char uid[CELL_BYTES];
    char connection[CELL_BYTES];
    char address[CELL_BYTES];
    char texts[3][16];
    cell_format(json_object_get(one, "uid"), CELL_TEXT, uid);
    cell_format(json_object_get(one, "connection"), CELL_TEXT, connection);
    cell_format(json_object_get(one, "address"), CELL_TEXT, address);
    fprintf(out, "%-20s %-20s %6.0f %9s %9s %9s  %s\n", uid, connection, number_of(one, "worker"),
            shorten(number_of(one, "messages_in_per_s"), texts[0]),
            shorten(number_of(one, "messages_out_per_s"), texts[1]),
            shorten(number_of(one, "queued_bytes"), texts[2]), address);
  }
}

void ctl_look_print(FILE *out, const json_t *look) {
  const json_t *total = json_object_get(look, "total");
  const json_t *row;
  size_t i;
  fprintf(out, "%-7s %9s %9s %9s %9s %9s %9s %9s %9s %9s %9s\n", "worker", "sessions", "connects",
          "tunnels", "in/s", "out/s", "inB/s", "outB/s", "queuedin", "queuedout", "lag p99");
  json_array_foreach(json_object_get(look, "workers"), i, row) {
    char name[16];
    snprintf(name, sizeof name, "%.0f", number_of(row, "worker"));
    print_row(out, name, row);
  }
  print_row(out, "total", total);
  print_latencies(out, total, number_of(look, "seconds"));
  print_sessions(out, json_object_get(look, "sessions"));
  if (json_is_false(json_object_get(look, "complete"))) {
    fprintf(out, "Not all of them: a worker did not answer in time, or had too much to say.\n");
  }
}

// --- Cut to a screen ----------------------------------------------------------------------

// As many bytes as fill no more than the columns, no character broken.
static int cut(const char *line, size_t len, size_t columns) {
  size_t shown = len < columns ? len : columns;
  while (shown > 0 && shown < len && ((unsigned char)line[shown] & 0xc0) == 0x80) {
    shown--;
  }
  return (int)shown;
}

void ctl_look_paint(FILE *out, const char *text, const char *last, size_t columns, size_t lines) {
  fputs("\033[H", out);
  // The rest of a line goes before the line comes: behind a full one the cursor is still on the
  // last column, and would take what stands there along.
  for (size_t line = 1; *text != '\0' && line < lines; line++) {
    size_t len = strcspn(text, "\n");
    fprintf(out, "\033[K%.*s\r\n", cut(text, len, columns), text);
    text += len + (text[len] == '\n');
  }
  fprintf(out, "\033[J%.*s", cut(last, strlen(last), columns), last);
}
