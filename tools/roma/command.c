#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include "proto/message.pb-c.h"
#include "tools/roma/roma.h"

const char roma_command_help[] =
    "A message of module 2 (Dev) is a command to the stream it comes on:\n"
    "  delay MS                 answer everything this much later from now on\n"
    "  push N BYTES [EVERY_MS]  send N messages unasked (module 3, sequence 100), at most 65536 "
    "bytes\n"
    "  flood N BYTES            the same, as fast as the gateway takes them\n"
    "  size BYTES [random]      answer with so many bytes, compressible or not\n"
    "  end [STATUS [TEXT]]      end the stream with this gRPC status (default 0)\n"
    "  logout CODE              send SCServerLogout and end the stream\n"
    "  garbage BYTES            answer with bytes that are no message\n"
    "  stall                    read this stream no further\n"
    "  who                      answer with the node, the method and the metadata\n"
    "  count                    answer how many messages this object has got here\n"
    "  exit                     end the whole program at once, without a word\n";

enum { SIZE_MAX_BYTES = 64 << 20 };

static void answer_text(struct roma_stream *stream, const struct packet *packet, const char *text) {
  struct packet answer = *packet;
  answer.data = (const uint8_t *)text;
  answer.data_len = strlen(text);
  roma_stream_answer(stream, &answer);
}

static void answer_size(struct roma_stream *stream, const struct packet *packet, size_t size,
                        bool incompressible) {
  uint8_t *data = malloc(size > 0 ? size : 1);
  struct packet answer = *packet;
  if (!data) {
    answer_text(stream, packet, "error: out of memory");
    return;
  }
  for (size_t i = 0; i < size; i++) {
    data[i] = incompressible ? (uint8_t)random() : (uint8_t)("janus "[i % 6]);
  }
  answer.data = data;
  answer.data_len = size;
  roma_stream_answer(stream, &answer);
  free(data);
}

static void answer_garbage(struct roma_stream *stream, size_t size) {
  uint8_t *bytes = malloc(size > 0 ? size : 1);
  if (bytes) {
    memset(bytes, 0xff, size);
    roma_stream_answer_raw(stream, bytes, size);
    free(bytes);
  }
}

static int compare_lines(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

// Lines "key=value", sorted: address, method, and what the gateway told of the
// player.
static void answer_who(struct roma_stream *stream, const struct packet *packet) {
  enum { LINES = 64 };
  char *lines[LINES];
  size_t count = 0;
  char text[8192];
  size_t len = 0;
  char *method = grpc_slice_to_c_string(stream->details.method);
  for (size_t i = 0; i < stream->metadata.count && count < LINES; i++) {
    char *key = grpc_slice_to_c_string(stream->metadata.metadata[i].key);
    char *value = grpc_slice_to_c_string(stream->metadata.metadata[i].value);
    if (strncmp(key, "x-md-global-", 12) == 0) {
      size_t size = strlen(key) + strlen(value) + 2;
      lines[count] = malloc(size);
      if (lines[count]) {
        snprintf(lines[count++], size, "%s=%s", key, value);
      }
    }
    gpr_free(key);
    gpr_free(value);
  }
  qsort(lines, count, sizeof lines[0], compare_lines);
  len = (size_t)snprintf(text, sizeof text, "address=%s\nmethod=%s", stream->roma->address, method);
  gpr_free(method);
  for (size_t i = 0; i < count; i++) {
    if (len < sizeof text) {
      len += (size_t)snprintf(text + len, sizeof text - len, "\n%s", lines[i]);
    }
    free(lines[i]);
  }
  answer_text(stream, packet, text);
}

static void answer_count(struct roma_stream *stream, const struct packet *packet) {
  struct roma_object *object = NULL;
  char text[32];
  HASH_FIND_STR(stream->roma->objects, stream->oid, object);
  snprintf(text, sizeof text, "%" PRIu64, object ? object->messages : 0);
  answer_text(stream, packet, text);
}

static void send_logout(struct roma_stream *stream, int code) {
  uint8_t data[16];
  Message__SCServerLogout logout = MESSAGE__SCSERVER_LOGOUT__INIT;
  logout.code = code;
  struct packet answer = {.data = data,
                          .data_len = message__scserver_logout__pack(&logout, data),
                          .mod = MODULE_SYSTEM,
                          .seq = SYSTEM_LOGOUT};
  roma_stream_answer(stream, &answer);
  roma_stream_end(stream, 0, "");
}

void roma_command(struct roma_stream *stream, const struct packet *packet) {
  char line[256];
  char word[16] = "";
  char rest[128] = "";
  unsigned long long a = 0;
  unsigned long long b = 0;
  unsigned long long c = 0;
  size_t len = packet->data_len < sizeof line ? packet->data_len : sizeof line - 1;
  memcpy(line, packet->data_len > 0 ? packet->data : (const uint8_t *)"", len);
  line[len] = '\0';
  int numbers = sscanf(line, "%15s %llu %llu %llu", word, &a, &b, &c) - 1;

  if (strcmp(word, "delay") == 0 && numbers == 1) {
    stream->delay_ms = (int64_t)a;
    answer_text(stream, packet, "ok");
  } else if (strcmp(word, "push") == 0 && numbers >= 2 && b <= ROMA_FILLER_MAX_BYTES) {
    stream->push_left = a;
    stream->push_bytes = (size_t)b;
    stream->push_every_ms = numbers == 3 ? (int64_t)c : 0;
    stream->push_next_ms = 0;
    answer_text(stream, packet, "ok");
  } else if (strcmp(word, "flood") == 0 && numbers == 2 && b <= ROMA_FILLER_MAX_BYTES) {
    stream->flood_left = a;
    stream->flood_bytes = (size_t)b;
    answer_text(stream, packet, "ok");
  } else if (strcmp(word, "size") == 0 && numbers >= 1 && a <= SIZE_MAX_BYTES) {
    answer_size(stream, packet, (size_t)a, strstr(line, "random") != NULL);
  } else if (strcmp(word, "end") == 0) {
    sscanf(line, "%*s %*u %127[^\n]", rest);
    roma_stream_end(stream, (int)a, rest);
  } else if (strcmp(word, "logout") == 0 && numbers == 1) {
    send_logout(stream, (int)a);
  } else if (strcmp(word, "garbage") == 0 && numbers == 1 && a <= SIZE_MAX_BYTES) {
    answer_garbage(stream, (size_t)a);
  } else if (strcmp(word, "stall") == 0) {
    stream->stalled = true;
  } else if (strcmp(word, "who") == 0) {
    answer_who(stream, packet);
  } else if (strcmp(word, "count") == 0) {
    answer_count(stream, packet);
  } else if (strcmp(word, "exit") == 0) {
    _exit(1);
  } else {
    answer_text(stream, packet, "error: no such command; janus-roma --help lists them");
  }
}
