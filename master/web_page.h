// The browser client, server.http.web: the files of one folder at /web/ of the operations
// port, as they were at start. Nothing is read from the folder afterwards, and only what was
// read is there to be asked for.
//
// A file is served when its name ends in .html, .css, .js, .svg or .png; of other files, and of
// folders and links, one is told in the log, and they are left out.
//
// Loop thread only.
#ifndef JANUS_MASTER_WEB_PAGE_H
#define JANUS_MASTER_WEB_PAGE_H

#include <stddef.h>

#include "master/http_server.h"

enum {
  WEB_PAGE_FILES_MAX = 32,
  WEB_PAGE_BYTES_MAX = 4 << 20,                  // of all of them
  WEB_PAGE_ROUTES_MAX = WEB_PAGE_FILES_MAX + 2,  // each file's, and what leads to index.html
};

struct web_page;

// Reads the folder, so only at start-up. NULL with the reason in why: it can't be read, has no
// index.html, or is beyond the bounds.
struct web_page *web_page_load(const char *folder, char *why, size_t why_size);
void web_page_free(struct web_page *page);  // accepts NULL

// Adds what the server is to serve; they point to page. How many there are then.
size_t web_page_routes(const struct web_page *page, struct http_route *routes, size_t count);

#endif
