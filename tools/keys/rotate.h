// New keys for a gateway that runs with others: what stood in secret.conf is kept in
// secret.previous, good until a time to come.
#ifndef JANUS_TOOLS_KEYS_ROTATE_H
#define JANUS_TOOLS_KEYS_ROTATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct rotate_options {
  bool account_key;  // which are replaced
  bool certs;
  int64_t overlap_s;
  int64_t days;  // validity of the new client certificate
};

// Writes folder's secret.conf anew, and with certs its client.key and server.pub, whose old
// ones are kept beside them under their version. Says on standard output what to do next. An
// error is reported and leaves secret.conf as it was.
int rotate(const char *folder, const struct rotate_options *options) MUST_CHECK;

#endif
