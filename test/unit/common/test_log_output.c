#include "common/log_output.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sched.h>
#include <sys/mount.h>

#include <cmocka.h>

#define LOG_MODULE LOG_MODULE_LOG

static char folder[64];
static char text[1 << 16];
static int stderr_fd;
static int captured_fd;

// Standard error goes into a file meanwhile.
static void capture_start(void) {
  char path[] = "/tmp/janus-test-log-XXXXXX";
  captured_fd = mkstemp(path);
  assert_true(captured_fd >= 0);
  unlink(path);
  fcntl(captured_fd, F_SETFL, O_APPEND);
  stderr_fd = dup(STDERR_FILENO);
  dup2(captured_fd, STDERR_FILENO);
}

static const char *capture_stop(void) {
  dup2(stderr_fd, STDERR_FILENO);
  close(stderr_fd);
  ssize_t len = pread(captured_fd, text, sizeof text - 1, 0);
  text[len > 0 ? len : 0] = '\0';
  close(captured_fd);
  return text;
}

static const char *in_folder(const char *name) {
  static char path[2][128];
  static int next;
  next = !next;
  snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
  return path[next];
}

static const char *content(const char *path) {
  int fd = open(path, O_RDONLY);
  ssize_t len = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
  text[len > 0 ? len : 0] = '\0';
  if (fd >= 0) {
    close(fd);
  }
  return text;
}

static int make_folder(void **state) {
  (void)state;
  strcpy(folder, "/tmp/janus-test-logs-XXXXXX");
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_INFO, "master");
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  char command[128];
  (void)state;
  snprintf(command, sizeof command, "rm -rf %s", folder);
  (void)log_output_tick();
  return log_output_open(LOG_OUTPUT_STDERR, "") != 0 || system(command) != 0;
}

static void a_file_is_appended_to_and_is_not_for_everyone(void **state) {
  struct stat status;
  (void)state;
  const char *path = in_folder("log");
  int fd = open(path, O_WRONLY | O_CREAT, 0640);
  assert_int_equal(write(fd, "before\n", 7), 7);
  close(fd);
  assert_int_equal(log_output_open(LOG_OUTPUT_FILE, path), 0);
  log_info("one", "a=1");
  assert_memory_equal(content(path), "before\n", 7);
  assert_non_null(strstr(text, "event=one a=1\n"));
  const char *fresh = in_folder("fresh");
  assert_int_equal(log_output_open(LOG_OUTPUT_FILE, fresh), 0);
  assert_int_equal(stat(fresh, &status), 0);
  assert_int_equal(status.st_mode & 07777 & ~0640U, 0);
}

static void a_renamed_file_is_left_when_it_is_opened_anew(void **state) {
  (void)state;
  char path[128], old[128];
  strcpy(path, in_folder("log"));
  strcpy(old, in_folder("log.1"));
  assert_int_equal(log_output_open(LOG_OUTPUT_FILE, path), 0);
  log_info("one", "a=1");
  assert_int_equal(rename(path, old), 0);
  log_info("two", "a=1");
  assert_int_equal(log_output_reopen(), 0);
  log_info("three", "a=1");
  content(old);
  assert_non_null(strstr(text, "event=one"));
  assert_non_null(strstr(text, "event=two"));
  assert_null(strstr(text, "event=three"));
  content(path);
  assert_non_null(strstr(text, "event=three"));
  assert_null(strstr(text, "event=two"));
  assert_int_equal(log_output_tick(), 0);
}

static void a_file_that_cannot_be_opened_is_an_error_at_the_start(void **state) {
  (void)state;
  assert_int_not_equal(log_output_open(LOG_OUTPUT_FILE, in_folder("gone/log")), 0);
  assert_int_equal(errno, ENOENT);
}

static void a_full_disk_loses_lines_which_are_counted_and_told_of_once(void **state) {
  (void)state;
  assert_int_equal(log_output_open(LOG_OUTPUT_FILE, "/dev/full"), 0);
  capture_start();
  log_info("one", "a=1");
  log_info("two", "a=1");
  capture_stop();
  assert_int_equal(log_output_tick(), 2);
  const char *line = strstr(text, "event=log_lost");
  assert_non_null(line);
  assert_non_null(strstr(line, "No space left on device"));
  assert_null(strstr(line + 1, "event=log_lost"));
}

static void a_folder_that_is_gone_and_back_gets_lines_again_with_the_count(void **state) {
  (void)state;
  char path[128], sub[128];
  strcpy(sub, in_folder("sub"));
  strcpy(path, in_folder("sub/log"));
  assert_int_equal(mkdir(sub, 0750), 0);
  assert_int_equal(log_output_open(LOG_OUTPUT_FILE, path), 0);
  (void)log_output_tick();
  log_info("one", "a=1");
  assert_int_equal(unlink(path), 0);
  assert_int_equal(rmdir(sub), 0);
  capture_start();
  (void)log_output_tick();  // finds that it is gone
  log_info("two", "a=1");
  log_info("three", "a=1");
  assert_int_not_equal(log_output_reopen(), 0);
  assert_int_equal(log_output_tick(), 2);
  capture_stop();
  assert_non_null(strstr(text, "event=log_lost"));
  assert_int_equal(mkdir(sub, 0750), 0);
  assert_int_equal(log_output_tick(), 0);
  log_info("four", "a=1");
  content(path);
  assert_non_null(strstr(text, "event=log_restored lost="));
  assert_non_null(strstr(text, "event=four"));
  assert_null(strstr(text, "event=two"));
}

static void the_journal_gets_each_line_behind_its_priority(void **state) {
  struct stat status;
  char stream[64];
  (void)state;
  capture_start();
  assert_int_equal(fstat(STDERR_FILENO, &status), 0);
  snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
  setenv("JOURNAL_STREAM", stream, 1);
  assert_int_equal(log_output_open(LOG_OUTPUT_STDERR, ""), 0);
  log_info("one", "a=1");
  log_error("two", "a=1");
  setenv("JOURNAL_STREAM", "1:1", 1);  // of another program's
  assert_int_equal(log_output_open(LOG_OUTPUT_STDERR, ""), 0);
  log_info("three", "a=1");
  unsetenv("JOURNAL_STREAM");
  capture_stop();
  assert_memory_equal(text, "<6>time=", 8);
  assert_non_null(strstr(text, "\n<3>time="));
  assert_non_null(strstr(text, "\ntime="));
}

// With a /dev/log of our own, in a name space of our own. Returns what is wrong, 0 for nothing.
static int log_to_own_syslog(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
  char line[4096];
  if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
      mount("none", "/dev", "tmpfs", 0, NULL) != 0) {
    return 1;
  }
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  const struct timeval bound = {.tv_sec = 20};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
      log_output_open(LOG_OUTPUT_SYSLOG, "") != 0) {
    return 2;
  }
  log_warn("one", "percent=%s", "%s%n");
  ssize_t len = recv(fd, line, sizeof line - 1, 0);
  line[len > 0 ? len : 0] = '\0';
  // Facility daemon is 3, warning 4.
  return strncmp(line, "<28>", 4) == 0 && strstr(line, "janus-gate[") &&
                 strstr(line, "level=warn") && strstr(line, "event=one percent=%s%n")
             ? 0
             : 3;
}

static void syslog_gets_lines_with_their_priority(void **state) {
  int status;
  (void)state;
  pid_t pid = fork();
  if (pid == 0) {
    _exit(log_to_own_syslog());
  }
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == 1) {
    print_message("a mount name space is not to be had here (root?): syslog is NOT tested\n");
    skip();
  }
  assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
  const struct CMUnitTest tests[] = {
      TEST(a_file_is_appended_to_and_is_not_for_everyone),
      TEST(a_renamed_file_is_left_when_it_is_opened_anew),
      TEST(a_file_that_cannot_be_opened_is_an_error_at_the_start),
      TEST(a_full_disk_loses_lines_which_are_counted_and_told_of_once),
      TEST(a_folder_that_is_gone_and_back_gets_lines_again_with_the_count),
      TEST(the_journal_gets_each_line_behind_its_priority),
      TEST(syslog_gets_lines_with_their_priority),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
