#include "worker/websocket_upgrade.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
  KEY_TEXT_BYTES = 24,
  KEY_BYTES = 16,
  ACCEPT_TEXT_BYTES = 28,
  SUBPROTOCOL_MAX_BYTES = 128,
};

struct text {
  const char *at;
  size_t len;
};

// What the request says, as far as it matters here.
struct request {
  struct text target;
  size_t hosts, keys, versions, origins, contents, traceparents, tracestates;
  bool has_upgrade, has_connection;
  struct text key, version, origin, traceparent, tracestate;
  struct text subprotocol;  // the first that we have too
};

static bool is_text(struct text text, const char *other) {
  return text.len == strlen(other) && memcmp(text.at, other, text.len) == 0;
}

static bool is_name(struct text text, const char *other) {
  return text.len == strlen(other) && strncasecmp(text.at, other, text.len) == 0;
}

// The next entry of a list with commas, without the blanks around it; false at its end.
static bool next_entry(struct text *list, struct text *entry) {
  while (list->len > 0 && strchr(", \t", list->at[0])) {
    list->at++;
    list->len--;
  }
  if (list->len == 0) {
    return false;
  }
  const char *comma = memchr(list->at, ',', list->len);
  *entry = (struct text){list->at, comma ? (size_t)(comma - list->at) : list->len};
  list->at += entry->len;
  list->len -= entry->len;
  while (strchr(" \t", entry->at[entry->len - 1])) {
    entry->len--;
  }
  return true;
}

static bool list_has(struct text list, struct text wanted, bool any_case) {
  struct text entry;
  while (next_entry(&list, &entry)) {
    if (entry.len == wanted.len && (any_case ? strncasecmp(entry.at, wanted.at, wanted.len)
                                             : memcmp(entry.at, wanted.at, wanted.len)) == 0) {
      return true;
    }
  }
  return false;
}

static struct text text_of(const char *string) { return (struct text){string, strlen(string)}; }

// Whether it is a token of HTTP's grammar (RFC 9110, section 5.6.2).
static bool is_token(struct text text) {
  static const char others[] = "!#$%&'*+-.^_`|~";
  for (size_t i = 0; i < text.len; i++) {
    char c = text.at[i];
    bool is_alphanumeric =
        (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (!is_alphanumeric && (c == '\0' || !strchr(others, c))) {
      return false;
    }
  }
  return text.len > 0;
}

// --- The answers ---------------------------------------------------------------------

static void refuse(struct websocket_answer *answer, unsigned status, const char *reason,
                   const char *headers, const char *why) {
  answer->status = status;
  answer->len = (size_t)snprintf(answer->text, sizeof answer->text,
                                 "HTTP/1.1 %u %s\r\n"
                                 "%s"
                                 "Content-Type: text/plain\r\n"
                                 "Content-Length: %zu\r\n"
                                 "Connection: close\r\n"
                                 "\r\n"
                                 "%s\n",
                                 status, reason, headers, strlen(why) + 1, why);
}

static void refuse_bad(struct websocket_answer *answer, const char *why) {
  refuse(answer, 400, "Bad Request", "", why);
}

static void accept_it(const struct request *request, struct websocket_answer *answer) {
  static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";  // RFC 6455, section 1.3
  char joined[KEY_TEXT_BYTES + sizeof magic];
  uint8_t hash[SHA_DIGEST_LENGTH];
  char accept[ACCEPT_TEXT_BYTES + 1];
  char subprotocol[SUBPROTOCOL_MAX_BYTES + 32] = "";
  size_t len =
      (size_t)snprintf(joined, sizeof joined, "%.*s%s", KEY_TEXT_BYTES, request->key.at, magic);
  SHA1((const uint8_t *)joined, len, hash);
  EVP_EncodeBlock((uint8_t *)accept, hash, sizeof hash);
  if (request->subprotocol.len > 0) {
    snprintf(subprotocol, sizeof subprotocol, "Sec-WebSocket-Protocol: %.*s\r\n",
             (int)request->subprotocol.len, request->subprotocol.at);
  }
  answer->status = 101;
  answer->len = (size_t)snprintf(answer->text, sizeof answer->text,
                                 "HTTP/1.1 101 Switching Protocols\r\n"
                                 "Upgrade: websocket\r\n"
                                 "Connection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: %s\r\n"
                                 "%s"
                                 "\r\n",
                                 accept, subprotocol);
}

// --- The request ---------------------------------------------------------------------

// Takes one header. False: it is no header.
static bool take_header(const struct websocket_rules *rules, struct request *request,
                        struct text line) {
  const char *colon = memchr(line.at, ':', line.len);
  if (!colon) {
    return false;
  }
  struct text name = {line.at, (size_t)(colon - line.at)};
  struct text value = {colon + 1, line.len - name.len - 1};
  while (value.len > 0 && strchr(" \t", value.at[0])) {
    value.at++;
    value.len--;
  }
  while (value.len > 0 && strchr(" \t", value.at[value.len - 1])) {
    value.len--;
  }
  if (!is_token(name)) {
    return false;
  }
  if (is_name(name, "Host")) {
    request->hosts += value.len > 0 ? 1 : 2;  // an empty one is none, and one too many
  } else if (is_name(name, "Upgrade")) {
    request->has_upgrade |= list_has(value, text_of("websocket"), true);
  } else if (is_name(name, "Connection")) {
    request->has_connection |= list_has(value, text_of("upgrade"), true);
  } else if (is_name(name, "Sec-WebSocket-Version")) {
    request->versions++;
    request->version = value;
  } else if (is_name(name, "Sec-WebSocket-Key")) {
    request->keys++;
    request->key = value;
  } else if (is_name(name, "Origin")) {
    request->origins++;
    request->origin = value;
  } else if (is_name(name, "traceparent")) {
    request->traceparent = request->traceparents++ == 0 ? value : text_of("");
  } else if (is_name(name, "tracestate")) {
    request->tracestate = request->tracestates++ == 0 ? value : text_of("");
  } else if (is_name(name, "Sec-WebSocket-Protocol")) {
    struct text entry;
    while (request->subprotocol.len == 0 && next_entry(&value, &entry)) {
      if (is_token(entry) && entry.len <= SUBPROTOCOL_MAX_BYTES &&
          list_has(text_of(rules->subprotocols), entry, false)) {
        request->subprotocol = entry;
      }
    }
  } else if (is_name(name, "Transfer-Encoding") ||
             (is_name(name, "Content-Length") && !is_text(value, "0"))) {
    request->contents++;
  }
  return true;
}

static bool is_key(struct text text) {
  uint8_t key[KEY_BYTES];
  size_t len = 0;
  return text.len == KEY_TEXT_BYTES &&
         sodium_base642bin(key, sizeof key, text.at, text.len, NULL, &len, NULL,
                           sodium_base64_VARIANT_ORIGINAL) == 0 &&
         len == sizeof key;
}

static void judge(const struct websocket_rules *rules, const struct request *request,
                  struct websocket_answer *answer) {
  const char *query = memchr(request->target.at, '?', request->target.len);
  struct text path = {request->target.at,
                      query ? (size_t)(query - request->target.at) : request->target.len};
  bool any_origin = strcmp(rules->origins, "*") == 0;
  if (request->hosts != 1) {
    refuse_bad(answer, "There must be one Host header.");
  } else if (!is_text(path, rules->path)) {
    refuse(answer, 404, "Not Found", "", "There is nothing here.");
  } else if (request->contents > 0) {
    refuse_bad(answer, "The request must not have a body.");
  } else if (!request->has_upgrade || !request->has_connection) {
    refuse(answer, 426, "Upgrade Required", "Upgrade: websocket\r\n",
           "This is a WebSocket: Upgrade and Connection must say so.");
  } else if (request->versions != 1 || !is_text(request->version, "13")) {
    refuse(answer, 426, "Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
           "The version must be 13 (RFC 6455).");
  } else if (request->keys != 1 || !is_key(request->key)) {
    refuse_bad(answer, "There must be one Sec-WebSocket-Key, of 16 bytes in base64.");
  } else if (request->origins > 1 || (request->origins == 1 && !any_origin &&
                                      !list_has(text_of(rules->origins), request->origin, false))) {
    refuse(answer, 403, "Forbidden", "", "Pages of this origin are not let in.");
  } else {
    accept_it(request, answer);
  }
}

// "GET /ws HTTP/1.1". False: it is refused.
static bool take_request_line(struct request *request, struct text line,
                              struct websocket_answer *answer) {
  const char *first = memchr(line.at, ' ', line.len);
  const char *second =
      first ? memchr(first + 1, ' ', line.len - (size_t)(first + 1 - line.at)) : NULL;
  if (!second) {
    refuse_bad(answer, "The first line is no request of HTTP/1.1.");
    return false;
  }
  struct text method = {line.at, (size_t)(first - line.at)};
  struct text version = {second + 1, line.len - (size_t)(second + 1 - line.at)};
  request->target = (struct text){first + 1, (size_t)(second - first - 1)};
  if (!is_token(method) || request->target.len == 0 || request->target.at[0] != '/') {
    refuse_bad(answer, "The first line is no request of HTTP/1.1.");
  } else if (!is_text(version, "HTTP/1.1")) {
    refuse(answer, 505, "HTTP Version Not Supported", "", "A WebSocket needs HTTP/1.1.");
  } else if (!is_text(method, "GET")) {
    refuse(answer, 405, "Method Not Allowed", "Allow: GET\r\n", "A WebSocket begins with GET.");
  } else {
    return true;
  }
  return false;
}

// Bytes that no head of a request has: then more of it is not waited for.
static bool is_binary(const uint8_t *bytes, size_t len) {
  for (size_t i = 0; i < len; i++) {
    uint8_t byte = bytes[i];
    bool ends_line = byte == '\n' && i > 0 && bytes[i - 1] == '\r';
    bool begins_end = byte == '\r' && (i + 1 == len || bytes[i + 1] == '\n');
    if ((byte < 0x20 && byte != '\t' && !ends_line && !begins_end) || byte == 0x7f) {
      return true;
    }
  }
  return false;
}

size_t websocket_upgrade(const struct websocket_rules *rules, const uint8_t *bytes, size_t len,
                         struct websocket_answer *answer) {
  static const char end[] = "\r\n\r\n";
  const size_t end_len = sizeof end - 1;
  struct request request = {.target = {"", 0}, .traceparent = {"", 0}, .tracestate = {"", 0}};
  const uint8_t *found = memmem(bytes, len, end, end_len);
  size_t head_len = found ? (size_t)(found - bytes) + end_len : len;

  if (head_len > WEBSOCKET_REQUEST_MAX_BYTES) {
    refuse(answer, 431, "Request Header Fields Too Large", "", "The request is too long.");
    return len;
  }
  if (is_binary(bytes, head_len)) {
    refuse_bad(answer, "This is no HTTP.");
    return len;
  }
  if (!found) {
    return 0;
  }
  const char *line = (const char *)bytes;
  const char *stop = line + head_len - 2;  // the empty line
  for (size_t i = 0; line < stop; i++) {
    const char *line_end = memchr(line, '\r', (size_t)(stop - line));
    struct text text = {line, (size_t)(line_end - line)};
    if (i > WEBSOCKET_REQUEST_HEADERS_MAX) {
      refuse(answer, 431, "Request Header Fields Too Large", "", "There are too many headers.");
      return head_len;
    }
    if (i == 0 && !take_request_line(&request, text, answer)) {
      return head_len;
    }
    if (i > 0 && !take_header(rules, &request, text)) {
      refuse_bad(answer, "A line is no header.");
      return head_len;
    }
    line = line_end + 2;
  }
  judge(rules, &request, answer);
  answer->traceparent = request.traceparent.at;
  answer->traceparent_len = request.traceparent.len;
  answer->tracestate = request.tracestate.at;
  answer->tracestate_len = request.tracestate.len;
  return head_len;
}
