#include "tools/client/show.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/close_reason.h"
#include "proto/message.pb-c.h"
#include "tools/client/names.h"

enum { PREVIEW_BYTES = 60 };

int64_t show_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double elapsed_ms(const struct show *show) {
  return (double)(show_now_ns() - show->start_ns) / 1e6;
}

// --- The System messages, field by field ---------------------------------------

static json_t *heartbeat_fields(const struct packet *packet, bool sent) {
  json_t *fields = NULL;
  if (sent) {
    Message__CSHeartbeat *m = message__csheartbeat__unpack(NULL, packet->data_len, packet->data);
    if (m) {
      fields = json_pack("{sI}", "client_time", (json_int_t)m->client_time);
      message__csheartbeat__free_unpacked(m, NULL);
    }
    return fields;
  }
  Message__SCHeartbeat *m = message__scheartbeat__unpack(NULL, packet->data_len, packet->data);
  if (m) {
    fields = json_pack("{sI, si}", "server_time", (json_int_t)m->server_time, "code", m->code);
    message__scheartbeat__free_unpacked(m, NULL);
  }
  return fields;
}

static json_t *unexpected_error_fields(const struct packet *packet) {
  Message__SCServerUnexpectedErr *m =
      message__scserver_unexpected_err__unpack(NULL, packet->data_len, packet->data);
  if (!m) {
    return NULL;
  }
  json_t *fields = json_pack("{si, si, ss*}", "mod", m->mod, "seq", m->seq, "msg", m->msg);
  message__scserver_unexpected_err__free_unpacked(m, NULL);
  return fields;
}

int32_t show_logout_code(const struct packet *packet) {
  Message__SCServerLogout *m =
      message__scserver_logout__unpack(NULL, packet->data_len, packet->data);
  int32_t code = m ? m->code : -1;
  if (m) {
    message__scserver_logout__free_unpacked(m, NULL);
  }
  return code;
}

static json_t *logout_fields(const struct packet *packet) {
  int32_t code = show_logout_code(packet);
  return code < 0 ? NULL : json_pack("{si, ss*}", "code", code, "name", logout_code_name(code));
}

// The decoded fields of a System message; NULL for any other, or a malformed one.
static json_t *system_fields(const struct packet *packet, bool sent) {
  if (packet->mod != MODULE_SYSTEM) {
    return NULL;
  }
  switch (packet->seq) {
    case SYSTEM_HEARTBEAT: return heartbeat_fields(packet, sent);
    case SYSTEM_UNEXPECTED_ERROR: return sent ? NULL : unexpected_error_fields(packet);
    case SYSTEM_LOGOUT: return sent ? NULL : logout_fields(packet);
    default: return NULL;
  }
}

// --- Text ----------------------------------------------------------------------

static void print_preview(const struct packet *packet) {
  putchar('"');
  for (size_t i = 0; i < packet->data_len && i < PREVIEW_BYTES; i++) {
    uint8_t c = packet->data[i];
    if (c == '"' || c == '\\') {
      printf("\\%c", c);
    } else if (c >= ' ' && c < 0x7f) {
      putchar(c);
    } else if (c == '\n') {
      fputs("\\n", stdout);
    } else {
      printf("\\x%02x", c);
    }
  }
  fputs(packet->data_len > PREVIEW_BYTES ? "\"..." : "\"", stdout);
}

static void print_fields(json_t *fields) {
  const char *key;
  json_t *value;
  const char *separator = "";
  json_object_foreach(fields, key, value) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    printf("%s%s=%s", separator, key, text ? text : "?");
    free(text);
    separator = " ";
  }
}

static void print_text(const struct show *show, const struct show_packet *shown, json_t *fields,
                       bool sent) {
  const struct packet *packet = shown->packet;
  const char *module = module_name(packet->mod);
  const char *sequence = sequence_name(packet->mod, packet->seq);
  char module_number[16];
  char sequence_number[16];
  snprintf(module_number, sizeof module_number, "module %d", packet->mod);
  snprintf(sequence_number, sizeof sequence_number, "%d", packet->seq);
  printf("%9.1f ms  %s %s %s", elapsed_ms(show), sent ? "->" : "<-",
         module ? module : module_number, sequence ? sequence : sequence_number);
  if (packet->obj != 0) {
    printf("  obj %lld", (long long)packet->obj);
  }
  if (packet->index != 0) {
    printf("  index %d", packet->index);
  }
  if (packet->data_version != 0) {
    printf("  version %llu", (unsigned long long)packet->data_version);
  }
  printf("  %zu bytes", packet->data_len);
  if (packet->compress) {
    printf(" (%zu compressed)", shown->packed_bytes);
  } else if (shown->with_compression) {
    fputs(" (sent compressed)", stdout);
  }
  fputs(": ", stdout);
  if (fields) {
    print_fields(fields);
  } else {
    print_preview(packet);
  }
  if (shown->answer_ns >= 0) {
    printf("  [after %.2f ms]", (double)shown->answer_ns / 1e6);
  }
  putchar('\n');
}

// --- JSON ----------------------------------------------------------------------

static void print_json(json_t *line) {
  char *text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
  puts(text ? text : "{\"event\":\"error\",\"text\":\"out of memory\"}");
  free(text);
  json_decref(line);
}

// data as text where it is UTF-8, else as hex digits.
static void add_data(json_t *line, const struct packet *packet) {
  const char *bytes = packet->data_len == 0 ? "" : (const char *)packet->data;
  json_t *text = json_stringn(bytes, packet->data_len);
  if (text) {
    json_object_set_new(line, "data", text);
    return;
  }
  char *hex = malloc(packet->data_len * 2 + 1);
  if (hex) {
    for (size_t i = 0; i < packet->data_len; i++) {
      snprintf(hex + 2 * i, 3, "%02x", packet->data[i]);
    }
    json_object_set_new(line, "data_hex", json_stringn(hex, packet->data_len * 2));
    free(hex);
  }
}

static json_t *packet_line(const struct show *show, const struct show_packet *shown,
                           json_t *fields) {
  const struct packet *packet = shown->packet;
  json_t *line = json_pack(
      "{ss, sf, si, ss*, si, ss*, sI, si, sI, sI, sb}", "event", shown->event, "at_ms",
      elapsed_ms(show), "mod", packet->mod, "module", module_name(packet->mod), "seq", packet->seq,
      "message", sequence_name(packet->mod, packet->seq), "obj", (json_int_t)packet->obj, "index",
      packet->index, "version", (json_int_t)packet->data_version, "size",
      (json_int_t)packet->data_len, "compressed", packet->compress || shown->with_compression);
  if (!line) {
    return NULL;
  }
  if (packet->compress) {
    json_object_set_new(line, "compressed_size", json_integer((json_int_t)shown->packed_bytes));
  }
  if (shown->wire_bytes != 0) {
    json_object_set_new(line, "wire_bytes", json_integer((json_int_t)shown->wire_bytes));
  }
  if (shown->answer_ns >= 0) {
    json_object_set_new(line, "answer_ms", json_real((double)shown->answer_ns / 1e6));
  }
  if (fields) {
    json_object_set(line, "fields", fields);
  }
  add_data(line, packet);
  return line;
}

void show_packet(const struct show *show, const struct show_packet *shown) {
  bool sent = strcmp(shown->event, "sent") == 0;
  json_t *fields = system_fields(shown->packet, sent);
  if (show->json) {
    print_json(packet_line(show, shown, fields));
  } else {
    print_text(show, shown, fields, sent);
  }
  json_decref(fields);
  fflush(stdout);
}

void show_event(const struct show *show, const char *event, const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (show->json) {
    print_json(json_pack("{ss, sf, ss}", "event", event, "at_ms", elapsed_ms(show), "text", text));
  } else {
    printf("%9.1f ms  %s\n", elapsed_ms(show), text);
  }
  fflush(stdout);
}
