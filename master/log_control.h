// The levels of the log at run time: what janusctl sets, for how long, and what the workers are
// told of it.
#ifndef JANUS_MASTER_LOG_CONTROL_H
#define JANUS_MASTER_LOG_CONTROL_H

#include <stdint.h>

#include "common/log.h"
#include "master/workers.h"

enum { LOG_EVERY_MODULE = LOG_MODULE_COUNT };

// As log_setup has set them. Borrows the workers, who are told of every change; one that is
// started later has the levels from workers.h.
struct log_control {
  struct workers *workers;
  enum log_level configured;
  enum log_level lasting[LOG_MODULE_COUNT];  // to which a level for a time goes back
  int64_t until_ms[LOG_MODULE_COUNT];        // monotonic; 0: for good
};

void log_control_init(struct log_control *control, struct workers *workers,
                      enum log_level configured);
// Another level is configured, which counts at once.
void log_control_configure(struct log_control *control, enum log_level configured);
// Of one module, or of every one. for_ms 0: for good.
void log_control_set(struct log_control *control, int module, enum log_level level, int64_t for_ms,
                     int64_t now_ms);
// As configured.
void log_control_reset(struct log_control *control);
// Each second.
void log_control_tick(struct log_control *control, int64_t now_ms);
// Here and in every worker. Nonzero, with errno: the file can't be opened here.
int log_control_reopen(struct log_control *control);

#endif
