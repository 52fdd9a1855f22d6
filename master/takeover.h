// What the program of the master hands to the one that replaces it by exec, in the same process:
// descriptors that stay open over exec, and a text in a memory file that says what they are. The
// one that comes up goes on with them; where it can't, it goes back to the program before, which
// finds the same.
#ifndef JANUS_MASTER_TAKEOVER_H
#define JANUS_MASTER_TAKEOVER_H

#include <jansson.h>

#include "common/config.h"
#include "common/counters.h"
#include "common/error.h"

struct bans;
struct kcp_mailboxes;
struct kcp_owners;
struct master;
struct node_table;
struct tls_material;

// --- Before ---------------------------------------------------------------------------

// The command line of janusd, but for what a takeover adds to it; borrowed.
struct takeover_arguments {
  const char *config_path;
  const char *worker;  // as given; NULL
};

// Becomes program, by path. asker_fd: of janusctl's connection, -1 without. Comes back only if it
// fails, with errno, and nothing has changed.
void takeover_exec(struct master *master, const char *program, int asker_fd);

// --- After ----------------------------------------------------------------------------

// What was handed on. Descriptors are close-on-exec again. NULL when fd holds no such thing.
json_t *takeover_read(int fd);
// The configuration that the one before went by, for the one that it is again. 0 or ERROR_INVALID.
int takeover_read_settings(const json_t *saved, struct config *config, config_report *report,
                           void *context) MUST_CHECK;
// The secrets by which the one before let players in. Once. False: they are not there.
bool takeover_read_secrets(const json_t *saved, struct secrets *secrets);
// Gives the tunnel types of config the places that they had before, since open tunnels, counters
// and routes know them by these. What can't be so is named in the log and stays as it was.
void takeover_keep_types(const json_t *saved, struct config *config);
// The port of gRPC, where any free one was asked for: others know the gateway by it.
void takeover_keep_port(const json_t *saved, struct config *config);
// What the one before had counted.
void takeover_keep_counters(const json_t *saved, struct counters *counters);
// The nodes that were known; and the bans, where there is no Redis that has them.
void takeover_keep_nodes(const json_t *saved, struct node_table *table, size_t capacity);
void takeover_keep_bans(const json_t *saved, struct bans *bans);
// The certificates and keys of the listeners, for the program that it is again: their files may be
// others by now. 0 or an error.
int takeover_read_tls(const json_t *saved, struct tls_material *material) MUST_CHECK;
// The table that the workers, who serve on, write. NULL with the error.
struct kcp_owners *takeover_kcp_owners(const json_t *saved, int *error);
// ERROR_INVALID: there are none.
struct kcp_mailboxes *takeover_kcp_mailboxes(const json_t *saved, int *error);
// Has listeners_open* find the sockets that were open before.
void takeover_offer_sockets(const json_t *saved);
// -1: there is none.
int takeover_fd(const json_t *saved, const char *name);

// There is no way back any more: what only that needed is closed, the keys of before among it, and
// saved is freed. Accepts NULL.
void takeover_end(json_t *saved);

// It can't go on: becomes the program before once more, which is told why. Comes back only if
// there is none, or none any more. secrets: as they were read; NULL if they were not.
void takeover_go_back(const json_t *saved, const struct takeover_arguments *arguments,
                      const struct secrets *secrets, const char *why);

#endif
