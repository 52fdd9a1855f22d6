#include "master/trace_exporter.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "common/backoff.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "proto/otlp_trace.pb-c.h"

#define LOG_MODULE LOG_MODULE_TRACE

enum {
  DELAY_MS = 500,       // from the first span that waits to its export
  EXPORT_SPANS = 2048,  // of one export, about; then it does not wait
  EXPORT_BYTES = 1 << 20,
  BACKOFF_MS = 500,
  BACKOFF_MAX_MS = 30000,
  RETRY_AFTER_MAX_MS = 120000,
  GIVE_UP_MS = 300000,
  ANSWER_MAX_BYTES = 64 << 10,
  RESOURCE_ATTRIBUTES = 8,  // of our own
};

// What a worker handed over at once.
struct batch {
  STAILQ_ENTRY(batch) link;
  struct channel_spans about;
  uint8_t listed[];
};
STAILQ_HEAD(batches, batch);

struct trace_exporter {
  struct event_base *base;
  const struct trace_settings *settings;
  const struct config *config;
  struct counters *counters;
  CURLM *multi;
  CURL *easy;
  struct curl_slist *headers;
  struct event *multi_timer;
  struct event *timer;  // the next export, or the next try

  struct batches waiting;
  size_t waiting_spans;
  size_t waiting_bytes;

  // The export under way, or to be tried again.
  uint8_t *body;
  size_t body_len;
  size_t body_spans;
  bool sending;
  bool ending;
  uint32_t failures;
  int64_t since_ms;
  uint8_t answer[ANSWER_MAX_BYTES];
  size_t answer_len;
  struct log_limit log_limit;
};

// --- The request -----------------------------------------------------------------------

struct resource {
  size_t count;
  Otlp__KeyValue *list[RESOURCE_ATTRIBUTES + TRACE_PAIRS_MAX];
  Otlp__KeyValue pairs[RESOURCE_ATTRIBUTES + TRACE_PAIRS_MAX];
  Otlp__AnyValue values[RESOURCE_ATTRIBUTES + TRACE_PAIRS_MAX];
};

// The first of a name stays.
static void add(struct resource *resource, const char *key, const char *text) {
  for (size_t i = 0; i < resource->count; i++) {
    if (strcmp(resource->pairs[i].key, key) == 0) {
      return;
    }
  }
  Otlp__KeyValue *pair = &resource->pairs[resource->count];
  Otlp__AnyValue *value = &resource->values[resource->count];
  otlp__key_value__init(pair);
  otlp__any_value__init(value);
  value->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
  value->string_value = (char *)(uintptr_t)text;
  pair->key = (char *)(uintptr_t)key;
  pair->value = value;
  resource->list[resource->count++] = pair;
}

static void describe(const struct trace_exporter *exporter, struct resource *resource, char *host,
                     size_t host_size) {
  const struct trace_settings *settings = exporter->settings;
  const struct config *config = exporter->config;
  resource->count = 0;
  host[0] = '\0';
  gethostname(host, host_size - 1);
  host[host_size - 1] = '\0';
  add(resource, "service.name", settings->service);
  for (size_t i = 0; i < settings->attributes.count; i++) {
    add(resource, settings->attributes.pairs[i].key, settings->attributes.pairs[i].value);
  }
  add(resource, "service.version", config->label.version);
  add(resource, "service.instance.id", config->server.grpc.advertise);
  add(resource, "host.name", host);
  add(resource, "telemetry.sdk.name", "janus");
  add(resource, "telemetry.sdk.language", "c");
  add(resource, "telemetry.sdk.version", JANUS_VERSION);
  add(resource, "deployment.environment.name", config->label.profile);
}

// Packs the spans, which stand in listed one after the other, into the body.
static bool pack(struct trace_exporter *exporter, ProtobufCBinaryData *spans, size_t count) {
  Otlp__ExportTraceServiceRequest request = OTLP__EXPORT_TRACE_SERVICE_REQUEST__INIT;
  Otlp__ResourceSpans of_resource = OTLP__RESOURCE_SPANS__INIT;
  Otlp__ScopeSpans of_scope = OTLP__SCOPE_SPANS__INIT;
  Otlp__InstrumentationScope scope = OTLP__INSTRUMENTATION_SCOPE__INIT;
  Otlp__Resource packed_resource = OTLP__RESOURCE__INIT;
  Otlp__ResourceSpans *of_resources[] = {&of_resource};
  Otlp__ScopeSpans *of_scopes[] = {&of_scope};
  struct resource resource;
  char host[256];
  describe(exporter, &resource, host, sizeof host);
  packed_resource.attributes = resource.list;
  packed_resource.n_attributes = resource.count;
  scope.name = (char *)(uintptr_t) "janus-gate";
  scope.version = (char *)(uintptr_t)JANUS_VERSION;
  of_scope.scope = &scope;
  of_scope.spans = spans;
  of_scope.n_spans = count;
  of_resource.resource = &packed_resource;
  of_resource.scope_spans = of_scopes;
  of_resource.n_scope_spans = 1;
  request.resource_spans = of_resources;
  request.n_resource_spans = 1;
  exporter->body = malloc(otlp__export_trace_service_request__get_packed_size(&request));
  if (exporter->body) {
    exporter->body_len = otlp__export_trace_service_request__pack(&request, exporter->body);
  }
  return exporter->body != NULL;
}

static void drop(struct trace_exporter *exporter, size_t spans) {
  counters_add(exporter->counters, COUNTER_SPANS_DROPPED, spans);
}

static void take_out_first(struct trace_exporter *exporter) {
  struct batch *batch = STAILQ_FIRST(&exporter->waiting);
  STAILQ_REMOVE_HEAD(&exporter->waiting, link);
  exporter->waiting_spans -= batch->about.count;
  exporter->waiting_bytes -= batch->about.bytes;
  free(batch);
}

// As much of what waits as goes into one export, as the body.
static void take_body(struct trace_exporter *exporter) {
  size_t spans = 0;
  size_t bytes = 0;
  size_t batches = 0;
  struct batch *batch;
  STAILQ_FOREACH(batch, &exporter->waiting, link) {
    if (batches > 0 &&
        (spans + batch->about.count > EXPORT_SPANS || bytes + batch->about.bytes > EXPORT_BYTES)) {
      break;
    }
    spans += batch->about.count;
    bytes += batch->about.bytes;
    batches++;
  }
  ProtobufCBinaryData *list = malloc(spans * sizeof *list);
  size_t at = 0;
  batch = STAILQ_FIRST(&exporter->waiting);
  for (size_t i = 0; list && i < batches; i++, batch = STAILQ_NEXT(batch, link)) {
    uint8_t *listed = batch->listed;
    for (uint32_t j = 0; j < batch->about.count; j++) {
      uint32_t size;
      memcpy(&size, listed, sizeof size);
      list[at++] = (ProtobufCBinaryData){size, listed + sizeof size};
      listed += sizeof size + size;
    }
  }
  if (!list || !pack(exporter, list, spans)) {
    drop(exporter, spans);
  }
  exporter->body_spans = spans;
  exporter->since_ms = clock_monotonic_ms();
  exporter->failures = 0;
  free(list);
  while (batches-- > 0) {
    take_out_first(exporter);
  }
}

static void send_body(struct trace_exporter *exporter) {
  exporter->answer_len = 0;
  exporter->sending = true;
  curl_easy_setopt(exporter->easy, CURLOPT_POSTFIELDS, exporter->body);
  curl_easy_setopt(exporter->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)exporter->body_len);
  curl_multi_add_handle(exporter->multi, exporter->easy);
}

// Sends the body, or first makes one of what waits.
static void go_on(struct trace_exporter *exporter) {
  if (exporter->sending) {
    return;
  }
  if (!exporter->body && !STAILQ_EMPTY(&exporter->waiting)) {
    take_body(exporter);
  }
  if (exporter->body) {
    send_body(exporter);
  } else if (!STAILQ_EMPTY(&exporter->waiting)) {
    loop_start_timer(exporter->timer, DELAY_MS);  // without memory for those before
  }
}

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  go_on(owner);
}

// --- Its answer ------------------------------------------------------------------------

static void end_body(struct trace_exporter *exporter) {
  free(exporter->body);
  exporter->body = NULL;
  exporter->failures = 0;
  if (exporter->ending || exporter->waiting_spans >= EXPORT_SPANS) {
    loop_start_timer(exporter->timer, 0);
  } else if (!STAILQ_EMPTY(&exporter->waiting)) {
    loop_start_timer(exporter->timer, DELAY_MS);
  }
}

static void say_failure(struct trace_exporter *exporter, const char *why, long status,
                        const char *then) {
  uint64_t suppressed;
  if (log_limit_allow(&exporter->log_limit, clock_monotonic_ms(), &suppressed)) {
    char quoted[300];
    log_warn("trace_export_failed",
             "status=%ld why=%s spans=%zu failures=%u then=\"%s\" suppressed=%llu", status,
             log_quote(quoted, sizeof quoted, why, strlen(why)), exporter->body_spans,
             exporter->failures, then, (unsigned long long)suppressed);
  }
}

// The collector may have taken only a part.
static void on_taken(struct trace_exporter *exporter) {
  size_t rejected = 0;
  Otlp__ExportTraceServiceResponse *response =
      otlp__export_trace_service_response__unpack(NULL, exporter->answer_len, exporter->answer);
  if (response && response->partial_success && response->partial_success->rejected_spans > 0) {
    int64_t said = response->partial_success->rejected_spans;
    rejected = said < (int64_t)exporter->body_spans ? (size_t)said : exporter->body_spans;
    say_failure(exporter, response->partial_success->error_message, 200, "some are rejected");
  }
  if (response) {
    otlp__export_trace_service_response__free_unpacked(response, NULL);
  }
  counters_add(exporter->counters, COUNTER_SPANS_REJECTED, rejected);
  counters_add(exporter->counters, COUNTER_SPANS_EXPORTED, exporter->body_spans - rejected);
  end_body(exporter);
}

static void try_again(struct trace_exporter *exporter, const char *why, long status) {
  curl_off_t after_s = 0;
  int64_t wait_ms = backoff_ms(BACKOFF_MS, BACKOFF_MAX_MS, exporter->failures++);
  curl_easy_getinfo(exporter->easy, CURLINFO_RETRY_AFTER, &after_s);  // of seconds, or a date
  if (after_s > 0) {
    wait_ms = after_s < RETRY_AFTER_MAX_MS / 1000 ? after_s * 1000 : RETRY_AFTER_MAX_MS;
  }
  if (exporter->ending || clock_monotonic_ms() + wait_ms - exporter->since_ms > GIVE_UP_MS) {
    say_failure(exporter, why, status, "they are given up");
    drop(exporter, exporter->body_spans);
    end_body(exporter);
    return;
  }
  say_failure(exporter, why, status, "it is tried again");
  counters_add(exporter->counters, COUNTER_SPAN_EXPORT_RETRIES, 1);
  loop_start_timer(exporter->timer, wait_ms);
}

static void on_done(struct trace_exporter *exporter, CURLcode result) {
  long status = 0;
  curl_easy_getinfo(exporter->easy, CURLINFO_RESPONSE_CODE, &status);
  curl_multi_remove_handle(exporter->multi, exporter->easy);
  exporter->sending = false;
  if (result == CURLE_OK && status >= 200 && status <= 299) {
    on_taken(exporter);
    return;
  }
  const char *why = result == CURLE_OK ? "the collector refuses" : curl_easy_strerror(result);
  counters_add(exporter->counters, COUNTER_SPAN_EXPORT_FAILURES, 1);
  if (result != CURLE_OK || status == 429 || status == 502 || status == 503 || status == 504) {
    try_again(exporter, why, status);
  } else {
    say_failure(exporter, why, status, "they are given up");
    counters_add(exporter->counters, COUNTER_SPANS_REJECTED, exporter->body_spans);
    end_body(exporter);
  }
}

static size_t on_answer(char *bytes, size_t size, size_t count, void *owner) {
  struct trace_exporter *exporter = owner;
  size_t len = size * count;
  size_t room = ANSWER_MAX_BYTES - exporter->answer_len;
  size_t taken = len < room ? len : room;
  memcpy(exporter->answer + exporter->answer_len, bytes, taken);
  exporter->answer_len += taken;
  return len;  // what more there is does not matter
}

// --- libcurl on the loop ------------------------------------------------------------------

static void look_for_end(struct trace_exporter *exporter) {
  CURLMsg *message;
  int left;
  while ((message = curl_multi_info_read(exporter->multi, &left))) {
    if (message->msg == CURLMSG_DONE) {
      on_done(exporter, message->data.result);
    }
  }
}

static void on_ready(evutil_socket_t fd, short what, void *owner) {
  struct trace_exporter *exporter = owner;
  int running;
  int action = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
  curl_multi_socket_action(exporter->multi, fd, action, &running);
  look_for_end(exporter);
}

static void on_multi_timer(evutil_socket_t fd, short what, void *owner) {
  struct trace_exporter *exporter = owner;
  int running;
  (void)fd;
  (void)what;
  curl_multi_socket_action(exporter->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  look_for_end(exporter);
}

static int on_timer_wanted(CURLM *multi, long ms, void *owner) {
  struct trace_exporter *exporter = owner;
  (void)multi;
  if (ms < 0) {
    evtimer_del(exporter->multi_timer);
  } else {
    loop_start_timer(exporter->multi_timer, ms);
  }
  return 0;
}

static int on_watch_wanted(CURL *easy, curl_socket_t fd, int wanted, void *owner, void *context) {
  struct trace_exporter *exporter = owner;
  struct event *event = context;
  (void)easy;
  if (event) {
    event_free(event);
    curl_multi_assign(exporter->multi, fd, NULL);
  }
  if (wanted == CURL_POLL_REMOVE) {
    return 0;
  }
  short what = (short)((wanted & CURL_POLL_IN ? EV_READ : 0) |
                       (wanted & CURL_POLL_OUT ? EV_WRITE : 0) | EV_PERSIST);
  event = event_new(exporter->base, fd, what, on_ready, exporter);
  if (!event || event_add(event, NULL) != 0) {
    if (event) {
      event_free(event);
    }
    return -1;
  }
  curl_multi_assign(exporter->multi, fd, event);
  return 0;
}

// --- For the master -------------------------------------------------------------------------

void trace_exporter_take(struct trace_exporter *exporter, const struct channel_spans *spans) {
  struct batch *batch = spans->count > 0 ? malloc(sizeof *batch + spans->bytes) : NULL;
  if (!batch) {
    drop(exporter, spans->count);
    return;
  }
  batch->about = *spans;
  memcpy(batch->listed, spans + 1, spans->bytes);
  while (!STAILQ_EMPTY(&exporter->waiting) &&
         exporter->waiting_bytes + spans->bytes > (size_t)exporter->config->trace.queue_bytes) {
    drop(exporter, STAILQ_FIRST(&exporter->waiting)->about.count);
    take_out_first(exporter);
  }
  STAILQ_INSERT_TAIL(&exporter->waiting, batch, link);
  exporter->waiting_spans += spans->count;
  exporter->waiting_bytes += spans->bytes;
  if (exporter->body) {
    return;  // its end goes on with these
  }
  if (exporter->ending || exporter->waiting_spans >= EXPORT_SPANS) {
    loop_start_timer(exporter->timer, 0);
  } else if (!evtimer_pending(exporter->timer, NULL)) {
    loop_start_timer(exporter->timer, DELAY_MS);
  }
}

bool trace_exporter_flush(struct trace_exporter *exporter) {
  if (!exporter->ending) {
    exporter->ending = true;
    go_on(exporter);
  }
  return exporter->body || !STAILQ_EMPTY(&exporter->waiting);
}

void trace_exporter_resume(struct trace_exporter *exporter) {
  if (exporter) {
    exporter->ending = false;
  }
}

// False: out of memory.
static bool set_up_request(struct trace_exporter *exporter) {
  const struct trace_settings *settings = exporter->settings;
  bool good = true;
  for (size_t i = 0; good && i < settings->headers.count; i++) {
    char line[TRACE_PAIRS_BYTES + 4];
    snprintf(line, sizeof line, "%s: %s", settings->headers.pairs[i].key,
             settings->headers.pairs[i].value);
    struct curl_slist *longer = curl_slist_append(exporter->headers, line);
    good = longer != NULL;
    exporter->headers = longer ? longer : exporter->headers;
    explicit_bzero(line, sizeof line);
  }
  struct curl_slist *whole =
      curl_slist_append(exporter->headers, "Content-Type: application/x-protobuf");
  exporter->headers = whole ? whole : exporter->headers;
  struct curl_slist *at_once = whole ? curl_slist_append(whole, "Expect:") : NULL;
  CURL *easy = exporter->easy;
  return good && at_once && curl_easy_setopt(easy, CURLOPT_URL, settings->url) == CURLE_OK &&
         curl_easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK &&
         curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exporter->headers) == CURLE_OK &&
         curl_easy_setopt(easy, CURLOPT_USERAGENT, "janus-gate/" JANUS_VERSION) == CURLE_OK &&
         curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
         curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
         // Else a transfer that ends while the host is looked up waits for that.
         curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
         curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)settings->timeout_ms) == CURLE_OK &&
         curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_answer) == CURLE_OK &&
         curl_easy_setopt(easy, CURLOPT_WRITEDATA, exporter) == CURLE_OK;
}

struct trace_exporter *trace_exporter_new(struct event_base *base,
                                          const struct trace_settings *settings,
                                          const struct config *config, struct counters *counters) {
  struct trace_exporter *exporter = calloc(1, sizeof *exporter);
  if (!exporter || curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
    free(exporter);
    return NULL;
  }
  exporter->base = base;
  exporter->settings = settings;
  exporter->config = config;
  exporter->counters = counters;
  STAILQ_INIT(&exporter->waiting);
  exporter->multi = curl_multi_init();
  exporter->easy = curl_easy_init();
  exporter->multi_timer = evtimer_new(base, on_multi_timer, exporter);
  exporter->timer = evtimer_new(base, on_timer, exporter);
  if (!exporter->multi || !exporter->easy || !exporter->multi_timer || !exporter->timer ||
      !set_up_request(exporter)) {
    trace_exporter_free(exporter);
    return NULL;
  }
  curl_multi_setopt(exporter->multi, CURLMOPT_SOCKETFUNCTION, on_watch_wanted);
  curl_multi_setopt(exporter->multi, CURLMOPT_SOCKETDATA, exporter);
  curl_multi_setopt(exporter->multi, CURLMOPT_TIMERFUNCTION, on_timer_wanted);
  curl_multi_setopt(exporter->multi, CURLMOPT_TIMERDATA, exporter);
  return exporter;
}

void trace_exporter_free(struct trace_exporter *exporter) {
  if (!exporter) {
    return;
  }
  if (exporter->sending) {
    curl_multi_remove_handle(exporter->multi, exporter->easy);
  }
  drop(exporter, exporter->waiting_spans + (exporter->body ? exporter->body_spans : 0));
  while (!STAILQ_EMPTY(&exporter->waiting)) {
    take_out_first(exporter);
  }
  free(exporter->body);
  curl_easy_cleanup(exporter->easy);
  if (exporter->multi) {
    curl_multi_cleanup(exporter->multi);
  }
  curl_slist_free_all(exporter->headers);
  if (exporter->multi_timer) {
    event_free(exporter->multi_timer);
  }
  if (exporter->timer) {
    event_free(exporter->timer);
  }
  curl_global_cleanup();
  free(exporter);
}
