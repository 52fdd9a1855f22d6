// Starts a real redis-server, without persistence, on a free port, and speaks to it.
#ifndef JANUS_TEST_UNIT_REDIS_H
#define JANUS_TEST_UNIT_REDIS_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

struct redis_server {
  pid_t pid;
  int port;
  char address[64];
  redisContext *client;
};

// How long a test may wait for something, in ms; slow builds get more.
static inline int64_t redis_patience_ms(void) {
  const char *factor = getenv("JANUS_TEST_PATIENCE");
  return 20000 * (factor ? atoi(factor) : 1);
}

static inline int redis_free_port(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 ||
      getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
    perror("redis_free_port");
    exit(1);
  }
  close(fd);
  return ntohs(address.sin_port);
}

// Whether the one who answers there is ours, and not another that was given the same port.
static inline bool redis_is_ours(const struct redis_server *server) {
  char wanted[32];
  redisReply *reply = redisCommand(server->client, "INFO server");
  snprintf(wanted, sizeof wanted, "process_id:%d\r", (int)server->pid);
  bool ours = reply && reply->type == REDIS_REPLY_STRING && strstr(reply->str, wanted);
  if (reply) {
    freeReplyObject(reply);
  }
  return ours;
}

// Starts it at server->port. False: it ended at once, the port being taken.
static inline bool redis_try_start(struct redis_server *server) {
  char port[8];
  snprintf(port, sizeof port, "%d", server->port);
  snprintf(server->address, sizeof server->address, "127.0.0.1:%d", server->port);
  server->pid = fork();
  if (server->pid == 0) {
    int nowhere = open("/dev/null", O_WRONLY);
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // also when the test crashes
    dup2(nowhere, STDOUT_FILENO);
    execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
           "--appendonly", "no", (char *)NULL);
    perror("redis-server");
    _exit(127);
  }
  int64_t until_ms = clock_monotonic_ms() + redis_patience_ms();
  while (server->pid > 0 && clock_monotonic_ms() < until_ms) {
    if (waitpid(server->pid, NULL, WNOHANG) == server->pid) {
      return false;
    }
    // Another program may have been given the same port, and say nothing.
    const struct timeval patience = {.tv_sec = redis_patience_ms() / 1000};
    server->client = redisConnectWithTimeout("127.0.0.1", server->port, patience);
    if (server->client && server->client->err == 0 &&
        redisSetTimeout(server->client, patience) == REDIS_OK && redis_is_ours(server)) {
      return true;
    }
    redisFree(server->client);
    server->client = NULL;
    usleep(2000);
  }
  fprintf(stderr, "redis-server did not start\n");
  exit(1);
}

static inline void redis_start(struct redis_server *server) {
  for (int tries = 0; tries < 10; tries++) {
    server->port = redis_free_port();
    if (redis_try_start(server)) {
      return;
    }
  }
  fprintf(stderr, "redis-server did not start\n");
  exit(1);
}

static inline void redis_kill(struct redis_server *server) {
  if (server->pid > 0) {
    redisFree(server->client);
    server->client = NULL;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
  }
}

// One command. Its answer is to be freed; an error, or none, ends the program.
static inline redisReply *redis_ask(struct redis_server *server, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  redisReply *reply = redisvCommand(server->client, format, arguments);
  va_end(arguments);
  if (!reply || reply->type == REDIS_REPLY_ERROR) {
    fprintf(stderr, "%s: %s\n", format, reply ? reply->str : server->client->errstr);
    exit(1);
  }
  return reply;
}

#define redis_do(...) freeReplyObject(redis_ask(__VA_ARGS__))

#endif
