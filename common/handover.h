// What a worker finds when it starts: the descriptors the master hands it, by number.
#ifndef JANUS_COMMON_HANDOVER_H
#define JANUS_COMMON_HANDOVER_H

enum handover {
  HANDOVER_CHANNEL = 3,  // unix stream socket to the master
  HANDOVER_SETTINGS,     // the configuration as text, without secrets (config_load_fd)
  HANDOVER_SECRETS,      // a pipe that holds one struct secrets
  HANDOVER_ROUTE_TABLE,  // read-only segment
  HANDOVER_NODE_TABLE,   // read-only segment
  HANDOVER_TLS,          // read-only segment
  HANDOVER_KCP_OWNERS,   // a segment that all workers write
  HANDOVER_COUNTERS,     // the worker's own segment, writable
  HANDOVER_LISTENERS,    // the first of its listening sockets, each one of an SO_REUSEPORT group,
                         // in the order of config_listener_next
  // Behind these, where one of them is for KCP, or was: what its mailbox is read from, and then
  // what each of all CONFIG_WORKER_NUMBERS mailboxes is written to (worker/kcp_mailbox.h).
};

#endif
