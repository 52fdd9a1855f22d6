#include "tools/ctl/ask.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/ctl/table.h"

enum { ANSWER_MAX_BYTES = 64 << 20 };

// --- What is wrong ------------------------------------------------------------------

static void tell_programs(const struct ctl_gateway *gateway, const json_t *answer) {
  if (gateway->as_json && answer) {
    json_dumpf(answer, stdout, JSON_COMPACT);
    fputs("\n", stdout);
    fflush(stdout);
  }
}

void ctl_complain(const struct ctl_gateway *gateway, const char *format, ...) {
  va_list arguments;
  char *text = NULL;
  va_start(arguments, format);
  int len = vasprintf(&text, format, arguments);
  va_end(arguments);
  fprintf(gateway->complaints, "janusctl: %s\n", len >= 0 ? text : format);
  if (len >= 0) {
    // "?" for a text that is no UTF-8, such as a path.
    json_t *answer = json_pack("{s:b, s:s}", "ok", 0, "error", text);
    answer = answer ? answer : json_pack("{s:b, s:s}", "ok", 0, "error", "?");
    tell_programs(gateway, answer);
    json_decref(answer);
    free(text);
  }
}

static void complain_of_silence(const struct ctl_gateway *gateway, int code) {
  if (code == EBADMSG) {
    ctl_complain(gateway, "what answers at %s is not a gateway of this kind", gateway->path);
    return;
  }
  ctl_complain(gateway, "no gateway answers at %s: %s", gateway->path,
               code == EAGAIN ? "not in time" : strerror(code));
  if (code == EACCES || code == EPERM) {
    fprintf(gateway->complaints,
            "Run it as root or as a member of control.group (by default the gateway's own).\n");
  } else {
    fprintf(gateway->complaints,
            "Is janusd running? If its control.socket is another one, name it by --socket PATH.\n");
  }
}

void ctl_complain_of_refusal(const struct ctl_gateway *gateway, const json_t *answer) {
  char text[CELL_BYTES];
  const json_t *fault;
  size_t i;
  cell_format(json_object_get(answer, "error"), CELL_TEXT, text);
  fprintf(gateway->complaints, "janusctl: the gateway answered: %s\n", text);
  json_array_foreach(json_object_get(answer, "faults"), i, fault) {
    fprintf(gateway->complaints, "  %s\n", json_is_string(fault) ? json_string_value(fault) : "?");
  }
  tell_programs(gateway, answer);
}

int ctl_flush(const struct ctl_gateway *gateway) {
  if (fflush(stdout) == 0 && !ferror(stdout)) {
    return EXIT_SUCCESS;
  }
  fprintf(gateway->complaints, "janusctl: can't write: %s\n", strerror(errno));
  return CTL_REFUSED;
}

// --- The socket ----------------------------------------------------------------------

// A connected socket, or -1 with errno.
static int gateway_connect(const struct ctl_gateway *gateway) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(gateway->path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  memcpy(address.sun_path, gateway->path, strlen(gateway->path));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const struct timeval timeout = {.tv_sec = gateway->timeout_s};
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) != 0 ||
      setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) != 0 ||
      connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
    int saved_errno = errno;
    if (fd >= 0) {
      close(fd);
    }
    errno = saved_errno;
    return -1;
  }
  return fd;
}

static bool gateway_send(int fd, const char *bytes, size_t len) {
  while (len > 0) {
    ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR) {
      return false;
    }
    if (sent > 0) {
      bytes += sent;
      len -= (size_t)sent;
    }
  }
  return true;
}

// A connected socket that the request was sent to, or -1 with errno.
static int gateway_open(const struct ctl_gateway *gateway, const json_t *request) {
  int fd = gateway_connect(gateway);
  char *line = fd >= 0 ? json_dumps(request, JSON_COMPACT) : NULL;
  if (fd >= 0 && (!line || !gateway_send(fd, line, strlen(line)) || !gateway_send(fd, "\n", 1))) {
    int saved_errno = line ? errno : ENOMEM;
    close(fd);
    fd = -1;
    errno = saved_errno;
  }
  free(line);
  return fd;
}

// All until the gateway closes, malloc'd; NULL with errno.
static char *gateway_receive(int fd, size_t *len) {
  size_t room = 0;
  char *answer = NULL;
  *len = 0;
  for (;;) {
    if (*len == room) {
      room = room == 0 ? 65536 : room * 2;
      char *larger = room <= ANSWER_MAX_BYTES ? realloc(answer, room) : NULL;
      if (larger == NULL) {
        errno = ENOMEM;
        break;
      }
      answer = larger;
    }
    ssize_t got = recv(fd, answer + *len, room - *len, 0);
    if (got == 0) {
      return answer;
    }
    if (got > 0) {
      *len += (size_t)got;
    } else if (errno != EINTR) {
      break;
    }
  }
  int saved_errno = errno;
  free(answer);
  errno = saved_errno;
  return NULL;
}

// --- Asking ----------------------------------------------------------------------------

int ctl_open(const struct ctl_gateway *gateway, const json_t *request) {
  int fd = gateway_open(gateway, request);
  if (fd < 0) {
    complain_of_silence(gateway, errno);
  }
  return fd;
}

json_t *ctl_try(const struct ctl_gateway *gateway, const json_t *request) {
  size_t len = 0;
  json_error_t error;
  int fd = gateway_open(gateway, request);
  char *bytes = fd >= 0 ? gateway_receive(fd, &len) : NULL;
  json_t *answer = NULL;
  int code = errno;
  if (bytes && len == 0) {
    code = ECONNRESET;  // it has too many askers, or went away meanwhile
  } else if (bytes) {
    answer = json_loadb(bytes, len, 0, &error);
    code = EBADMSG;
  }
  if (!json_is_object(answer)) {
    json_decref(answer);
    answer = NULL;
  }
  free(bytes);
  if (fd >= 0) {
    close(fd);
  }
  errno = code;
  return answer;
}

json_t *ctl_ask(const struct ctl_gateway *gateway, const json_t *request, int *status) {
  json_t *answer = ctl_try(gateway, request);
  if (!answer) {
    complain_of_silence(gateway, errno);
    *status = CTL_UNREACHABLE;
  } else if (!json_is_true(json_object_get(answer, "ok"))) {
    ctl_complain_of_refusal(gateway, answer);
    *status = CTL_REFUSED;
    json_decref(answer);
    answer = NULL;
  } else {
    *status = EXIT_SUCCESS;
  }
  return answer;
}
