// The gateway's answers to janusctl's commands, shown to people.
#ifndef JANUS_TOOLS_CTL_ANSWERS_H
#define JANUS_TOOLS_CTL_ANSWERS_H

#include <jansson.h>

typedef void ctl_print(const json_t *answer);

ctl_print ctl_print_status, ctl_print_stats, ctl_print_workers, ctl_print_nodes;
ctl_print ctl_print_reload, ctl_print_drain, ctl_print_undrain, ctl_print_worker_restart,
    ctl_print_upgrade;
ctl_print ctl_print_sessions, ctl_print_session, ctl_print_kick, ctl_print_push;
ctl_print ctl_print_ban, ctl_print_unban, ctl_print_bans;
ctl_print ctl_print_routes, ctl_print_route_stats, ctl_print_route_get;
ctl_print ctl_print_log, ctl_print_log_reopen;

#endif
