// What janusctl is told: each command and the JSON that answers it.
#ifndef JANUS_MASTER_CONTROL_ANSWERS_H
#define JANUS_MASTER_CONTROL_ANSWERS_H

#include <jansson.h>
#include <stdbool.h>

struct master;

// Takes over the answer. Comes once for each question, maybe from inside.
typedef void control_reply(json_t *answer, void *context);

// Answers one request, {"command": ...}; whatever else it may be gets an error.
void control_answer(struct master *master, const json_t *request, control_reply *reply,
                    void *context);

// Whether the request is for a command that changes nothing and shows no player's traffic.
bool control_only_looks(const json_t *request);

// {"ok": false, "error": text}
json_t *control_error(const char *text);

#endif
