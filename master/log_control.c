#include "master/log_control.h"

#include "common/log_output.h"

#define LOG_MODULE LOG_MODULE_LOG

static void tell_workers(struct log_control *control) {
  struct channel_log_levels levels;
  channel_log_levels_now(&levels);
  for (int i = 0; control->workers && i < workers_count(control->workers); i++) {
    (void)!workers_send(control->workers, i, CHANNEL_LOG_LEVELS, &levels);  // or at its start
  }
}

void log_control_init(struct log_control *control, struct workers *workers,
                      enum log_level configured) {
  control->workers = workers;
  control->configured = configured;
  for (int i = 0; i < LOG_MODULE_COUNT; i++) {
    control->lasting[i] = configured;
    control->until_ms[i] = 0;
  }
}

void log_control_set(struct log_control *control, int module, enum log_level level, int64_t for_ms,
                     int64_t now_ms) {
  for (int i = 0; i < LOG_MODULE_COUNT; i++) {
    if (module != LOG_EVERY_MODULE && i != module) {
      continue;
    }
    control->until_ms[i] = for_ms > 0 ? now_ms + for_ms : 0;
    if (for_ms <= 0) {
      control->lasting[i] = level;
    }
    log_set_level((enum log_module)i, level);
  }
  tell_workers(control);
}

void log_control_configure(struct log_control *control, enum log_level configured) {
  control->configured = configured;
  log_control_reset(control);
}

void log_control_reset(struct log_control *control) {
  log_control_set(control, LOG_EVERY_MODULE, control->configured, 0, 0);
}

void log_control_tick(struct log_control *control, int64_t now_ms) {
  bool changed = false;
  for (int i = 0; i < LOG_MODULE_COUNT; i++) {
    if (control->until_ms[i] != 0 && now_ms >= control->until_ms[i]) {
      control->until_ms[i] = 0;
      log_set_level((enum log_module)i, control->lasting[i]);
      changed = true;
    }
  }
  if (changed) {
    tell_workers(control);
  }
}

int log_control_reopen(struct log_control *control) {
  for (int i = 0; control->workers && i < workers_count(control->workers); i++) {
    (void)!workers_send(control->workers, i, CHANNEL_LOG_REOPEN, NULL);  // a dead one opens anew
  }
  return log_output_reopen();
}
