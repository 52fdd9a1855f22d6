// janusctl log: the levels, and the log's file.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/control_command.h"
#include "master/log_control.h"

#define LOG_MODULE LOG_MODULE_LOG

static const int64_t FOR_MAX_MS = 365 * 24 * 60 * 60 * INT64_C(1000);

static json_t *levels_to_json(const struct log_control *control) {
  int64_t now_ms = clock_monotonic_ms();
  json_t *modules = json_array();
  for (int i = 0; i < LOG_MODULE_COUNT; i++) {
    json_t *one = json_pack("{s:s, s:s}", "module", log_module_name((enum log_module)i), "level",
                            log_level_name(log_level_of((enum log_module)i)));
    if (control->until_ms[i] != 0) {
      json_object_set_new(one, "for_ms", json_integer((json_int_t)(control->until_ms[i] - now_ms)));
      json_object_set_new(one, "then", json_string(log_level_name(control->lasting[i])));
    }
    json_array_append_new(modules, one);
  }
  json_t *answer = control_ok();
  json_object_set_new(answer, "configured", json_string(log_level_name(control->configured)));
  json_object_set_new(answer, "modules", modules);
  return answer;
}

static json_t *unknown_module(void) {
  char text[512];
  int len = snprintf(text, sizeof text, "there is no such module; there are");
  for (int i = 0; i < LOG_MODULE_COUNT && len < (int)sizeof text; i++) {
    len += snprintf(text + len, sizeof text - (size_t)len, "%s %s", i > 0 ? "," : "",
                    log_module_name((enum log_module)i));
  }
  return control_error(text);
}

json_t *control_log(struct master *master, const json_t *request, struct question *question) {
  struct log_control *control = &master->log_control;
  const char *level_name = json_string_value(json_object_get(request, "level"));
  const char *module_name = json_string_value(json_object_get(request, "module"));
  int64_t for_ms = json_integer_value(json_object_get(request, "for_ms"));
  enum log_level level;
  enum log_module module = LOG_MODULE_COUNT;
  (void)question;
  if (!level_name) {
    return module_name || json_object_get(request, "for_ms")
               ? control_error("which level? debug, info, warn or error")
               : levels_to_json(control);
  }
  if (!log_level_from_name(level_name, &level)) {
    return control_error("there is no such level; there are debug, info, warn, error");
  }
  if (module_name && !log_module_from_name(module_name, &module)) {
    return unknown_module();
  }
  if (json_object_get(request, "for_ms") && (for_ms <= 0 || for_ms > FOR_MAX_MS)) {
    return control_error("the time is to be longer than nothing, and at most 365 days");
  }
  log_control_set(control, module_name ? (int)module : LOG_EVERY_MODULE, level, for_ms,
                  clock_monotonic_ms());
  log_warn("log_level_set", "of=%s to=%s for_ms=%lld", module_name ? module_name : "all",
           level_name, (long long)for_ms);
  return levels_to_json(control);
}

json_t *control_log_reset(struct master *master, const json_t *request, struct question *question) {
  (void)request;
  (void)question;
  log_control_reset(&master->log_control);
  log_warn("log_level_set", "of=all to=%s for_ms=0",
           log_level_name(master->log_control.configured));
  return levels_to_json(&master->log_control);
}

json_t *control_log_reopen(struct master *master, const json_t *request,
                           struct question *question) {
  char text[CONFIG_PATH_BYTES + 128];
  (void)request;
  (void)question;
  if (log_control_reopen(&master->log_control) == 0) {
    return control_ok();
  }
  snprintf(text, sizeof text, "%s can't be opened: %s", master->config.log.file, strerror(errno));
  return control_error(text);
}
