// A new configuration while the gateway runs: what changes at once, and what does not.
#ifndef JANUS_MASTER_RELOAD_H
#define JANUS_MASTER_RELOAD_H

#include <jansson.h>

struct master;

// Reads the configuration and all files that it names. With a fault nothing changes. Else the
// certificates, keys and authorities of the listeners' TLS are replaced, connections stay, and
// what else differs is named: it waits for a restart. Logged.
//
// Returns {"ok": true, "reloaded": ["server.ws.tls", ...], "waits_for_restart": [...]} or
// {"ok": false, "error": "...", "faults": [...]}.
json_t *reload(struct master *master);

#endif
