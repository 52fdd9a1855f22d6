// A new configuration while the gateway runs: what changes at once, what makes a new generation of
// workers, and what waits for a restart.
#ifndef JANUS_MASTER_RELOAD_H
#define JANUS_MASTER_RELOAD_H

#include <jansson.h>

struct master;

// Reads the configuration and all files that it names, and checks it as a whole. With a fault
// nothing changes. Else all is taken over that can be without cutting a player, and the rest is
// named. Logged.
//
// Returns {"ok": true, "changed": [{"setting": "limits.idle_timeout", "how": "in_place"}, ...],
// "generation": of the new workers, if there are any, "notes": [text, ...]} or
// {"ok": false, "error": "...", "faults": [...]}. how is that of config_change_name.
json_t *reload(struct master *master);

#endif
