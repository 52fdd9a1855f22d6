// Which worker has the connection of a client over KCP: a table in shared memory that all workers
// write and read.
//
// The kernel brings the datagrams of a client to one socket of the group by a hash
// (master/listeners_steer.h). Where that leads to another worker than the one that has the
// connection (the number of workers has changed, or its worker was replaced and drains), the one
// that gets them finds here whom to hand them to.
//
// A key is a hash of what names the connection, with a key of the segment's own: nobody outside can
// make two of them meet. An entry is one word, and each change of it one atomic operation: whoever
// dies in the middle of anything leaves nothing half done. Nothing waits. A bucket that is full
// takes no more, and the connection is then one that the others can't know of.
//
// The segment outlives the program of the master (master/takeover.h), as the workers that write it
// do.
//
// All functions: any process and thread, at the same time, but for open and free.
#ifndef JANUS_COMMON_KCP_OWNERS_H
#define JANUS_COMMON_KCP_OWNERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/error.h"

enum {
  KCP_OWNERS_BUCKETS = 1 << 14,
  KCP_OWNERS_BUCKET_ENTRIES = 16,
  KCP_OWNERS_NOBODY = -1,
};

struct kcp_owners;

// Makes the segment: the master. NULL with the error: ERROR_MEMORY, ERROR_SYSTEM.
struct kcp_owners *kcp_owners_create(int *error);
// Maps one that was inherited. Takes over fd, also on failure. NULL with the error: ERROR_INVALID
// for what is no such segment, ERROR_MEMORY, ERROR_SYSTEM.
struct kcp_owners *kcp_owners_open(int fd, int *error);
void kcp_owners_free(struct kcp_owners *owners);  // unmaps; accepts NULL
int kcp_owners_fd(const struct kcp_owners *owners);
// The same for programs that understand each other's segments (layout.h).
size_t kcp_owners_layout(void);

// What a connection is found by: the client's address and port, and our port. An IPv4 address is
// the same on sockets of IPv4 and IPv6.
uint64_t kcp_owners_key(const struct kcp_owners *owners, const struct sockaddr *client,
                        uint16_t server_port);
// The other name of a connection, for a client whose address changes: its conv and our port.
uint64_t kcp_owners_conv_key(const struct kcp_owners *owners, uint32_t conv, uint16_t server_port);

// The worker of that number has it from now on, whoever had it before. ERROR_EXHAUSTED: there is no
// room.
int kcp_owners_insert(struct kcp_owners *owners, uint64_t key, unsigned worker) MUST_CHECK;
// It no longer has it. If another one has, that stays.
void kcp_owners_remove(struct kcp_owners *owners, uint64_t key, unsigned worker);
// The number of the worker that has it, or KCP_OWNERS_NOBODY.
int kcp_owners_find(const struct kcp_owners *owners, uint64_t key);
// The worker is gone, with all that it had. Before its number is given to another.
void kcp_owners_clear(struct kcp_owners *owners, unsigned worker);
// Whether any other worker has a connection. Looks through the whole table, 2 MiB.
bool kcp_owners_has_others(const struct kcp_owners *owners, unsigned worker);

#endif
