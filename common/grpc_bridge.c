#include "common/grpc_bridge.h"

#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#define LOG_MODULE LOG_MODULE_GRPC

// gRPC orders what happens before an operation is started before what happens after it is
// finished; ThreadSanitizer, which does not see into it, is told.
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#else
#define __tsan_release(address) (void)(address)
#define __tsan_acquire(address) (void)(address)
#endif

enum { BATCH_MAX = 256 };

// Finished operations in order.
struct batch {
  struct grpc_operation *first;
  struct grpc_operation **last;
};

static void batch_clear(struct batch *batch) {
  batch->first = NULL;
  batch->last = &batch->first;
}

// How many finished operations wait is bounded by how many are under way, and each
// of those is its owner's.
struct grpc_bridge {
  grpc_completion_queue *queue;
  pthread_t thread;
  int wake_fd;
  struct event *wake;
  int64_t arrived_us;  // of what is being run
  pthread_mutex_t mutex;
  // Under the mutex from here.
  struct batch finished;
  int64_t finished_us;  // when the first of them was handed over
  bool keeps_step;      // set by the loop's thread
  bool handed;          // what was handed over has not been run yet
  pthread_cond_t has_run;
};

static void await_run(struct grpc_bridge *bridge) {
  pthread_mutex_lock(&bridge->mutex);
  while (bridge->keeps_step && bridge->handed) {
    pthread_cond_wait(&bridge->has_run, &bridge->mutex);
  }
  pthread_mutex_unlock(&bridge->mutex);
}

static void hand_over(struct grpc_bridge *bridge, struct batch *batch) {
  int64_t now_us = clock_monotonic_us();
  pthread_mutex_lock(&bridge->mutex);
  bool was_empty = bridge->finished.first == NULL;
  if (was_empty) {
    bridge->finished_us = now_us;
  }
  bool keeps_step = bridge->keeps_step;
  *bridge->finished.last = batch->first;
  bridge->finished.last = batch->last;
  bridge->handed = true;
  pthread_mutex_unlock(&bridge->mutex);
  if (was_empty) {
    uint64_t one = 1;
    ssize_t written = write(bridge->wake_fd, &one, sizeof one);
    (void)written;  // it can only fail where the loop has been woken already
  }
  if (keeps_step) {
    await_run(bridge);
  }
}

// Waits for the first event, then takes what else is ready, and hands all of it
// over at once: waking the loop for each one would cost more than the event itself.
static void *wait_on_queue(void *context) {
  struct grpc_bridge *bridge = context;
  const gpr_timespec never = gpr_inf_future(GPR_CLOCK_REALTIME);
  const gpr_timespec at_once = gpr_inf_past(GPR_CLOCK_REALTIME);
  struct batch batch;
  size_t count = 0;
  batch_clear(&batch);
  for (;;) {
    grpc_event event =
        grpc_completion_queue_next(bridge->queue, count == 0 ? never : at_once, NULL);
    if (event.type == GRPC_OP_COMPLETE) {
      struct grpc_operation *operation = event.tag;
      __tsan_acquire(operation);
      operation->ok = event.success != 0;
      operation->next = NULL;
      *batch.last = operation;
      batch.last = &operation->next;
      count++;
    }
    if (count > 0 && (event.type != GRPC_OP_COMPLETE || count == BATCH_MAX)) {
      hand_over(bridge, &batch);
      batch_clear(&batch);
      count = 0;
    }
    if (event.type == GRPC_QUEUE_SHUTDOWN) {
      return NULL;
    }
  }
}

static void run_finished(struct grpc_bridge *bridge) {
  pthread_mutex_lock(&bridge->mutex);
  struct grpc_operation *operation = bridge->finished.first;
  batch_clear(&bridge->finished);
  bridge->arrived_us = bridge->finished_us;
  pthread_mutex_unlock(&bridge->mutex);
  while (operation) {
    struct grpc_operation *next = operation->next;
    operation->on_done(operation, operation->ok);
    operation = next;
  }
  if (bridge->keeps_step) {
    pthread_mutex_lock(&bridge->mutex);
    bridge->handed = false;
    pthread_cond_signal(&bridge->has_run);
    pthread_mutex_unlock(&bridge->mutex);
  }
}

static void set_keeps_step(struct grpc_bridge *bridge, bool keeps_step) {
  pthread_mutex_lock(&bridge->mutex);
  bridge->keeps_step = keeps_step;
  pthread_cond_signal(&bridge->has_run);
  pthread_mutex_unlock(&bridge->mutex);
}

static void on_wake(evutil_socket_t fd, short what, void *context) {
  uint64_t count;
  (void)what;
  ssize_t got = read(fd, &count, sizeof count);
  (void)got;
  run_finished(context);
}

// What gRPC says of itself, on any of its threads: a handshake that failed, or what it finds
// wrong before it aborts.
static void on_grpc_log(gpr_log_func_args *line) {
  static _Thread_local struct log_limit limit;
  enum log_level level =
      line->severity == GPR_LOG_SEVERITY_ERROR ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG;
  uint64_t suppressed;
  const char *slash = strrchr(line->file, '/');
  char text[512];
  if (log_enabled(level) && log_limit_allow(&limit, clock_monotonic_ms(), &suppressed)) {
    log_write(level, "grpc", "where=%s:%d text=%s suppressed=%" PRIu64,
              slash ? slash + 1 : line->file, line->line,
              log_quote(text, sizeof text, line->message, strlen(line->message)), suppressed);
  }
}

// The thread takes no signals: they belong to the loop.
static int start_thread(struct grpc_bridge *bridge) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&bridge->thread, NULL, wait_on_queue, bridge);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return error == 0 ? 0 : ERROR_SYSTEM;
}

static void release(struct grpc_bridge *bridge) {
  if (bridge->wake) {
    event_free(bridge->wake);
  }
  if (bridge->wake_fd >= 0) {
    close(bridge->wake_fd);
  }
  pthread_cond_destroy(&bridge->has_run);
  pthread_mutex_destroy(&bridge->mutex);
  free(bridge);
}

struct grpc_bridge *grpc_bridge_new(struct event_base *base, int *error) {
  struct grpc_bridge *bridge = calloc(1, sizeof *bridge);
  if (!bridge) {
    *error = ERROR_MEMORY;
    return NULL;
  }
  pthread_mutex_init(&bridge->mutex, NULL);
  pthread_cond_init(&bridge->has_run, NULL);
  batch_clear(&bridge->finished);
  bridge->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (bridge->wake_fd >= 0) {
    bridge->wake = event_new(base, bridge->wake_fd, EV_READ | EV_PERSIST, on_wake, bridge);
  }
  if (!bridge->wake || event_add(bridge->wake, NULL) != 0) {
    release(bridge);
    *error = ERROR_SYSTEM;
    return NULL;
  }
  gpr_set_log_function(on_grpc_log);
  grpc_init();
  bridge->queue = grpc_completion_queue_create_for_next(NULL);
  *error = start_thread(bridge);
  if (*error != 0) {
    grpc_completion_queue_shutdown(bridge->queue);
    grpc_completion_queue_destroy(bridge->queue);
    grpc_shutdown();
    release(bridge);
    return NULL;
  }
  return bridge;
}

void grpc_bridge_free(struct grpc_bridge *bridge) {
  if (!bridge) {
    return;
  }
  set_keeps_step(bridge, false);
  grpc_completion_queue_shutdown(bridge->queue);
  pthread_join(bridge->thread, NULL);
  run_finished(bridge);
  grpc_completion_queue_destroy(bridge->queue);
  release(bridge);
  grpc_shutdown();
}

void grpc_bridge_keep_step(struct grpc_bridge *bridge) { set_keeps_step(bridge, true); }

int64_t grpc_bridge_arrived_us(const struct grpc_bridge *bridge) { return bridge->arrived_us; }

grpc_completion_queue *grpc_bridge_queue(struct grpc_bridge *bridge) { return bridge->queue; }

grpc_call_error grpc_bridge_start(grpc_call *call, const grpc_op *ops, size_t count,
                                  struct grpc_operation *operation) {
  grpc_bridge_expect(operation);
  return grpc_call_start_batch(call, ops, count, operation, NULL);
}

void grpc_bridge_expect(struct grpc_operation *operation) { __tsan_release(operation); }
