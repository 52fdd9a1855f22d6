#include "master/trace_settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/config_value.h"
#include "common/log.h"

#define LOG_MODULE LOG_MODULE_CONFIG

// That of the environment; an empty one is as good as none, as the specification has it.
static const char *variable(const char *name) {
  const char *text = getenv(name);
  return text && text[0] != '\0' ? text : NULL;
}

// The value itself may be a secret.
static void warn(const char *name, const char *wanted, const char *used) {
  log_warn("environment_malformed", "variable=%s wanted=\"%s\" used=\"%s\"", name, wanted, used);
}

// --- Pairs ---------------------------------------------------------------------------

static int hex(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

// Undoes percent-encoding in place. False: what comes of it is no line of printable text.
static bool decode(char *text) {
  char *to = text;
  for (const char *from = text; *from != '\0'; from++, to++) {
    bool is_encoded = *from == '%' && hex(from[1]) >= 0 && hex(from[2]) >= 0;
    *to = *from;
    if (is_encoded) {
      *to = (char)(hex(from[1]) << 4 | hex(from[2]));
    }
    from += is_encoded ? 2 : 0;
    if ((unsigned char)*to < 0x20 || *to == 0x7f) {
      return false;
    }
  }
  *to = '\0';
  return true;
}

static char *trimmed(char *text) {
  text += strspn(text, " \t");
  size_t len = strlen(text);
  while (len > 0 && strchr(" \t", text[len - 1])) {
    text[--len] = '\0';
  }
  return text;
}

// "key=value,key=value". All of it or nothing.
static bool pairs_parse(struct trace_pairs *pairs, const char *text) {
  char *rest = pairs->text;
  pairs->count = 0;
  if (strlen(text) >= sizeof pairs->text) {
    return false;
  }
  strcpy(pairs->text, text);  // it fits
  for (char *pair; (pair = strsep(&rest, ","));) {
    char *value = strchr(pair, '=');
    if (*trimmed(pair) == '\0') {
      continue;
    }
    if (!value || pairs->count == TRACE_PAIRS_MAX) {
      return false;
    }
    *value++ = '\0';
    pairs->pairs[pairs->count].key = trimmed(pair);
    pairs->pairs[pairs->count].value = value = trimmed(value);
    if (!decode((char *)(uintptr_t)pairs->pairs[pairs->count].key) || !decode(value) ||
        pairs->pairs[pairs->count].key[0] == '\0') {
      return false;
    }
    pairs->count++;
  }
  return true;
}

static void read_pairs(struct trace_pairs *pairs, const char *name) {
  const char *text = variable(name);
  if (text && !pairs_parse(pairs, text)) {
    pairs->count = 0;
    warn(name, "key=value,key=value", "none");
  }
}

// Often a secret, which is none of the workers' business: they inherit what is left of the
// environment.
static const char *const header_variables[TRACE_HEADER_VARIABLES] = {
    "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"};

static void take_headers(struct trace_settings *settings) {
  for (size_t i = 0; i < TRACE_HEADER_VARIABLES; i++) {
    read_pairs(&settings->headers, header_variables[i]);
    char *text = getenv(header_variables[i]);
    if (text) {
      snprintf(settings->taken[i], sizeof settings->taken[i], "%s", text);
      explicit_bzero(text, strlen(text));  // /proc shows the memory that it stood in
      unsetenv(header_variables[i]);
    }
  }
}

void trace_settings_clean_environment(void) {
  for (size_t i = 0; i < TRACE_HEADER_VARIABLES; i++) {
    unsetenv(header_variables[i]);
  }
}

void trace_settings_restore_environment(const struct trace_settings *settings) {
  for (size_t i = 0; i < TRACE_HEADER_VARIABLES; i++) {
    if (settings->taken[i][0] != '\0') {
      setenv(header_variables[i], settings->taken[i], 1);
    }
  }
}

// --- The settings ----------------------------------------------------------------------

static bool is_disabled(void) {
  const char *disabled = variable("OTEL_SDK_DISABLED");
  const char *exporter = variable("OTEL_TRACES_EXPORTER");
  if (disabled && strcasecmp(disabled, "true") != 0 && strcasecmp(disabled, "false") != 0) {
    warn("OTEL_SDK_DISABLED", "true or false", "false");
  }
  if (exporter && strcmp(exporter, "otlp") != 0 && strcmp(exporter, "none") != 0) {
    warn("OTEL_TRACES_EXPORTER", "otlp or none", "otlp");
  }
  return (disabled && strcasecmp(disabled, "true") == 0) ||
         (exporter && strcmp(exporter, "none") == 0);
}

static void warn_of_protocol(const char *name) {
  const char *protocol = variable(name);
  if (protocol && strcmp(protocol, "http/protobuf") != 0) {
    warn(name, "http/protobuf", "http/protobuf");
  }
}

static bool is_endpoint(const char *name, const char *text, const char *used) {
  bool good = config_value_is_url(text) && strlen(text) < CONFIG_PATH_BYTES;
  if (!good) {
    warn(name, "http(s)://host[:port][/path]", used[0] != '\0' ? used : "no tracing");
  }
  return good;
}

static void read_endpoint(struct trace_settings *settings, struct config *config) {
  static const char base_name[] = "OTEL_EXPORTER_OTLP_ENDPOINT";
  static const char traces_name[] = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
  char *endpoint = config->trace.endpoint;
  const char *base = variable(base_name);
  const char *traces = variable(traces_name);
  if (base && is_endpoint(base_name, base, endpoint)) {
    snprintf(endpoint, sizeof config->trace.endpoint, "%s", base);
  }
  size_t len = strlen(endpoint);
  if (len > 0) {
    snprintf(settings->url, sizeof settings->url, "%s%sv1/traces", endpoint,
             endpoint[len - 1] == '/' ? "" : "/");
  }
  if (traces && is_endpoint(traces_name, traces, settings->url)) {
    snprintf(endpoint, sizeof config->trace.endpoint, "%s", traces);
    snprintf(settings->url, sizeof settings->url, "%s", traces);
  }
}

static void read_sampler(struct config *config) {
  const char *name = variable("OTEL_TRACES_SAMPLER");
  const char *ratio = variable("OTEL_TRACES_SAMPLER_ARG");
  int kind = name ? config_value_parse_choice(TRACE_SAMPLER_CHOICES, name) : -1;
  double number;
  if (kind >= 0) {
    config->trace.sampler = (enum trace_sampler_kind)kind;
  } else if (name) {
    char used[64];
    config_value_print_choice(TRACE_SAMPLER_CHOICES, config->trace.sampler, used, sizeof used);
    warn("OTEL_TRACES_SAMPLER", TRACE_SAMPLER_CHOICES, used);
  }
  if (ratio && trace_ratio_parse(ratio, &number)) {
    snprintf(config->trace.ratio, sizeof config->trace.ratio, "%s", ratio);
  } else if (ratio) {
    warn("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1", config->trace.ratio);
  }
}

static void read_timeout(struct trace_settings *settings, const char *name) {
  enum { TIMEOUT_MAX_MS = 24 * 60 * 60 * 1000 };
  const char *text = variable(name);
  int64_t ms;
  if (text && config_value_parse_integer(text, &ms) && ms > 0 && ms <= TIMEOUT_MAX_MS) {
    settings->timeout_ms = ms;
  } else if (text) {
    char used[32];
    snprintf(used, sizeof used, "%" PRId64, settings->timeout_ms);
    warn(name, "milliseconds", used);
  }
}

void trace_settings_init(struct trace_settings *settings, struct config *config) {
  *settings = (struct trace_settings){.timeout_ms = config->trace.timeout_ms};
  take_headers(settings);  // first of all, and whether they are needed or not
  read_endpoint(settings, config);
  if (is_disabled()) {
    config->trace.endpoint[0] = '\0';
    settings->url[0] = '\0';
  }
  if (settings->url[0] == '\0') {
    return;
  }
  warn_of_protocol("OTEL_EXPORTER_OTLP_PROTOCOL");
  warn_of_protocol("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL");
  read_sampler(config);
  read_timeout(settings, "OTEL_EXPORTER_OTLP_TIMEOUT");
  read_timeout(settings, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT");
  read_pairs(&settings->attributes, "OTEL_RESOURCE_ATTRIBUTES");
  const char *service = config->label.service;
  for (size_t i = 0; i < settings->attributes.count; i++) {
    if (strcmp(settings->attributes.pairs[i].key, "service.name") == 0) {
      service = settings->attributes.pairs[i].value;
    }
  }
  service = variable("OTEL_SERVICE_NAME") ? variable("OTEL_SERVICE_NAME") : service;
  snprintf(settings->service, sizeof settings->service, "%s", service);
}
