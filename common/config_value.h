// Setting values as text: what a value of each kind must look like, and back.
// Pure functions, any thread.
#ifndef JANUS_COMMON_CONFIG_VALUE_H
#define JANUS_COMMON_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// "600s", "0.5s", "100ms", "5m", "1h": whole milliseconds.
bool config_value_parse_duration(const char *text, int64_t *ms);
// In s where that is whole, else in ms; returns buffer.
const char *config_value_print_duration(int64_t ms, char *buffer, size_t size);

// A moment by RFC 3339, "2026-12-01T12:00:00Z" or with an offset, in unix milliseconds.
bool config_value_parse_moment(const char *text, int64_t *ms);

// A decimal number and nothing else.
bool config_value_parse_integer(const char *text, int64_t *number);

// host:port, name:port or [IPv6]:port, the port from min_port to 65535.
bool config_value_is_address(const char *text, int64_t min_port);
// One or more of them, separated by commas; with urls also http://host:port and https://.
bool config_value_is_addresses(const char *text, int64_t min_port, bool urls);
// The next of them into address, and *rest moved on; false when there is none. One that
// does not fit is left out.
bool config_value_next_address(const char **rest, char *address, size_t size);
// Without its http:// or https://, if it has one; *tls says whether it was the latter.
const char *config_value_skip_scheme(const char *text, bool *tls);
// http://host[:port][/path] or https://; no user and no query in it.
bool config_value_is_url(const char *text);
// "/package.Service/Method"
bool config_value_is_method(const char *text);

// choices are separated by '|'. The number of text among them, or -1; and back.
int config_value_parse_choice(const char *choices, const char *text);
void config_value_print_choice(const char *choices, int64_t number, char *buffer, size_t size);

// How many single-character changes turn a into b; SIZE_MAX for a b that is long.
size_t config_value_distance(const char *a, const char *b);

#endif
