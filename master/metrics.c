#include "master/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "master/bans.h"
#include "master/http_server.h"
#include "master/master.h"
#include "master/operations_http.h"
#include "master/registry.h"
#include "master/routes.h"

enum { OF_MASTER = -1 };  // a worker's index, or this

// One process, as it is read once for the whole page.
struct process {
  int worker;
  pid_t pid;  // 0: there is none now
  struct counters_values values;
};

struct page {
  FILE *out;
  enum metrics_format format;
  const struct master *master;
  struct process *processes;  // the workers, then the master
  int count;
};

// --- Lines -----------------------------------------------------------------------------

// A counter's name ends in _total; OpenMetrics leaves that out of the family's name.
static void family(const struct page *page, const char *name, const char *type, const char *help) {
  bool suffixed = strcmp(type, "counter") == 0 && page->format == METRICS_TEXT;
  const char *suffix = suffixed ? "_total" : "";
  fprintf(page->out, "# HELP %s%s %c%s.\n# TYPE %s%s %s\n", name, suffix,
          (char)(help[0] >= 'a' && help[0] <= 'z' ? help[0] - 'a' + 'A' : help[0]), help + 1, name,
          suffix, type);
}

static void janus_family(const struct page *page, const char *name, const char *type,
                         const char *help) {
  char whole[96];
  snprintf(whole, sizeof whole, "janus_%s", name);
  family(page, whole, type, help);
}

// {worker="1"} or {worker="master"}, with more labels where there are some.
static void labels(const struct page *page, const struct process *process, const char *more) {
  const char *comma = more[0] != '\0' ? "," : "";
  if (process->worker == OF_MASTER) {
    fprintf(page->out, "{worker=\"master\"%s%s}", comma, more);
  } else {
    fprintf(page->out, "{worker=\"%d\"%s%s}", process->worker, comma, more);
  }
}

// Names are the operator's choice. The format escapes three characters in a label.
enum { LABEL_BYTES = 2 * CONFIG_TEXT_BYTES };
static const char *escape(const char *text, char escaped[LABEL_BYTES]) {
  char *at = escaped;
  for (; *text != '\0' && at < escaped + LABEL_BYTES - 2; text++) {
    if (*text == '"' || *text == '\\' || *text == '\n') {
      *at++ = '\\';
    }
    *at++ = *text == '\n' ? 'n' : *text;
  }
  *at = '\0';
  return escaped;
}

static void line(const struct page *page, const char *name, const char *suffix,
                 const struct process *process, const char *more, uint64_t value) {
  fprintf(page->out, "janus_%s%s", name, suffix);
  labels(page, process, more);
  fprintf(page->out, " %" PRIu64 "\n", value);
}

static bool keeps(const struct process *process, enum counters_keeper keeper) {
  return keeper == KEPT_BY_BOTH || (keeper == KEPT_BY_MASTER) == (process->worker == OF_MASTER);
}

// --- What the segments hold ---------------------------------------------------------------

static size_t part_count(const struct page *page, enum split_by by) {
  return by == SPLIT_BY_LISTENER_KIND ? LISTENER_KIND_COUNT
                                      : page->master->config.tunnel.type_count;
}

static void part_label(const struct page *page, enum split_by by, size_t part, char *label,
                       size_t size) {
  if (by == SPLIT_BY_LISTENER_KIND) {
    snprintf(label, size, "transport=\"%s\"", config_listener_kind_name((enum listener_kind)part));
  } else {
    char name[LABEL_BYTES];
    snprintf(label, size, "tunnel=\"%s\"",
             escape(page->master->config.tunnel.types[part].name, name));
  }
}

static void split_lines(const struct page *page, const char *name, const char *suffix, int split) {
  enum split_by by = split_about[split].by;
  for (int i = 0; i < page->count; i++) {
    for (size_t part = 0;
         part < part_count(page, by) && keeps(&page->processes[i], KEPT_BY_WORKERS); part++) {
      char label[LABEL_BYTES + 16];
      part_label(page, by, part, label, sizeof label);
      line(page, name, suffix, &page->processes[i], label,
           page->processes[i].values.split[split][part]);
    }
  }
}

// The split that a counter or gauge is the sum of; -1: none.
static int split_of(bool is_gauge, int index) {
  for (int i = 0; i < SPLIT_COUNT; i++) {
    const struct split_about *about = &split_about[i];
    if (about->is_gauge == is_gauge &&
        (is_gauge ? (int)about->gauge : (int)about->counter) == index) {
      return i;
    }
  }
  return -1;
}

static void render_counters(const struct page *page) {
  for (int i = 0; i < COUNTER_COUNT; i++) {
    const struct counters_about *about = &counter_about[i];
    int split = split_of(false, i);
    janus_family(page, about->name, "counter", about->help);
    if (split >= 0) {
      split_lines(page, about->name, "_total", split);
      continue;
    }
    for (int j = 0; j < page->count; j++) {
      if (keeps(&page->processes[j], about->keeper)) {
        line(page, about->name, "_total", &page->processes[j], "",
             page->processes[j].values.counter[i]);
      }
    }
  }
  janus_family(page, "closed", "counter",
               "connections and sessions that ended, by reason; refused connections too");
  for (int j = 0; j < page->count; j++) {
    for (int i = 0; i < CLOSE_REASON_COUNT && keeps(&page->processes[j], KEPT_BY_WORKERS); i++) {
      char label[64];
      snprintf(label, sizeof label, "reason=\"%s\"", close_reason_name((enum close_reason)i));
      line(page, "closed", "_total", &page->processes[j], label,
           page->processes[j].values.closed[i]);
    }
  }
}

static void render_gauges(const struct page *page) {
  for (int i = 0; i < GAUGE_COUNT; i++) {
    const struct counters_about *about = &gauge_about[i];
    int split = split_of(true, i);
    janus_family(page, about->name, "gauge", about->help);
    if (split >= 0) {
      split_lines(page, about->name, "", split);
      continue;
    }
    for (int j = 0; j < page->count; j++) {
      if (keeps(&page->processes[j], KEPT_BY_WORKERS)) {
        line(page, about->name, "", &page->processes[j], "", page->processes[j].values.gauge[i]);
      }
    }
  }
}

static void histogram_lines(const struct page *page, const struct histogram_about *about,
                            const struct process *process,
                            const struct histogram_values *histogram) {
  uint64_t count = 0;
  for (int i = 0; i <= HISTOGRAM_BOUNDS; i++) {
    char label[96];
    const char *comma = about->label[0] != '\0' ? "," : "";
    count += histogram->bucket[i];
    if (i < HISTOGRAM_BOUNDS) {
      snprintf(label, sizeof label, "%s%sle=\"%.7g\"", about->label, comma,
               histogram_bounds_us[i] / 1e6);
    } else {
      snprintf(label, sizeof label, "%s%sle=\"+Inf\"", about->label, comma);
    }
    line(page, about->name, "_bucket", process, label, count);
  }
  fprintf(page->out, "janus_%s_sum", about->name);
  labels(page, process, about->label);
  fprintf(page->out, " %.6f\n", (double)histogram->sum_us / 1e6);
  line(page, about->name, "_count", process, about->label, count);
}

static void render_histograms(const struct page *page) {
  const char *before = "";
  for (int i = 0; i < HISTOGRAM_COUNT; i++) {
    const struct histogram_about *about = &histogram_about[i];
    if (strcmp(before, about->name) != 0) {  // else it goes on with another label
      janus_family(page, about->name, "histogram", about->help);
    }
    before = about->name;
    for (int j = 0; j < page->count; j++) {
      if (keeps(&page->processes[j], about->keeper)) {
        histogram_lines(page, about, &page->processes[j], &page->processes[j].values.histogram[i]);
      }
    }
  }
}

// --- Processes ----------------------------------------------------------------------------

struct process_facts {
  double cpu_s;
  double started_s;  // unix time
  uint64_t virtual_bytes;
  uint64_t resident_bytes;
  uint64_t open_fds;
  uint64_t max_fds;
  uint64_t threads;
};

// The kernel tells the number as the folder's size; older ones have to be asked for each.
static uint64_t count_fds(pid_t pid) {
  char path[64];
  struct stat about;
  uint64_t count = 0;
  snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
  if (stat(path, &about) == 0 && about.st_size > 0) {
    return (uint64_t)about.st_size;
  }
  DIR *folder = opendir(path);
  struct dirent *entry;
  while (folder && (entry = readdir(folder))) {
    count += entry->d_name[0] != '.';
  }
  if (folder) {
    closedir(folder);
  }
  return count;
}

static double boot_time_s(void) {
  struct timespec wall;
  struct timespec boot;
  clock_gettime(CLOCK_REALTIME, &wall);
  clock_gettime(CLOCK_BOOTTIME, &boot);
  return (double)(wall.tv_sec - boot.tv_sec) + (double)(wall.tv_nsec - boot.tv_nsec) / 1e9;
}

// False: the process is gone.
static bool read_process(pid_t pid, struct process_facts *facts) {
  char path[64];
  char text[1024] = "";
  struct rlimit limit;
  unsigned long user;
  unsigned long system;
  unsigned long threads;
  unsigned long long started;
  unsigned long virtual_bytes;
  long pages;
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *file = fopen(path, "re");
  if (!file) {
    return false;
  }
  size_t len = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[len] = '\0';
  const char *fields = strrchr(text, ')');  // the name may have anything in it
  if (!fields || sscanf(fields + 1,
                        " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %lu "
                        "%*d %llu %lu %ld",
                        &user, &system, &threads, &started, &virtual_bytes, &pages) != 6) {
    return false;
  }
  double tick = (double)sysconf(_SC_CLK_TCK);
  *facts = (struct process_facts){
      .cpu_s = (double)(user + system) / tick,
      .started_s = boot_time_s() + (double)started / tick,
      .virtual_bytes = virtual_bytes,
      .resident_bytes = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE),
      .open_fds = count_fds(pid),
      .max_fds = prlimit(pid, RLIMIT_NOFILE, NULL, &limit) == 0 ? limit.rlim_cur : 0,
      .threads = threads,
  };
  return true;
}

static void render_processes(const struct page *page) {
  struct process_facts *facts = calloc((size_t)page->count, sizeof *facts);
  bool *found = calloc((size_t)page->count, sizeof *found);
  for (int i = 0; facts && found && i < page->count; i++) {
    pid_t pid = page->processes[i].pid;
    found[i] = pid != 0 && read_process(pid, &facts[i]);
    if (page->processes[i].worker != OF_MASTER) {
      facts[i].cpu_s += workers_retired_cpu_s(page->master->workers, page->processes[i].worker);
    }
  }
#define FAMILY(name, type, help, suffix, format, value)     \
  family(page, name, type, help);                           \
  for (int i = 0; facts && found && i < page->count; i++) { \
    if (found[i]) {                                         \
      fprintf(page->out, "%s%s", name, suffix);             \
      labels(page, &page->processes[i], "");                \
      fprintf(page->out, " " format "\n", facts[i].value);  \
    }                                                       \
  }
  FAMILY("process_cpu_seconds", "counter",
         "CPU time of the process, and of those before it in its place", "_total", "%.2f", cpu_s)
  FAMILY("process_resident_memory_bytes", "gauge", "resident memory", "", "%" PRIu64,
         resident_bytes)
  FAMILY("process_virtual_memory_bytes", "gauge", "virtual memory", "", "%" PRIu64, virtual_bytes)
  FAMILY("process_open_fds", "gauge", "open file descriptors", "", "%" PRIu64, open_fds)
  FAMILY("process_max_fds", "gauge", "file descriptors that the process may have", "", "%" PRIu64,
         max_fds)
  FAMILY("process_threads", "gauge", "threads", "", "%" PRIu64, threads)
  FAMILY("process_start_time_seconds", "gauge", "when the process was started, unix time", "",
         "%.2f", started_s)
#undef FAMILY
  free(facts);
  free(found);
}

// --- What the master knows --------------------------------------------------------------------

static void gauge_line(const struct page *page, const char *name, const char *help, double value) {
  janus_family(page, name, "gauge", help);
  fprintf(page->out, "janus_%s %.10g\n", name, value);
}

// Names of services are the operator's: bounded by his configuration.
static void render_nodes(const struct page *page) {
  const struct config *config = &page->master->config;
  struct node *nodes;
  size_t count = master_read_nodes(page->master, &nodes);
  janus_family(page, "nodes", "gauge", "backend nodes known, by service");
  for (size_t i = 0; i < config->tunnel.type_count; i++) {
    const char *service = config->tunnel.types[i].service;
    size_t known = 0;
    bool said = false;
    for (size_t j = 0; j < i; j++) {
      said = said || strcmp(config->tunnel.types[j].service, service) == 0;
    }
    for (size_t j = 0; j < count; j++) {
      known += strcmp(nodes[j].service, service) == 0;
    }
    if (!said) {
      char name[LABEL_BYTES];
      fprintf(page->out, "janus_nodes{service=\"%s\"} %zu\n", escape(service, name), known);
    }
  }
  free(nodes);
}

static void render_routes(const struct page *page) {
  struct route_table_stats stats;
  struct routes_health health;
  struct etcd_health etcd;
  route_table_stats(page->master->route_table, &stats);
  routes_health(page->master->routes, &health);
  janus_family(page, "routes", "gauge", "routes in the shared table, by tier");
  for (int i = 0; i < ROUTE_TIER_COUNT; i++) {
    fprintf(page->out, "janus_routes{tier=\"%s\"} %zu\n", route_tier_name((enum route_tier)i),
            stats.used[i]);
  }
  janus_family(page, "route_capacity", "gauge", "routes that the shared table has room for");
  for (int i = 0; i < ROUTE_TIER_COUNT; i++) {
    fprintf(page->out, "janus_route_capacity{tier=\"%s\"} %zu\n",
            route_tier_name((enum route_tier)i), stats.capacity[i]);
  }
  gauge_line(page, "route_table_bytes", "shared memory that the route table has",
             (double)route_table_bytes(page->master->route_table));
  gauge_line(page, "routes_held", "routes of open tunnels, which are kept alive",
             (double)health.held);
  gauge_line(page, "route_writes_queued", "gateway routes not yet written to Redis",
             (double)health.queued_writes);
  if (health.redis) {
    gauge_line(page, "redis_masters", "Redis masters known", (double)health.link.masters);
    gauge_line(page, "redis_masters_up", "Redis masters that answer",
               (double)health.link.masters_up);
  }
  if (registry_health(page->master->registry, &etcd)) {
    gauge_line(page, "etcd_up", "1 while etcd is being watched",
               strcmp(etcd.state, "watching") == 0);
    gauge_line(page, "registered", "1 while this gateway's key is in etcd", etcd.announced);
  }
}

static void render_master(const struct page *page) {
  const struct master *master = page->master;
  struct http_server_counts http;
  janus_family(page, "build_info", "gauge", "always 1; the version as a label");
  fprintf(page->out, "janus_build_info{version=\"%s\"} 1\n", JANUS_VERSION);
  gauge_line(page, "workers", "workers that there are to be", workers_places(master->workers));
  gauge_line(page, "workers_running", "workers that take players",
             workers_running(master->workers));
  janus_family(page, "worker_restarts", "counter", "times a worker was replaced");
  for (int i = 0; i < page->count; i++) {
    struct worker_info info;
    if (page->processes[i].worker != OF_MASTER) {
      workers_info(master->workers, page->processes[i].worker, &info);
      line(page, "worker_restarts", "_total", &page->processes[i], "", info.restarts);
    }
  }
  gauge_line(page, "workers_draining",
             "workers that keep their last players after another took over",
             workers_draining(master->workers));
  gauge_line(page, "generation", "of the workers that take new players; 1 at the start",
             (double)workers_generation(master->workers));
  gauge_line(page, "draining", "1 while the gateway is being drained", master->drain.on);
  gauge_line(page, "stopping", "1 from the signal to stop on", master->stopping);
  gauge_line(page, "directory_sessions", "sessions in the master's directory",
             (double)directory_count(master->directory));
  operations_http_counts(master->operations_http, &http);
  gauge_line(page, "http_connections", "connections to the operations port",
             (double)http.connections);
  janus_family(page, "http_late", "counter", "requests there that took too long to answer");
  fprintf(page->out, "janus_http_late_total %" PRIu64 "\n", http.late);
  janus_family(page, "http_cut", "counter", "connections there that were too slow, or idle");
  fprintf(page->out, "janus_http_cut_total %" PRIu64 "\n", http.cut);
  janus_family(page, "http_refused", "counter", "connections there that were too many");
  fprintf(page->out, "janus_http_refused_total %" PRIu64 "\n", http.refused);
}

// --- The page ---------------------------------------------------------------------------------

enum metrics_format metrics_format_wanted(const char *accept) {
  static const char type[] = "application/openmetrics-text";
  const char *found = accept ? strcasestr(accept, type) : NULL;
  if (!found) {
    return METRICS_TEXT;
  }
  size_t len = strcspn(found, ",");
  const char *quality = strcasestr(found, "q=");
  bool refused = quality && quality < found + len && strtod(quality + 2, NULL) <= 0;
  return refused ? METRICS_TEXT : METRICS_OPENMETRICS;
}

static void read_processes(struct page *page) {
  const struct master *master = page->master;
  for (int i = 0; i < page->count; i++) {
    struct process *process = &page->processes[i];
    if (i + 1 == page->count) {
      process->worker = OF_MASTER;
      process->pid = getpid();
      counters_read(master->counters, &process->values);
    } else {
      struct worker_info info;
      workers_info(master->workers, i, &info);
      process->worker = i;
      process->pid = info.pid;
      workers_read_counters(master->workers, i, &process->values);
    }
  }
}

char *metrics_render(const struct master *master, enum metrics_format format, size_t *len) {
  char *text = NULL;
  struct page page = {.format = format,
                      .master = master,
                      .count = workers_count(master->workers) + 1,
                      .out = open_memstream(&text, len)};
  page.processes = calloc((size_t)page.count, sizeof *page.processes);
  if (page.out && page.processes) {
    read_processes(&page);
    render_master(&page);
    render_gauges(&page);
    render_counters(&page);
    render_histograms(&page);
    render_nodes(&page);
    render_routes(&page);
    render_processes(&page);
    if (format == METRICS_OPENMETRICS) {
      fputs("# EOF\n", page.out);
    }
  }
  bool whole = page.processes && page.out && fflush(page.out) == 0;
  free(page.processes);
  if (page.out && fclose(page.out) != 0) {
    whole = false;
  }
  if (!whole) {
    free(text);
    text = NULL;
  }
  return text;
}

void metrics_on_request(struct http_request *request, void *owner) {
  const struct master *master = owner;
  enum metrics_format format = metrics_format_wanted(http_request_header(request, "Accept"));
  size_t len = 0;
  char *text = master->workers ? metrics_render(master, format, &len) : NULL;
  if (!text) {
    http_request_fail(request, 503, master->workers ? "out of memory" : "not started yet");
    return;
  }
  http_request_answer(request, 200,
                      format == METRICS_OPENMETRICS
                          ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                          : "text/plain; version=0.0.4; charset=utf-8",
                      text, len);
  free(text);
}
