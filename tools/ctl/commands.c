#include "tools/ctl/commands.h"

#include <stdlib.h>
#include <string.h>

#include "tools/ctl/answers.h"
#include "tools/ctl/drain.h"
#include "tools/ctl/top.h"
#include "tools/ctl/trace.h"

enum { TIMEOUT_S = 5, START_TIMEOUT_S = 90 };

#define UID \
  { "UID", CTL_UID, false }
#define UID_OR_OPTIONS \
  { "UID", CTL_UID, true }
#define CHOSEN_SESSIONS                                                              \
  (CTL_BIT(CTL_UID) | CTL_BIT(CTL_COLOR) | CTL_BIT(CTL_SID) | CTL_BIT(CTL_ADDRESS) | \
   CTL_BIT(CTL_WORKER))

const struct ctl_command ctl_commands[] = {
    {
        .name = "status",
        .group = CTL_LOOKING,
        .summary = "version, listeners, links, and how much there is of everything",
        .read_only = true,
        .print = ctl_print_status,
        .examples = {"janusctl status", "janusctl status --json | jq .sessions"},
    },
    {
        .name = "stats",
        .group = CTL_LOOKING,
        .summary = "counters and gauges, in total and for each worker",
        .read_only = true,
        .print = ctl_print_stats,
        .examples = {"janusctl stats", "janusctl stats --json | jq .total.counters.logins"},
    },
    {
        .name = "top",
        .group = CTL_LOOKING,
        .summary = "live: throughput, times taken, queues, the hottest sessions",
        .details = "It goes on until q is pressed; into a pipe it writes plain text, with --json "
                   "an object a line for each look.",
        .options = CTL_BIT(CTL_INTERVAL) | CTL_BIT(CTL_COUNT),
        .read_only = true,
        .run = ctl_top_run,
        .examples = {"janusctl top", "janusctl top --interval 5s --count 10 --json"},
    },
    {
        .name = "workers",
        .group = CTL_LOOKING,
        .summary = "the worker processes, of each generation",
        .read_only = true,
        .print = ctl_print_workers,
        .examples = {"janusctl workers"},
    },
    {
        .name = "nodes",
        .group = CTL_LOOKING,
        .summary = "the backends known",
        .read_only = true,
        .print = ctl_print_nodes,
        .examples = {"janusctl nodes"},
    },

    {
        .name = "sessions",
        .group = CTL_PLAYERS,
        .summary = "those logged in, or some of them",
        .options = CHOSEN_SESSIONS | CTL_BIT(CTL_SORT) | CTL_BIT(CTL_LIMIT),
        .read_only = true,
        .print = ctl_print_sessions,
        .examples = {"janusctl sessions --sort traffic --limit 10",
                     "janusctl sessions --color blue --address 192.0.2.0/24"},
    },
    {
        .name = "session",
        .group = CTL_PLAYERS,
        .summary = "one player, in detail",
        .details = "Ends with 1 when the player is not here. Before a negative UID goes --, or "
                   "--uid instead.",
        .words = {UID},
        .options = CTL_BIT(CTL_UID),
        .read_only = true,
        .print = ctl_print_session,
        .examples = {"janusctl session 10001", "janusctl session -- -5"},
    },
    {
        .name = "kick",
        .group = CTL_PLAYERS,
        .summary = "closes sessions",
        .details = "Those of a player, or all that fit the options. Ends with 1 when there is none "
                   "like that.",
        .words = {UID_OR_OPTIONS},
        .options = CHOSEN_SESSIONS | CTL_BIT(CTL_CODE) | CTL_BIT(CTL_REASON),
        .print = ctl_print_kick,
        .examples = {"janusctl kick 10001 --reason 'asked by support'",
                     "janusctl kick --color blue --code waiting"},
    },
    {
        .name = "ban",
        .group = CTL_PLAYERS,
        .summary = "closes a player's or a network's sessions and keeps new ones out",
        .details = "For ever, unless --for says for how long.",
        .words = {UID_OR_OPTIONS},
        .options = CTL_BIT(CTL_UID) | CTL_BIT(CTL_ADDRESS) | CTL_BIT(CTL_FOR) | CTL_BIT(CTL_REASON),
        .print = ctl_print_ban,
        .examples = {"janusctl ban 10001 --reason cheating",
                     "janusctl ban --address 192.0.2.0/24 --for 24h --reason flooding"},
    },
    {
        .name = "unban",
        .group = CTL_PLAYERS,
        .summary = "lets a player or a network in again",
        .details = "Ends with 1 when there is no such ban.",
        .words = {UID_OR_OPTIONS},
        .options = CTL_BIT(CTL_UID) | CTL_BIT(CTL_ADDRESS),
        .print = ctl_print_unban,
        .examples = {"janusctl unban 10001", "janusctl unban --address 192.0.2.0/24"},
    },
    {
        .name = "bans",
        .group = CTL_PLAYERS,
        .summary = "who is banned",
        .options = CTL_BIT(CTL_LIMIT),
        .read_only = true,
        .print = ctl_print_bans,
        .examples = {"janusctl bans --limit 1000"},
    },
    {
        .name = "push",
        .group = CTL_PLAYERS,
        .summary = "sends a player a message by hand",
        .details = "Without --color it goes by the gateway's own.",
        .words = {UID},
        .options = CTL_BIT(CTL_UID) | CTL_BIT(CTL_COLOR) | CTL_BIT(CTL_MOD) | CTL_BIT(CTL_SEQ) |
                   CTL_BIT(CTL_OBJ) | CTL_BIT(CTL_DATA_VERSION) | CTL_BIT(CTL_DATA) |
                   CTL_BIT(CTL_HEX),
        .needed = CTL_BIT(CTL_MOD) | CTL_BIT(CTL_SEQ),
        .print = ctl_print_push,
        .examples = {"janusctl push 10001 --mod 3 --seq 7 --data hello",
                     "janusctl push 10001 --mod 3 --seq 7 --hex '00 ff 10'"},
    },
    {
        .name = "trace",
        .group = CTL_PLAYERS,
        .summary = "follows one player live: each packet, without what it carries",
        .details = "It goes on until it is interrupted, also when the player is not here yet. With "
                   "--json, an object a line.",
        .words = {UID},
        .options = CTL_BIT(CTL_UID) | CTL_BIT(CTL_COLOR) | CTL_BIT(CTL_CONNECTION) |
                   CTL_BIT(CTL_FOR) | CTL_BIT(CTL_COUNT) | CTL_BIT(CTL_ONCE),
        .run = ctl_trace_run,
        .examples = {"janusctl trace 10001", "janusctl trace 10001 --for 10m --once"},
    },

    {
        .name = "routes",
        .group = CTL_PLACES,
        .summary = "who is where, as the workers see it",
        .details = "Also as `routes list`.",
        .options = CTL_BIT(CTL_TIER) | CTL_BIT(CTL_LIMIT),
        .read_only = true,
        .print = ctl_print_routes,
        .examples = {"janusctl routes --tier player --limit 20"},
    },
    {
        .name = "routes get",
        .group = CTL_PLACES,
        .summary = "one route, and what the store says",
        .details = "TIER is gateway, player or object, OID the number of the player or the object. "
                   "Without --color it is the gateway's own.",
        .words = {{"TIER", CTL_TIER, false}, {"OID", CTL_OID, false}},
        .options = CTL_BIT(CTL_COLOR) | CTL_BIT(CTL_SERVICE),
        .read_only = true,
        .print = ctl_print_route_get,
        .examples = {"janusctl routes get player 10001 --color blue"},
    },
    {
        .name = "routes stats",
        .group = CTL_PLACES,
        .summary = "how many routes there are, and room for them",
        .read_only = true,
        .print = ctl_print_route_stats,
        .examples = {"janusctl routes stats"},
    },

    {
        .name = "reload",
        .group = CTL_RUNNING,
        .summary = "reads the configuration",
        .details = "A faulty one changes nothing, and each fault is told with file, line and key. "
                   "Else it says what has changed at once, what has new workers, and what waits "
                   "for a restart.",
        .timeout_s = START_TIMEOUT_S,
        .print = ctl_print_reload,
        .examples = {"janusctl reload"},
    },
    {
        .name = "drain",
        .group = CTL_RUNNING,
        .summary = "takes no new players, and lets those here go",
        .details = "They stay for --timeout at most, then the rest is told to come back later, "
                   "spread over --spread. Progress is shown until the last one has left: then it "
                   "ends with 0, and with 1 when somebody undrains it.",
        .options =
            CTL_BIT(CTL_TIMEOUT) | CTL_BIT(CTL_SPREAD) | CTL_BIT(CTL_WAIT) | CTL_BIT(CTL_NO_WAIT),
        .run = ctl_drain_run,
        .examples = {"janusctl drain", "janusctl drain --timeout 10m --spread 2m",
                     "janusctl drain --no-wait"},
    },
    {
        .name = "drain status",
        .group = CTL_RUNNING,
        .summary = "whether it drains, and how many players are left",
        .read_only = true,
        .print = ctl_print_drain,
        .examples = {"janusctl drain status"},
    },
    {
        .name = "undrain",
        .group = CTL_RUNNING,
        .summary = "takes players again",
        .print = ctl_print_undrain,
        .examples = {"janusctl undrain"},
    },
    {
        .name = "worker restart",
        .group = CTL_RUNNING,
        .summary = "replaces one worker by a new one",
        .details = "New players go to its successor; its own stay as those of a drain do. N is the "
                   "number that `janusctl workers` shows.",
        .words = {{"N", CTL_WORKER, false}},
        .options = CTL_BIT(CTL_TIMEOUT) | CTL_BIT(CTL_SPREAD),
        .timeout_s = START_TIMEOUT_S,
        .print = ctl_print_worker_restart,
        .examples = {"janusctl worker restart 0", "janusctl worker restart 1 --timeout 1h"},
    },
    {
        .name = "upgrade",
        .group = CTL_RUNNING,
        .summary = "goes over to a new version without dropping a player",
        .details = "The new janusd takes over the sockets; players stay with the old workers until "
                   "they leave or the time of a drain is up. If it does not come up, the old one "
                   "carries on, and the answer says why.",
        .options = CTL_BIT(CTL_PROGRAM),
        .timeout_s = START_TIMEOUT_S,
        .print = ctl_print_upgrade,
        .examples = {"janusctl upgrade", "janusctl upgrade --program /opt/janus/bin/janusd"},
    },

    {
        .name = "log",
        .group = CTL_LOG,
        .summary = "the level of each module; with LEVEL, sets it",
        .details = "LEVEL is debug, info, warn or error, of all modules or of one. Setting one "
                   "changes the gateway.",
        .words = {{"LEVEL", CTL_LEVEL, true}},
        .options = CTL_BIT(CTL_MODULE) | CTL_BIT(CTL_FOR),
        .read_only = true,
        .print = ctl_print_log,
        .examples = {"janusctl log", "janusctl log debug --module tunnel --for 10m"},
    },
    {
        .name = "log reset",
        .group = CTL_LOG,
        .summary = "the level that is configured, for all modules",
        .print = ctl_print_log,
        .examples = {"janusctl log reset"},
    },
    {
        .name = "log reopen",
        .group = CTL_LOG,
        .summary = "opens the log's file anew, after it was renamed",
        .print = ctl_print_log_reopen,
        .examples = {"janusctl log reopen"},
    },
};
const size_t ctl_command_count = sizeof ctl_commands / sizeof *ctl_commands;

const struct ctl_command *ctl_command_named(const char *name) {
  for (size_t i = 0; i < ctl_command_count; i++) {
    if (strcmp(name, ctl_commands[i].name) == 0) {
      return &ctl_commands[i];
    }
  }
  return NULL;
}

const char *ctl_group_title(enum ctl_group group) {
  static const char *const titles[CTL_GROUP_COUNT] = {
      [CTL_LOOKING] = "How it is",   [CTL_PLAYERS] = "Players",
      [CTL_PLACES] = "Who is where", [CTL_RUNNING] = "The gateway itself",
      [CTL_LOG] = "The log",
  };
  return titles[group];
}

static int ask_once(const struct ctl_call *call) {
  int status;
  json_t *answer = ctl_ask(&call->gateway, call->request, &status);
  if (!answer) {
    return status;
  }
  if (call->gateway.as_json) {
    json_dumpf(answer, stdout, JSON_INDENT(2));
    printf("\n");
  } else {
    call->command->print(answer);
  }
  json_decref(answer);
  return ctl_flush(&call->gateway);
}

int ctl_command_run(const struct ctl_call *call) {
  struct ctl_call own = *call;
  own.gateway.timeout_s = call->command->timeout_s > 0 ? call->command->timeout_s : TIMEOUT_S;
  return call->command->run ? call->command->run(&own) : ask_once(&own);
}
