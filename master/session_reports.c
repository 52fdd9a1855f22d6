#include "master/session_reports.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

static const struct timeval answer_timeout = {.tv_sec = 2};

enum { QUESTIONS_MAX = 16 };  // as many as janusctl may ask at a time

struct question {
  LIST_ENTRY(question) link;
  struct session_reports *reports;
  uint64_t id;
  bool awaited[CONFIG_WORKER_NUMBERS];
  size_t awaited_count;
  struct event *timer;
  session_reports_on_answer *on_answer;
  void *context;
  struct session_reports_answer answer;
  size_t session_room;
  size_t tunnel_room;
};

struct session_reports {
  struct event_base *base;
  struct workers *workers;
  uint64_t next_id;
  size_t count;
  LIST_HEAD(questions, question) questions;
};

static void finish(struct question *question) {
  question->answer.complete = question->answer.complete && question->awaited_count == 0;
  LIST_REMOVE(question, link);
  question->reports->count--;
  question->on_answer(&question->answer, question->context);
  event_free(question->timer);
  free(question->answer.sessions);
  free(question->answer.tunnels);
  free(question);
}

static void on_timeout(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  finish(owner);
}

static void await_no_more(struct question *question, int worker) {
  question->awaited_count -= question->awaited[worker];
  question->awaited[worker] = false;
  if (question->awaited_count == 0) {
    finish(question);
  }
}

int session_reports_ask(struct session_reports *reports, int worker, uint64_t connection,
                        session_reports_on_answer *on_answer, void *context) {
  struct question *question = reports->count < QUESTIONS_MAX ? calloc(1, sizeof *question) : NULL;
  if (!question || !(question->timer = evtimer_new(reports->base, on_timeout, question))) {
    free(question);
    return reports->count < QUESTIONS_MAX ? ERROR_MEMORY : ERROR_EXHAUSTED;
  }
  const struct channel_report_ask ask = {.id = ++reports->next_id, .connection = connection};
  question->reports = reports;
  question->id = ask.id;
  question->on_answer = on_answer;
  question->context = context;
  question->answer.complete = true;
  for (int i = 0; i < workers_count(reports->workers); i++) {
    if ((connection == 0 || i == worker) &&
        workers_send(reports->workers, i, CHANNEL_REPORT_ASK, &ask) == 0) {
      question->awaited[i] = true;
      question->awaited_count++;
    }
  }
  LIST_INSERT_HEAD(&reports->questions, question, link);
  reports->count++;
  if (question->awaited_count == 0) {
    finish(question);
  } else {
    evtimer_add(question->timer, &answer_timeout);
  }
  return 0;
}

// One more at the end of an array that grows. False: out of memory.
static bool append(void **array, size_t *count, size_t *room, size_t size, const void *one) {
  if (*count == *room) {
    size_t wanted = *room > 0 ? *room * 2 : 64;
    void *larger = realloc(*array, wanted * size);
    if (!larger) {
      return false;
    }
    *array = larger;
    *room = wanted;
  }
  memcpy((char *)*array + *count * size, one, size);
  ++*count;
  return true;
}

static void take(struct question *question, int worker, enum channel_type type,
                 const void *content) {
  struct session_reports_answer *answer = &question->answer;
  bool taken = true;
  if (type == CHANNEL_SESSION_REPORT) {
    void *sessions = answer->sessions;
    taken = append(&sessions, &answer->session_count, &question->session_room,
                   sizeof *answer->sessions, content);
    answer->sessions = sessions;
  } else if (type == CHANNEL_TUNNEL_REPORT) {
    void *tunnels = answer->tunnels;
    taken = append(&tunnels, &answer->tunnel_count, &question->tunnel_room, sizeof *answer->tunnels,
                   content);
    answer->tunnels = tunnels;
  } else if (type == CHANNEL_PATH_REPORT) {
    memcpy(&answer->path, content, sizeof answer->path);
  } else {
    const struct channel_report_end *end = content;
    answer->complete = answer->complete && end->complete;
    await_no_more(question, worker);
    return;
  }
  answer->complete = answer->complete && taken;
}

void session_reports_on_message(struct session_reports *reports, int worker, enum channel_type type,
                                const void *content) {
  struct question *question;
  uint64_t id;
  memcpy(&id, content, sizeof id);  // the first of each of these
  LIST_FOREACH(question, &reports->questions, link) {
    if (question->id == id && question->awaited[worker]) {
      take(question, worker, type, content);
      return;
    }
  }
  // Too late.
}

void session_reports_worker_gone(struct session_reports *reports, int worker) {
  struct question *next;
  for (struct question *question = LIST_FIRST(&reports->questions); question; question = next) {
    next = LIST_NEXT(question, link);
    if (question->awaited[worker]) {
      question->answer.complete = false;
      await_no_more(question, worker);
    }
  }
}

struct session_reports *session_reports_new(struct event_base *base, struct workers *workers) {
  struct session_reports *reports = calloc(1, sizeof *reports);
  if (reports) {
    reports->base = base;
    reports->workers = workers;
    LIST_INIT(&reports->questions);
  }
  return reports;
}

void session_reports_free(struct session_reports *reports) {
  struct question *question;
  if (!reports) {
    return;
  }
  while ((question = LIST_FIRST(&reports->questions))) {
    finish(question);  // NOLINT(clang-analyzer-unix.Malloc): it leaves the list first
  }
  free(reports);
}
