#include "master/web_page.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

#define LOG_MODULE LOG_MODULE_OPERATIONS

#define PREFIX "/web/"

struct file {
  char path[sizeof PREFIX + NAME_MAX];  // as it is asked for
  const char *type;
  char *bytes;
  size_t len;
};

struct web_page {
  struct file files[WEB_PAGE_FILES_MAX];
  size_t count;
  size_t bytes;  // of all of them
  const struct file *index;
};

static const struct {
  const char *ending, *type;
} types[] = {
    {".html", "text/html; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".js", "text/javascript"},
    {".svg", "image/svg+xml"},
    {".png", "image/png"},
};

// A page speaks to whatever gateway the user names, and else runs nothing but its own.
static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static void on_file(struct http_request *request, void *owner) {
  const struct file *file = owner;
  http_request_add_header(request, "Content-Security-Policy", policy);
  http_request_add_header(request, "X-Content-Type-Options", "nosniff");
  http_request_add_header(request, "Cache-Control", "no-cache");
  http_request_answer(request, 200, file->type, file->bytes, file->len);
}

static void on_no_slash(struct http_request *request, void *owner) {
  (void)owner;
  http_request_add_header(request, "Location", PREFIX);
  http_request_answer(request, 308, NULL, "", 0);
}

// NULL: it is not served.
static const char *type_of(const char *name) {
  const char *dot = strrchr(name, '.');
  for (size_t i = 0; dot && i < sizeof types / sizeof types[0]; i++) {
    if (strcmp(dot, types[i].ending) == 0) {
      return types[i].type;
    }
  }
  return NULL;
}

// All of a file of that length into memory; false with the reason in errno.
static bool read_whole(int fd, struct file *file) {
  file->bytes = malloc(file->len + 1);
  for (size_t have = 0; file->bytes && have < file->len;) {
    ssize_t got = read(fd, file->bytes + have, file->len - have);
    if (got == 0) {
      errno = EAGAIN;  // somebody is writing it
      return false;
    }
    if (got < 0 && errno != EINTR) {
      return false;
    }
    have += got > 0 ? (size_t)got : 0;
  }
  return file->bytes != NULL;
}

static void log_left_out(const char *name, const char *why) {
  char quoted[2 * NAME_MAX];
  log_warn("web_file_left_out", "name=%s why=\"%s\"",
           log_quote(quoted, sizeof quoted, name, strlen(name)), why);
}

// Takes the file in, or leaves it out. False: the page is not to be served, see why.
static bool take(struct web_page *page, int folder, const char *name, char *why, size_t why_size) {
  struct stat status;
  const char *type = type_of(name);
  // A pipe would hold us up before we see that it is none.
  int fd = type ? openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
  if (!type || (fd < 0 && errno == ELOOP) ||
      (fd >= 0 && fstat(fd, &status) == 0 && !S_ISREG(status.st_mode))) {
    log_left_out(name, type ? "it is no file" : "nothing of its ending is served");
    if (fd >= 0) {
      close(fd);
    }
    return true;
  }
  bool ok = false;
  struct file *file = &page->files[page->count];
  if (fd < 0 || fstat(fd, &status) != 0) {
    snprintf(why, why_size, "%s can't be read: %s", name, strerror(errno));
  } else if (page->count == WEB_PAGE_FILES_MAX) {
    snprintf(why, why_size, "it has more than %d files", WEB_PAGE_FILES_MAX);
  } else if ((uint64_t)status.st_size > WEB_PAGE_BYTES_MAX - page->bytes) {
    snprintf(why, why_size, "its files have more than %d bytes", WEB_PAGE_BYTES_MAX);
  } else {
    page->count++;  // from here on it is freed with the page
    *file = (struct file){.type = type, .len = (size_t)status.st_size};
    snprintf(file->path, sizeof file->path, PREFIX "%s", name);
    page->bytes += file->len;
    ok = read_whole(fd, file);
    if (!ok) {
      snprintf(why, why_size, "%s can't be read: %s", name, strerror(errno));
    }
    if (strcmp(name, "index.html") == 0) {
      page->index = file;
    }
  }
  if (fd >= 0) {
    close(fd);
  }
  return ok;
}

static bool take_all(struct web_page *page, DIR *folder, char *why, size_t why_size) {
  const struct dirent *entry;
  while (errno = 0, (entry = readdir(folder)) != NULL) {
    if (entry->d_name[0] != '.' && !take(page, dirfd(folder), entry->d_name, why, why_size)) {
      return false;
    }
  }
  if (errno != 0) {
    snprintf(why, why_size, "%s", strerror(errno));
    return false;
  }
  if (!page->index) {
    snprintf(why, why_size, "it has no index.html");
    return false;
  }
  return true;
}

struct web_page *web_page_load(const char *folder, char *why, size_t why_size) {
  char reason[NAME_MAX + 128] = "out of memory";
  struct web_page *page = calloc(1, sizeof *page);
  DIR *open = page ? opendir(folder) : NULL;
  if (page && !open) {
    snprintf(reason, sizeof reason, "%s", strerror(errno));
  }
  bool ok = open && take_all(page, open, reason, sizeof reason);
  if (open) {
    closedir(open);
  }
  if (!ok) {
    snprintf(why, why_size, "server.http.web: %s can't be served: %s", folder, reason);
    web_page_free(page);
    return NULL;
  }
  return page;
}

void web_page_free(struct web_page *page) {
  if (page) {
    for (size_t i = 0; i < page->count; i++) {
      free(page->files[i].bytes);
    }
    free(page);
  }
}

size_t web_page_routes(const struct web_page *page, struct http_route *routes, size_t count) {
  static const char no_slash[] = "/web";
  for (size_t i = 0; i < page->count; i++) {
    const struct file *file = &page->files[i];
    routes[count++] =
        (struct http_route){file->path, "GET", on_file, NULL, (void *)(uintptr_t)file};
  }
  routes[count++] =
      (struct http_route){PREFIX, "GET", on_file, NULL, (void *)(uintptr_t)page->index};
  routes[count++] = (struct http_route){no_slash, "GET", on_no_slash, NULL, NULL};
  return count;
}
