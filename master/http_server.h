// An HTTP server on the master's loop, by libmicrohttpd: it gives each request to its owner
// by a table of paths and methods, and carries the owner's answer out, now or later. It
// knows nothing of what is asked.
//
// What the table does not have is answered here: 404, 405 with Allow, OPTIONS; and so is a
// body over the bound (413), as JSON: {"error": "..."}. What is no HTTP is answered by the
// library, as HTML, or cut.
//
// On the loop's thread alone. Callbacks come from the loop, never from inside a function of
// this header, but for on_gone from http_server_free. None of them may free the server.
#ifndef JANUS_MASTER_HTTP_SERVER_H
#define JANUS_MASTER_HTTP_SERVER_H

#include <event2/event.h>
#include <stddef.h>
#include <stdint.h>

enum { HTTP_HEADERS_MAX = 4 };

struct http_server;
struct listeners;
struct http_request;

// What may come with a request, and what else its owner hears of it.
struct http_rules {
  size_t body_bytes;  // a longer body is refused
  // The head is here. May answer, and then the body is not read (or only as much of it as
  // lets the answer get through). NULL: nothing to look at.
  void (*on_head)(struct http_request *request, void *owner);
  // After on_request: the owner is not to answer any more, since that took too long (504),
  // or the server is being freed. To be forgotten. NULL: always answers at once.
  void (*on_gone)(struct http_request *request, void *owner);
  // It has been refused for its length. Not the place to answer. NULL: no matter.
  void (*on_too_large)(struct http_request *request, void *owner);
};

// A line of the table: what a path can do with one method.
struct http_route {
  const char *path;    // as in the request, up to its '?'
  const char *method;  // "GET", which serves HEAD too, "POST", ...
  // All of the request is here. To be answered from inside, or later.
  void (*on_request)(struct http_request *request, void *owner);
  const struct http_rules *rules;  // NULL: no body, and none of the rest
  void *owner;
};

// The numbers are all to be more than 0.
struct http_server_options {
  const char *address;  // host:port, [IPv6]:port or :port; port 0: any free one
  size_t connections_max;
  size_t connections_per_address;
  // For a head to come in (from the connection, or the last answer, on), for its body, for
  // the owner to answer, and for the answer to go out: each.
  int64_t timeout_ms;
  const struct http_route *routes;
  size_t route_count;
};

// Listens and serves from now on, on one socket that nobody else can join. options are
// borrowed for the call, but for what routes point to. May look a host name up, so
// only at start-up. NULL with the reason in why.
struct http_server *http_server_new(struct event_base *base,
                                    const struct http_server_options *options, char *why,
                                    size_t why_size);

// Cuts all that is under way, with on_gone for each request that waits for its owner.
// Accepts NULL.
void http_server_free(struct http_server *server);

const struct listeners *http_server_socket(const struct http_server *server);
const char *http_server_address(const struct http_server *server);  // host:port as bound

struct http_server_counts {
  size_t connections;  // open now
  size_t waiting;      // requests that the owner has now
  uint64_t late;       // that it had for too long
  uint64_t cut;        // connections that were too slow, or idle
  uint64_t refused;    // connections: too many from one address, or memory ran out
};
void http_server_counts(const struct http_server *server, struct http_server_counts *counts);

// --- A request: the owner's from on_head until it has answered or heard on_gone ------------

const char *http_request_path(const struct http_request *request);
// "127.0.0.1:1234" or "[::1]:1234".
const char *http_request_peer(const struct http_request *request);
// The first of that name, in whatever case, or NULL.
const char *http_request_header(const struct http_request *request, const char *name);
// In on_request, and until it returns.
const char *http_request_body(const struct http_request *request, size_t *len);

// What the owner wants to find again at the request. NULL at first.
void http_request_set_context(struct http_request *request, void *context);
void *http_request_context(const struct http_request *request);

// A header that the answer is to have besides its content type, HTTP_HEADERS_MAX at most.
// Borrowed until then.
void http_request_add_header(struct http_request *request, const char *name, const char *value);

// Answers with this text, copied.
void http_request_answer(struct http_request *request, unsigned status, const char *content_type,
                         const char *text, size_t len);
// Answers {"error": error}, which is to be UTF-8.
void http_request_fail(struct http_request *request, unsigned status, const char *error);

#endif
