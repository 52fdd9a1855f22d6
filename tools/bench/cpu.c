#include "tools/bench/cpu.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int cpu_set_add(struct cpu_set *set, pid_t pid) {
  clockid_t clock;
  if (clock_getcpuclockid(pid, &clock) != 0) {
    return ERROR_NOT_FOUND;
  }
  for (size_t i = 0; i < set->count; i++) {
    if (set->pids[i] == pid) {
      return 0;
    }
  }
  if (set->count == CPU_SET_MAX) {
    return ERROR_EXHAUSTED;
  }
  set->pids[set->count++] = pid;
  return 0;
}

// The parent of pid; 0 when it is gone. In /proc/PID/stat it is the second field
// behind the name, which may hold anything, parentheses too.
static pid_t parent_of(const char *pid) {
  char path[64];
  char line[512];
  snprintf(path, sizeof path, "/proc/%.16s/stat", pid);
  FILE *file = fopen(path, "r");
  if (!file) {
    return 0;
  }
  size_t len = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  line[len] = '\0';
  while (len > 0 && line[len - 1] != ')') {
    len--;
  }
  char state;
  int parent;
  return sscanf(line + len, " %c %d", &state, &parent) == 2 ? parent : 0;
}

int cpu_set_add_tree(struct cpu_set *set, pid_t pid) {
  int error = cpu_set_add(set, pid);
  DIR *processes = error == 0 ? opendir("/proc") : NULL;
  if (!processes) {
    return error;
  }
  struct dirent *entry;
  while (error == 0 && (entry = readdir(processes)) != NULL) {
    if (isdigit((unsigned char)entry->d_name[0]) && parent_of(entry->d_name) == pid) {
      error = cpu_set_add_tree(set, atoi(entry->d_name));
      error = error == ERROR_NOT_FOUND ? 0 : error;  // ended meanwhile
    }
  }
  closedir(processes);
  return error;
}

static int64_t read_us(clockid_t clock) {
  struct timespec used;
  if (clock_gettime(clock, &used) != 0) {
    return 0;
  }
  return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

int64_t cpu_set_used_us(const struct cpu_set *set) {
  int64_t sum = 0;
  for (size_t i = 0; i < set->count; i++) {
    clockid_t clock;
    if (clock_getcpuclockid(set->pids[i], &clock) == 0) {
      sum += read_us(clock);
    }
  }
  return sum;
}

int64_t cpu_own_used_us(void) { return read_us(CLOCK_PROCESS_CPUTIME_ID); }
