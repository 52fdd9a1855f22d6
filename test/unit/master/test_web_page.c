#include "master/web_page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// A folder, and what becomes of it.

static char folder[] = "/tmp/janus-web-XXXXXX";
static int folder_fd;
static char why[300];

static void put(const char *name, size_t len) {
  int fd = openat(folder_fd, name, O_WRONLY | O_CREAT, 0644);
  assert_true(fd >= 0);
  assert_int_equal(ftruncate(fd, (off_t)len), 0);
  close(fd);
}

static int set_up(void **state) {
  (void)state;
  strcpy(folder, "/tmp/janus-web-XXXXXX");
  folder_fd = mkdtemp(folder) ? open(folder, O_RDONLY | O_DIRECTORY) : -1;
  put("index.html", 10);
  return folder_fd < 0;
}

static int tear_down(void **state) {
  const struct dirent *entry;
  DIR *all = fdopendir(folder_fd);
  (void)state;
  while (all && (entry = readdir(all)) != NULL) {
    if (unlinkat(folder_fd, entry->d_name, 0) != 0) {
      unlinkat(folder_fd, entry->d_name, AT_REMOVEDIR);
    }
  }
  closedir(all);
  return rmdir(folder);
}

// The paths, in the order of the alphabet.
static void expect_served(const char *wanted) {
  struct http_route routes[WEB_PAGE_ROUTES_MAX];
  char all[400] = "";
  struct web_page *page = web_page_load(folder, why, sizeof why);
  assert_non_null(page);
  size_t count = web_page_routes(page, routes, 0);
  for (const char *last = "";;) {
    const char *next = NULL;
    for (size_t i = 0; i < count; i++) {
      const char *path = routes[i].path;
      if (strcmp(path, last) > 0 && (!next || strcmp(path, next) < 0)) {
        next = path;
      }
    }
    if (!next) {
      break;
    }
    strcat(strcat(all, " "), next);
    last = next;
  }
  assert_string_equal(all, wanted);
  web_page_free(page);
}

static void expect_refused(const char *reason) {
  assert_null(web_page_load(folder, why, sizeof why));
  if (!strstr(why, reason)) {
    fail_msg("%s", why);
  }
}

static void files_of_known_endings_are_served(void **state) {
  (void)state;
  put("page.css", 0);
  put("x.js", 100);
  expect_served(" /web /web/ /web/index.html /web/page.css /web/x.js");
}

static void what_is_no_such_file_is_left_out(void **state) {
  (void)state;
  put("secret.conf", 1);
  put("js", 1);
  put(".hidden.js", 1);
  assert_int_equal(symlinkat("/etc/passwd", folder_fd, "link.js"), 0);
  assert_int_equal(mkdirat(folder_fd, "folder.js", 0755), 0);
  assert_int_equal(mkfifoat(folder_fd, "pipe.js", 0644), 0);
  expect_served(" /web /web/ /web/index.html");
}

static void a_folder_without_an_index_is_refused(void **state) {
  (void)state;
  unlinkat(folder_fd, "index.html", 0);
  put("x.js", 1);
  expect_refused("can't be served: it has no index.html");
}

static void what_is_no_folder_is_refused(void **state) {
  (void)state;
  assert_null(web_page_load("/dev/null", why, sizeof why));
  assert_string_equal(why, "server.http.web: /dev/null can't be served: Not a directory");
  assert_null(web_page_load("/nowhere", why, sizeof why));
  assert_string_equal(why, "server.http.web: /nowhere can't be served: No such file or directory");
}

static void the_number_of_files_is_bounded(void **state) {
  char name[16];
  (void)state;
  for (int i = 0; i < WEB_PAGE_FILES_MAX; i++) {
    snprintf(name, sizeof name, "%d.js", i);
    put(name, 1);
  }
  expect_refused("it has more than 32 files");
  unlinkat(folder_fd, "0.js", 0);
  struct web_page *page = web_page_load(folder, why, sizeof why);
  assert_non_null(page);
  web_page_free(page);
}

static void their_size_is_bounded_together(void **state) {
  (void)state;
  put("a.js", WEB_PAGE_BYTES_MAX - 10);
  expect_served(" /web /web/ /web/a.js /web/index.html");
  put("b.js", 1);
  expect_refused("its files have more than 4194304 bytes");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(files_of_known_endings_are_served),    TEST(what_is_no_such_file_is_left_out),
      TEST(a_folder_without_an_index_is_refused), TEST(what_is_no_folder_is_refused),
      TEST(the_number_of_files_is_bounded),       TEST(their_size_is_bounded_together),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
