// CPU time that other processes have used, to the nanosecond the kernel keeps.
#ifndef JANUS_TOOLS_BENCH_CPU_H
#define JANUS_TOOLS_BENCH_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

enum { CPU_SET_MAX = 256 };

struct cpu_set {
  pid_t pids[CPU_SET_MAX];
  size_t count;
};

// ERROR_NOT_FOUND when there is no such process, ERROR_EXHAUSTED when the set is full.
int cpu_set_add(struct cpu_set *set, pid_t pid) MUST_CHECK;
// The process and all its descendants as of now.
int cpu_set_add_tree(struct cpu_set *set, pid_t pid) MUST_CHECK;

// User and system time of all of them, with all their threads, in µs. A process
// that has ended counts nothing.
int64_t cpu_set_used_us(const struct cpu_set *set);
int64_t cpu_own_used_us(void);

#endif
