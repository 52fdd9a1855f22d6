#include "common/system_message.h"

#include <string.h>

#include "proto/message.pb-c.h"

struct packet system_message_unexpected_error(int32_t mod, int32_t seq, const char *text,
                                              uint8_t data[SYSTEM_MESSAGE_MAX_BYTES]) {
  char msg[160];
  strncpy(msg, text, sizeof msg - 1);
  msg[sizeof msg - 1] = '\0';
  Message__SCServerUnexpectedErr error = MESSAGE__SCSERVER_UNEXPECTED_ERR__INIT;
  error.mod = mod;
  error.seq = seq;
  error.msg = msg;
  return (struct packet){.data = data,
                         .data_len = message__scserver_unexpected_err__pack(&error, data),
                         .mod = MODULE_SYSTEM,
                         .seq = SYSTEM_UNEXPECTED_ERROR};
}

struct packet system_message_logout(enum logout_code code, uint8_t data[SYSTEM_MESSAGE_MAX_BYTES]) {
  Message__SCServerLogout logout = MESSAGE__SCSERVER_LOGOUT__INIT;
  logout.code = (int32_t)code;
  return (struct packet){.data = data,
                         .data_len = message__scserver_logout__pack(&logout, data),
                         .mod = MODULE_SYSTEM,
                         .seq = SYSTEM_LOGOUT};
}
