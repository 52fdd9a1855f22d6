// Answers of the operations port that are JSON and change from one moment to the next. Loop
// thread only.
#ifndef JANUS_MASTER_JSON_HTTP_H
#define JANUS_MASTER_JSON_HTTP_H

#include <jansson.h>

#include "master/http_server.h"

// Takes over answer; NULL, as of json_pack without memory, is a 500.
void json_http_answer(struct http_request *request, unsigned status, json_t *answer);

#endif
