// What a worker derives from its configuration, at its start and again when the master sends
// another one. All else reads worker->config where it needs it, and so goes by the new one at once.
#ifndef JANUS_WORKER_SETTINGS_H
#define JANUS_WORKER_SETTINGS_H

#include "common/error.h"

struct channel_settings;
struct worker;

// From worker->config. ERROR_MEMORY: something stays as it was before.
int settings_apply(struct worker *worker) MUST_CHECK;
// The keys of TLS and of logins, as the master publishes them now.
void settings_take_keys(struct worker *worker);
// Takes them over, but for what only a new worker can.
void settings_on_change(struct worker *worker, const struct channel_settings *settings);
// Logs what is wrong with them: a config_report, which needs no context.
void settings_report_fault(const char *fault, void *context);

#endif
