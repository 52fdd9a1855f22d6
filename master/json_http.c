#include "master/json_http.h"

#include <stdlib.h>
#include <string.h>

void json_http_answer(struct http_request *request, unsigned status, json_t *answer) {
  char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
  if (text) {
    http_request_add_header(request, "Cache-Control", "no-store");
    http_request_answer(request, status, "application/json", text, strlen(text));
  } else {
    http_request_fail(request, 500, "out of memory");
  }
  free(text);
  json_decref(answer);
}
