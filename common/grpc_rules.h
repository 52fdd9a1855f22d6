// What gRPC makes of HTTP/2, apart from any connection: statuses, the text that goes with them, and
// which metadata may be sent. The source of all of it is gRPC's own protocol document,
// "gRPC over HTTP2", and its "HTTP to gRPC Status Code Mapping".
//
// Any thread.
#ifndef JANUS_COMMON_GRPC_RULES_H
#define JANUS_COMMON_GRPC_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The prefix of each message: whether it is compressed, and its length.
enum { GRPC_PREFIX_BYTES = 5 };

// The gRPC status for an answer without one, by the HTTP status or by the code of RST_STREAM.
int grpc_status_of_http(int http_status);
int grpc_status_of_reset(uint32_t error_code);

// A grpc-status header: a number of the standard's; anything else is STREAM_UNKNOWN.
int grpc_status_parse(const uint8_t *text, size_t len);
// A grpc-message, percent-decoded into out of size bytes, cut to that and ended with a NUL. What is
// no escape stays as it is.
void grpc_message_decode(const uint8_t *text, size_t len, char *out, size_t size);

// A time limit of at least 1 ms as a grpc-timeout header, rounded up: the backend is not to give up
// before us.
enum { GRPC_TIMEOUT_BYTES = 24 };
void grpc_timeout_write(int64_t ms, char out[GRPC_TIMEOUT_BYTES]);

bool grpc_key_is_legal(const char *key);
// Of a key that does not end in -bin; that of one that does may be anything.
bool grpc_value_is_legal(const char *value);
bool grpc_key_is_binary(const char *key);
// Whether the content-type of an answer is gRPC's.
bool grpc_content_type_is_ours(const uint8_t *text, size_t len);

#endif
