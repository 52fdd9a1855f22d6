#include "master/control.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/control_access.h"
#include "master/control_answers.h"
#include "master/master.h"
#include "master/takeover.h"

#define LOG_MODULE LOG_MODULE_CONTROL

enum {
  REQUEST_MAX_BYTES = 64 << 10,  // a push by hand is the largest
  STREAM_MAX_BYTES = 256 << 10,  // that wait for one who reads slowly; what is more he loses
};
// At a time. Those who may less never take the places of those who may more.
static const int clients_max[CONTROL_ACCESS_COUNT] = {
    [CONTROL_ACCESS_NONE] = 4,
    [CONTROL_ACCESS_LOOK] = 16,
    [CONTROL_ACCESS_ALL] = 16,
};
static const struct timeval client_timeout = {.tv_sec = 10};

// One connection of janusctl's: a question and its answer.
struct client {
  LIST_ENTRY(client) link;
  struct control *control;
  enum control_access access;
  struct bufferevent *buffer;  // NULL: gone, while its answer is awaited
  bool awaiting;               // an answer, which may come from elsewhere, later
  // Of a stream.
  control_on_gone *on_gone;
  void *owner;
  json_int_t lost;  // lines for which there was no room
};

LIST_HEAD(client_list, client);

struct control {
  struct master *master;
  struct evconnlistener *listener;
  struct control_groups groups;
  struct client_list clients;
  int client_count[CONTROL_ACCESS_COUNT];
  char path[sizeof((struct sockaddr_un *)NULL)->sun_path];
};

// --- Connections -----------------------------------------------------------------------

static void client_free(struct client *client) {
  if (client->on_gone) {
    client->on_gone(client->owner);
    client->on_gone = NULL;
  }
  if (client->buffer) {
    bufferevent_free(client->buffer);
    client->buffer = NULL;
    client->control->client_count[client->access]--;
  }
  if (!client->awaiting) {  // else whoever answers does the rest
    LIST_REMOVE(client, link);
    free(client);
  }
}

static void on_event(struct bufferevent *buffer, short what, void *owner) {
  (void)buffer;
  (void)what;  // gone, or too slow
  client_free(owner);
}

static void on_written(struct bufferevent *buffer, void *owner) {
  (void)buffer;
  client_free(owner);
}

static void reply(json_t *answer, void *context) {
  struct client *client = context;
  char *text = json_dumps(answer, JSON_COMPACT);
  json_decref(answer);
  client->awaiting = false;
  if (client->buffer) {
    bufferevent_setcb(client->buffer, NULL, on_written, on_event, client);
    evbuffer_add_printf(bufferevent_get_output(client->buffer), "%s\n",
                        text ? text : "{\"ok\":false,\"error\":\"out of memory\"}");
  } else {
    client_free(client);
  }
  free(text);
}

// --- A stream of lines in place of the answer ----------------------------------------------

static void on_stream_read(struct bufferevent *buffer, void *owner) {
  struct evbuffer *input = bufferevent_get_input(buffer);
  (void)owner;
  evbuffer_drain(input, evbuffer_get_length(input));  // there is nothing more to ask
}

// Takes over the line. What there is no memory for is lost.
static void write_line(struct client *client, json_t *line) {
  char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
  json_decref(line);
  if (!text || evbuffer_add_printf(bufferevent_get_output(client->buffer), "%s\n", text) < 0) {
    client->lost++;
  }
  free(text);
}

static void tell_lost(struct client *client) {
  json_int_t lost = client->lost;
  client->lost = 0;
  write_line(client, json_pack("{s:s, s:I, s:I}", "event", "lost", "at_us",
                               (json_int_t)clock_wall_us(), "lost", lost));
}

// He has read all there was.
static void on_stream_written(struct bufferevent *buffer, void *owner) {
  struct client *client = owner;
  (void)buffer;
  if (client->lost > 0) {
    tell_lost(client);
  }
}

void control_stream_begin(void *context) {
  struct client *client = context;
  client->awaiting = false;
  bufferevent_setcb(client->buffer, on_stream_read, on_stream_written, on_event, client);
  bufferevent_set_timeouts(client->buffer, NULL, NULL);
  bufferevent_enable(client->buffer, EV_READ);  // to see when he goes
}

void control_stream_line(json_t *line, void *context) {
  struct client *client = context;
  if (evbuffer_get_length(bufferevent_get_output(client->buffer)) > STREAM_MAX_BYTES) {
    client->lost++;
    json_decref(line);
    return;
  }
  if (client->lost > 0) {
    tell_lost(client);
  }
  write_line(client, line);
}

void control_stream_owned(void *context, control_on_gone *on_gone, void *owner) {
  struct client *client = context;
  client->on_gone = on_gone;
  client->owner = owner;
}

void control_stream_end(void *context) {
  struct client *client = context;
  bufferevent_setcb(client->buffer, NULL, on_written, on_event, client);
}

// --- Questions -----------------------------------------------------------------------------

static void refuse(struct client *client) {
  const struct control *control = client->control;
  log_limited(LOG_LEVEL_INFO, "control_refused", "access=%s hint=\"see control.group\"",
              client->access == CONTROL_ACCESS_NONE ? "none" : "look");
  if (client->access == CONTROL_ACCESS_LOOK) {
    reply(control_error("you may look only: this is for root and the group control.group"), client);
  } else if (control->groups.has_read_group) {
    reply(control_error("you may not: this is for root and the groups control.group and "
                        "control.read_group"),
          client);
  } else {
    reply(control_error("you may not: this is for root and the group control.group"), client);
  }
}

static void answer(struct client *client, const char *line, size_t len) {
  json_error_t error;
  json_t *request = json_loadb(line, len, 0, &error);
  client->awaiting = true;
  if (client->access == CONTROL_ACCESS_NONE ||
      (client->access == CONTROL_ACCESS_LOOK && request && !control_only_looks(request))) {
    refuse(client);
  } else if (request) {
    control_answer(client->control->master, request, reply, client);
  } else {
    reply(control_error("the request is not a line of JSON"), client);
  }
  json_decref(request);
}

static void on_read(struct bufferevent *buffer, void *owner) {
  struct client *client = owner;
  struct evbuffer *input = bufferevent_get_input(buffer);
  size_t len = 0;
  char *line = evbuffer_readln(input, &len, EVBUFFER_EOL_LF);
  if (line) {
    bufferevent_disable(buffer, EV_READ);
    answer(client, line, len);
    free(line);
  } else if (evbuffer_get_length(input) > REQUEST_MAX_BYTES) {
    bufferevent_disable(buffer, EV_READ);
    reply(control_error("the request is too long"), client);
  }
}

// Takes over fd. NULL: there are too many, or memory is out.
static struct client *new_client(struct control *control, int fd, enum control_access access) {
  struct client *client =
      control->client_count[access] < clients_max[access] ? calloc(1, sizeof *client) : NULL;
  if (client) {
    evutil_make_socket_nonblocking(fd);
    client->buffer = bufferevent_socket_new(control->master->base, fd, BEV_OPT_CLOSE_ON_FREE);
  }
  if (!client || !client->buffer) {
    free(client);
    evutil_closesocket(fd);
    return NULL;
  }
  client->control = control;
  client->access = access;
  control->client_count[access]++;
  LIST_INSERT_HEAD(&control->clients, client, link);
  bufferevent_setcb(client->buffer, on_read, NULL, on_event, client);
  bufferevent_set_timeouts(client->buffer, &client_timeout, &client_timeout);
  bufferevent_enable(client->buffer, EV_WRITE);
  return client;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int len, void *owner) {
  struct control *control = owner;
  (void)listener;
  (void)address;
  (void)len;
  struct client *client = new_client(control, fd, control_access_of(fd, &control->groups));
  if (client) {
    bufferevent_enable(client->buffer, EV_READ);
  }
}

// --- The socket --------------------------------------------------------------------------

static bool somebody_answers(const struct sockaddr_un *address) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool answers = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;
  if (fd >= 0) {
    close(fd);
  }
  return answers;
}

// Its folder, made where it is missing. others: of further groups than ours have to get through;
// what is in it has a mode of its own.
static void make_folder(const char *path, bool others) {
  char folder[sizeof((struct sockaddr_un *)NULL)->sun_path];
  size_t len = strlen(path);
  struct stat status;
  if (len >= sizeof folder) {
    return;
  }
  memcpy(folder, path, len + 1);
  char *slash = strrchr(folder, '/');
  if (!slash || slash == folder) {
    return;
  }
  *slash = '\0';
  if (mkdir(folder, 0750) == 0 && others) {  // where it can't be made, binding says so
    (void)!chmod(folder, 0751);              // whatever our umask
  }
  if (others && stat(folder, &status) == 0 && (status.st_mode & S_IXOTH) == 0) {
    char quoted[256];
    log_warn("control_folder_closed",
             "path=%s hint=\"control.group or control.read_group may not "
             "get through it; chmod o+x\"",
             log_quote(quoted, sizeof quoted, folder, strlen(folder)));
  }
}

static bool is_for_others(const struct control *control) {
  return control->groups.has_read_group || control->groups.group != getegid();
}

// Binds control->path. NULL with the reason in why.
static struct evconnlistener *listen_at(struct control *control, char *why, size_t why_size) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  // A file has one group, and that is ours. For further ones everybody can connect, and it is
  // control_access alone that tells who may what, as it does in any case. An access control list
  // would keep strangers out at the door, but not every file system has them; giving the file to
  // another group takes a system call that a sandboxed service lacks; and neither tells who may
  // only look. Strangers get nothing but a refusal, and of their connections there are few at a
  // time.
  bool others = is_for_others(control);
  strcpy(address.sun_path, control->path);
  make_folder(control->path, others);
  unlink(control->path);
  mode_t mask = umask(others ? 0111 : 0117);
  struct evconnlistener *listener = evconnlistener_new_bind(
      control->master->base, on_accept, control, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, -1,
      (struct sockaddr *)&address, sizeof address);
  int error = errno;
  umask(mask);
  if (!listener) {
    snprintf(why, why_size, "can't listen on %s (control.socket): %s", control->path,
             strerror(error));
  }
  return listener;
}

// That of the program before this one in the same process, if it listened at the same path.
static int inherited_fd(const struct master *master) {
  const char *path = json_string_value(json_object_get(master->saved, "control_path"));
  return path && strcmp(path, master->config.control.socket) == 0
             ? takeover_fd(master->saved, "control_fd")
             : -1;
}

struct control *control_new(struct master *master, char *why, size_t why_size) {
  int inherited = inherited_fd(master);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char *path = master->config.control.socket;
  struct control *control = calloc(1, sizeof *control);

  if (!control || strlen(path) >= sizeof address.sun_path) {
    snprintf(why, why_size, "control.socket: %s", control ? "the path is too long" : "no memory");
    free(control);
    return NULL;
  }
  strcpy(address.sun_path, path);
  if (inherited < 0 && somebody_answers(&address)) {
    snprintf(why, why_size, "a gateway is running already: it answers on %s", path);
    free(control);
    return NULL;
  }
  if (control_groups_find(&master->config, &control->groups, why, why_size) != 0) {
    free(control);
    return NULL;
  }
  control->master = master;
  strcpy(control->path, path);
  if (inherited >= 0) {
    control->listener =
        evconnlistener_new(master->base, on_accept, control,
                           LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, inherited);
    if (!control->listener) {
      snprintf(why, why_size, "control.socket: no memory");
      free(control);
      return NULL;
    }
    (void)!chmod(path, is_for_others(control) ? 0666 : 0660);
    return control;
  }
  control->listener = listen_at(control, why, why_size);
  if (!control->listener) {
    free(control);
    return NULL;
  }
  return control;
}

void control_drop_socket_before(struct control *control, const json_t *saved) {
  const char *path = json_string_value(json_object_get(saved, "control_path"));
  int fd = takeover_fd(saved, "control_fd");
  if (path && fd >= 0 && strcmp(path, control->path) != 0) {
    unlink(path);
    close(fd);
  }
}

void control_tick(struct control *control) {
  char why[256], quoted[320];
  if (access(control->path, F_OK) == 0 || errno != ENOENT) {
    return;
  }
  struct evconnlistener *listener = listen_at(control, why, sizeof why);
  if (listener) {
    evconnlistener_free(control->listener);
    control->listener = listener;
    log_warn("control_socket_removed",
             "path=%s hint=\"somebody has removed it; it is there again\"",
             log_quote(quoted, sizeof quoted, control->path, strlen(control->path)));
  } else {
    log_limited(LOG_LEVEL_ERROR, "control_socket_lost", "why=%s",
                log_quote(quoted, sizeof quoted, why, strlen(why)));
  }
}

int control_fd(const struct control *control) { return evconnlistener_get_fd(control->listener); }

int control_asker_fd(const void *context) {
  const struct client *client = context;
  return client->buffer ? bufferevent_getfd(client->buffer) : -1;
}

void *control_adopt_asker(struct control *control, int fd) {
  struct client *client = new_client(control, fd, CONTROL_ACCESS_ALL);
  if (client) {
    client->awaiting = true;
  }
  return client;
}

void control_answer_asker(json_t *answer, void *context) { reply(answer, context); }

void control_free(struct control *control) {
  if (control) {
    unlink(control->path);
    evconnlistener_free(control->listener);
    while (!LIST_EMPTY(&control->clients)) {
      struct client *client = LIST_FIRST(&control->clients);
      // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
      client->awaiting = false;  // nobody answers any more
      client_free(client);
    }
    free(control);
  }
}
