// What every log line about a session begins with.
#ifndef JANUS_WORKER_SESSION_LOG_H
#define JANUS_WORKER_SESSION_LOG_H

#include <inttypes.h>
#include <stdio.h>

#include "worker/trace.h"

enum { SESSION_LOG_BYTES = 96 + TRACE_ID_TEXT_BYTES };

// `connection=… uid=… trace_id=…`, in buffer; uid 0: it is not known yet. Without tracing (trace
// NULL) there is no trace_id.
static inline const char *session_log_fields(char buffer[SESSION_LOG_BYTES], uint64_t connection,
                                             int64_t uid, const struct trace_connection *trace) {
  int len = snprintf(buffer, SESSION_LOG_BYTES, "connection=%" PRIu64, connection);
  if (uid != 0) {
    len += snprintf(buffer + len, SESSION_LOG_BYTES - (size_t)len, " uid=%" PRId64, uid);
  }
  if (TRACE_IS_BUILT && trace) {
    char id[TRACE_ID_TEXT_BYTES];
    snprintf(buffer + len, SESSION_LOG_BYTES - (size_t)len, " trace_id=%s",
             trace_id_format(trace_connection_trace_id(trace), id));
  }
  return buffer;
}

#endif
