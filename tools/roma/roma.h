// The stand-in for Roma: what its parts share. One thread works through one
// completion queue, and everything belongs to it.
#ifndef JANUS_TOOLS_ROMA_ROMA_H
#define JANUS_TOOLS_ROMA_ROMA_H

#include <grpc/grpc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/packet.h"

enum { ROMA_METHODS_MAX = 16, ROMA_FILLER_MAX_BYTES = 64 << 10 };

struct roma_options {
  const char *listen;
  const char *tls_cert;  // PEM files, with a key that goes with it; NULL: plain text
  const char *tls_key;
  const char *tls_client_ca;  // who must have issued a client's certificate; NULL: none is asked
  const char *methods[ROMA_METHODS_MAX];
  size_t method_count;
  int max_streams;   // on one connection; 0: no limit
  int fail_status;   // refuse each stream with it; 0: none
  int64_t delay_ms;  // of each answer
  bool log;
  FILE *record;  // every message received, one line each; or NULL
};

// How many messages an object has got here.
struct roma_object {
  char key[64];
  uint64_t messages;
  UT_hash_handle hh;
};

struct roma_stream;
TAILQ_HEAD(roma_alarms, roma_stream);

struct roma {
  struct roma_options options;
  grpc_completion_queue *queue;
  grpc_server *server;
  char address[128];  // as bound
  struct roma_object *objects;
  struct roma_alarms alarms;  // streams that wait for a time, by that time
  size_t streams;
};

// An operation under way; its address is the tag.
struct roma_operation {
  void (*on_done)(struct roma_operation *operation, bool ok);
};

// A message on its way out.
struct roma_answer {
  STAILQ_ENTRY(roma_answer) link;
  grpc_byte_buffer *buffer;
  int64_t due_ms;  // monotonic
};
STAILQ_HEAD(roma_answers, roma_answer);

struct roma_stream {
  struct roma *roma;
  grpc_call *call;
  grpc_call_details details;
  grpc_metadata_array metadata;
  grpc_byte_buffer *received;
  struct roma_operation accepted;
  struct roma_operation begin;
  struct roma_operation read;
  struct roma_operation sent;
  struct roma_operation finish;
  struct roma_operation closed;
  TAILQ_ENTRY(roma_stream) alarm;
  int64_t alarm_ms;  // monotonic; 0 while none is set
  int under_way;

  bool fragments;  // the method's messages have conn_id and the frag fields
  char oid[32];
  struct roma_answers answers;
  size_t answer_count;
  int64_t delay_ms;
  uint64_t flood_left;
  size_t flood_bytes;
  uint64_t push_left;
  size_t push_bytes;
  int64_t push_every_ms;
  int64_t push_next_ms;
  int end_status;        // once ending
  const char *end_text;  // static, or end_text_buffer
  char end_text_buffer[128];
  int cancelled;
  bool sending;
  bool reading;
  bool stalled;  // reads no further
  bool ending;   // after what waits
  bool finished;
};

// Sends a message with this content, after the stream's delay. data is copied.
void roma_stream_answer(struct roma_stream *stream, const struct packet *packet);
// The same for bytes that need not be a message.
void roma_stream_answer_raw(struct roma_stream *stream, const uint8_t *bytes, size_t len);
// Ends the stream with a gRPC status after what waits has been sent.
void roma_stream_end(struct roma_stream *stream, int status, const char *text);

// Carries out a text command (a message of module 2) and answers it.
void roma_command(struct roma_stream *stream, const struct packet *packet);
// The commands, for --help.
extern const char roma_command_help[];

#endif
