#include "tools/client/websocket.h"

#include <openssl/sha.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
  KEY_BYTES = 16,
  BASE64_BYTES = 32,  // of a key or a hash, with its NUL
  FIN = 0x80,
  RESERVED = 0x70,
  OPCODE = 0x0f,
  CONTROL = 0x08,
  MASKED = 0x80,
  LENGTH = 0x7f,
  LENGTH_16 = 126,
  LENGTH_64 = 127,
};

void websocket_show(const uint8_t *bytes, size_t len, char *out, size_t out_bytes) {
  size_t shown = len < out_bytes - 1 ? len : out_bytes - 1;
  for (size_t i = 0; i < shown; i++) {
    bool printable = bytes[i] >= ' ' && bytes[i] <= '~';
    out[i] = (char)(printable ? bytes[i] : '?');
  }
  out[shown] = '\0';
}

// --- The upgrade -------------------------------------------------------------

static void to_base64(const uint8_t *bytes, size_t len, char out[BASE64_BYTES]) {
  sodium_bin2base64(out, BASE64_BYTES, bytes, len, sodium_base64_VARIANT_ORIGINAL);
}

size_t websocket_request(struct websocket *socket, const char *authority, const char *path,
                         char out[WEBSOCKET_REQUEST_MAX_BYTES]) {
  static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";  // RFC 6455, 1.3
  uint8_t key[KEY_BYTES];
  char text[BASE64_BYTES + sizeof guid];
  randombytes_buf(key, sizeof key);
  to_base64(key, sizeof key, text);
  int len = snprintf(out, WEBSOCKET_REQUEST_MAX_BYTES,
                     "GET %s HTTP/1.1\r\n"
                     "Host: %s\r\n"
                     "Upgrade: websocket\r\n"
                     "Connection: Upgrade\r\n"
                     "Sec-WebSocket-Key: %s\r\n"
                     "Sec-WebSocket-Version: 13\r\n"
                     "\r\n",
                     path, authority, text);
  *socket = (struct websocket){0};
  strcat(text, guid);
  SHA1((const unsigned char *)text, strlen(text), socket->accept);
  return (size_t)len;
}

// One header line of the answer, its value without the spaces around it.
struct header {
  const char *name;
  size_t name_len;
  const char *value;
  size_t value_len;
};

static bool is(const char *text, size_t len, const char *wanted) {
  return len == strlen(wanted) && strncasecmp(text, wanted, len) == 0;
}

static bool is_space(char c) { return c == ' ' || c == '\t'; }

static void trim(const char **text, size_t *len) {
  while (*len > 0 && is_space(**text)) {
    ++*text;
    --*len;
  }
  while (*len > 0 && is_space((*text)[*len - 1])) {
    --*len;
  }
}

// Whether wanted is among the words between commas.
static bool has_word(const struct header *header, const char *wanted) {
  const char *end = header->value + header->value_len;
  for (const char *at = header->value; at < end;) {
    const char *comma = memchr(at, ',', (size_t)(end - at));
    size_t len = (size_t)((comma ? comma : end) - at);
    const char *word = at;
    at += len + 1;
    trim(&word, &len);
    if (is(word, len, wanted)) {
      return true;
    }
  }
  return false;
}

// What has been seen of the answer's headers.
struct answer {
  bool upgrade;
  bool connection;
  unsigned accepts;
};

// NULL, or what is wrong with it.
static const char *take_header(const struct websocket *socket, struct answer *answer,
                               const struct header *header) {
  if (is(header->name, header->name_len, "Upgrade")) {
    answer->upgrade = is(header->value, header->value_len, "websocket");
  } else if (is(header->name, header->name_len, "Connection")) {
    answer->connection |= has_word(header, "upgrade");
  } else if (is(header->name, header->name_len, "Sec-WebSocket-Accept")) {
    char expected[BASE64_BYTES];
    to_base64(socket->accept, sizeof socket->accept, expected);
    if (header->value_len != strlen(expected) ||
        memcmp(header->value, expected, header->value_len) != 0) {
      return "its Sec-WebSocket-Accept is not that of the request";
    }
    answer->accepts++;
  } else if (is(header->name, header->name_len, "Sec-WebSocket-Extensions")) {
    return "it has extensions that nobody asked for";
  } else if (is(header->name, header->name_len, "Sec-WebSocket-Protocol")) {
    return "it has a subprotocol that nobody asked for";
  }
  return NULL;
}

static const char *take_headers(const struct websocket *socket, const char *text, size_t len) {
  struct answer answer = {0};
  for (const char *end = text + len; text < end;) {
    const char *line = text;
    const char *line_end = memmem(text, (size_t)(end - text), "\r\n", 2);
    if (!line_end) {
      break;
    }
    text = line_end + 2;
    const char *colon = memchr(line, ':', (size_t)(line_end - line));
    if (!colon || colon == line) {
      return "a line of it is no header";
    }
    struct header header = {line, (size_t)(colon - line), colon + 1,
                            (size_t)(line_end - colon - 1)};
    trim(&header.value, &header.value_len);
    const char *fault = take_header(socket, &answer, &header);
    if (fault) {
      return fault;
    }
  }
  if (!answer.upgrade || !answer.connection) {
    return "it does not upgrade to websocket";
  }
  return answer.accepts == 1 ? NULL : "it does not have one Sec-WebSocket-Accept";
}

ssize_t websocket_take_answer(const struct websocket *socket, const uint8_t *bytes, size_t len,
                              char *fault, size_t fault_bytes) {
  static const char switching[] = "HTTP/1.1 101";
  size_t within = len < WEBSOCKET_ANSWER_MAX_BYTES ? len : WEBSOCKET_ANSWER_MAX_BYTES;
  const uint8_t *end = memmem(bytes, within, "\r\n\r\n", 4);
  if (!end) {
    if (len < WEBSOCKET_ANSWER_MAX_BYTES) {
      return 0;
    }
    snprintf(fault, fault_bytes, "the answer to the upgrade is too long");
    return ERROR_MALFORMED;
  }
  const char *text = (const char *)bytes;
  size_t line_len = (size_t)((const char *)memmem(bytes, within, "\r\n", 2) - text);
  if (line_len < strlen(switching) || memcmp(text, switching, strlen(switching)) != 0 ||
      (line_len > strlen(switching) && text[strlen(switching)] != ' ')) {
    char line[80];
    websocket_show(bytes, line_len, line, sizeof line);
    snprintf(fault, fault_bytes, "the upgrade was answered with %s", line);
    return ERROR_MALFORMED;
  }
  const char *headers = text + line_len + 2;
  const char *wrong = take_headers(socket, headers, (size_t)((const char *)end + 2 - headers));
  if (wrong) {
    snprintf(fault, fault_bytes, "the answer to the upgrade is unacceptable: %s", wrong);
    return ERROR_MALFORMED;
  }
  return end + 4 - bytes;
}

// --- Frames ------------------------------------------------------------------

struct frame {
  bool fin;
  unsigned opcode;
  size_t header_bytes;
  uint64_t len;
};

// 1, 0 when more is needed, or ERROR_MALFORMED with why.
static int parse_header(const uint8_t *bytes, size_t len, struct frame *frame, const char **why) {
  if (len < 2) {
    return 0;
  }
  frame->fin = bytes[0] & FIN;
  frame->opcode = bytes[0] & OPCODE;
  frame->len = bytes[1] & LENGTH;
  frame->header_bytes = 2;
  unsigned more = frame->len == LENGTH_16 ? 2 : frame->len == LENGTH_64 ? 8 : 0;
  uint64_t least = more == 2 ? LENGTH_16 : more == 8 ? UINT16_MAX + 1 : 0;
  *why = bytes[0] & RESERVED ? "a reserved bit is set in a frame"
         : bytes[1] & MASKED ? "the server masks its frames"
         : frame->opcode & CONTROL && (!frame->fin || more)
             ? "a control frame is in fragments, or too long"
             : NULL;
  if (*why) {
    return ERROR_MALFORMED;
  }
  if (len < 2 + more) {
    return 0;
  }
  if (more) {
    frame->len = 0;
    for (unsigned i = 0; i < more; i++) {
      frame->len = frame->len << 8 | bytes[2 + i];
    }
    frame->header_bytes += more;
    if (frame->len < least) {
      *why = "a frame's length is longer than it needs to be";
      return ERROR_MALFORMED;
    }
  }
  return 1;
}

static const char *check_frame(const struct websocket *socket, const struct frame *frame,
                               size_t message_max) {
  switch (frame->opcode) {
    case WEBSOCKET_CLOSE:
    case WEBSOCKET_PING:
    case WEBSOCKET_PONG: return NULL;
    case WEBSOCKET_TEXT: return "the server sends text";
    case WEBSOCKET_BINARY:
      if (socket->in_message) {
        return "a message begins within another";
      }
      break;
    case WEBSOCKET_CONTINUATION:
      if (!socket->in_message) {
        return "a continuation continues nothing";
      }
      break;
    default: return "a frame's opcode is unknown";
  }
  // What is assembled is within the bound already.
  return frame->len > message_max - socket->assembled ? "a message is too long" : NULL;
}

// Takes count bytes at `at` out.
static void cut(uint8_t *bytes, size_t *len, size_t at, size_t count) {
  memmove(bytes + at, bytes + at + count, *len - at - count);
  *len -= count;
}

int websocket_take(struct websocket *socket, uint8_t *bytes, size_t *len, size_t message_max,
                   struct websocket_found *found) {
  for (;;) {
    struct frame frame = {0};
    uint8_t *at = bytes + socket->assembled;
    size_t have = *len - socket->assembled;
    int parsed = parse_header(at, have, &frame, &found->fault);
    if (parsed <= 0) {
      return parsed;
    }
    found->fault = check_frame(socket, &frame, message_max);
    if (found->fault) {
      return ERROR_MALFORMED;
    }
    if (have - frame.header_bytes < frame.len) {
      return 0;
    }
    size_t body_len = (size_t)frame.len;
    if (frame.opcode & CONTROL) {
      found->opcode = frame.opcode;
      found->len = body_len;
      found->taken = 0;
      memcpy(found->control, at + frame.header_bytes, body_len);
      cut(bytes, len, socket->assembled, frame.header_bytes + body_len);
      return 1;
    }
    if (frame.fin && socket->assembled == 0) {  // as nearly all come: nothing is moved
      *found = (struct websocket_found){.opcode = WEBSOCKET_BINARY,
                                        .message = at + frame.header_bytes,
                                        .len = body_len,
                                        .taken = frame.header_bytes + body_len};
      socket->in_message = false;
      return 1;
    }
    cut(bytes, len, socket->assembled, frame.header_bytes);
    socket->assembled += body_len;
    socket->in_message = true;
    if (frame.fin) {
      *found = (struct websocket_found){.opcode = WEBSOCKET_BINARY,
                                        .message = bytes,
                                        .len = socket->assembled,
                                        .taken = socket->assembled};
      socket->in_message = false;
      socket->assembled = 0;
      return 1;
    }
  }
}

uint8_t *websocket_wrap(enum websocket_opcode opcode, uint8_t *bytes, size_t len) {
  uint8_t mask[4];
  randombytes_buf(mask, sizeof mask);
  for (size_t i = 0; i < len; i++) {
    bytes[i] ^= mask[i % sizeof mask];
  }
  unsigned more = len < LENGTH_16 ? 0 : len <= UINT16_MAX ? 2 : 8;
  uint8_t *start = bytes - sizeof mask - more - 2;
  start[0] = (uint8_t)(FIN | (unsigned)opcode);
  start[1] = (uint8_t)(MASKED | (more == 0 ? len : more == 2 ? LENGTH_16 : LENGTH_64));
  for (unsigned i = 0; i < more; i++) {
    start[2 + i] = (uint8_t)((uint64_t)len >> 8 * (more - 1 - i));
  }
  memcpy(start + 2 + more, mask, sizeof mask);
  return start;
}
