// What the service manager (systemd, Type=notify) is told: that the gateway serves, reloads or
// stops, how it is in one line, and that its loop still turns.
//
// Each is one datagram to the socket that NOTIFY_SOCKET names. None waits, and one that can't
// be sent is lost: the gateway serves on.
#ifndef JANUS_MASTER_SERVICE_MANAGER_H
#define JANUS_MASTER_SERVICE_MANAGER_H

#include <event2/event.h>

struct service_manager;

// Takes what the service manager has set from the environment, so that no child has it, and
// shows it from the loop that we are alive, where it asks for that. NULL where there is none;
// everything below takes NULL and then does nothing.
struct service_manager *service_manager_new(struct event_base *base);
void service_manager_free(struct service_manager *manager);

// All workers serve.
void service_manager_ready(struct service_manager *manager);
// Around a reload. Not told before the gateway has been ready: it would pass for that.
void service_manager_reloading(struct service_manager *manager);
void service_manager_reloaded(struct service_manager *manager);
// From here on none of the three above is told any more.
void service_manager_stopping(struct service_manager *manager);
// For people; sent when it differs from the last one.
void service_manager_status(struct service_manager *manager, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// Puts back into the environment what was taken from it, for a program that this process
// becomes by exec.
void service_manager_restore_environment(const struct service_manager *manager);
void service_manager_clean_environment(void);  // it has not become one

#endif
