#include "common/tls_material.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/shm.h"

enum { KEY_NAME_BYTES = 64 };

struct header {
  uint32_t listener;
  uint32_t kind;
  uint32_t len;
  uint32_t path_len;
};

// --- Material ------------------------------------------------------------------------

struct tls_material *tls_material_new(void) {
  struct tls_material *material = sodium_malloc(sizeof *material);
  if (material) {
    memset(material, 0, sizeof *material);
    randombytes_buf(material->tickets, sizeof material->tickets);
  }
  return material;
}

void tls_material_free(struct tls_material *material) { sodium_free(material); }

void tls_material_rotate(struct tls_material *material) {
  memmove(material->tickets + 1, material->tickets,
          sizeof material->tickets - sizeof material->tickets[0]);
  randombytes_buf(material->tickets, sizeof material->tickets[0]);
}

bool tls_material_next(const struct tls_material *material, struct tls_record *record) {
  struct header header;
  size_t at = record->text
                  ? (size_t)((const uint8_t *)record->text - material->records) + record->len + 1
                  : 0;
  if (at + sizeof header > material->len) {
    return false;
  }
  memcpy(&header, material->records + at, sizeof header);
  const char *path = (const char *)material->records + at + sizeof header;
  *record = (struct tls_record){.listener = header.listener,
                                .kind = header.kind,
                                .len = header.len,
                                .text = path + header.path_len + 1,
                                .path = path};
  return true;
}

int tls_material_keep(struct tls_material *material, const struct tls_material *other,
                      uint32_t listener) {
  struct tls_record record = {.text = NULL};
  while (tls_material_next(other, &record)) {
    size_t size = sizeof(struct header) + strlen(record.path) + 1 + record.len + 1;
    if (record.listener != listener) {
      continue;
    }
    if (size > sizeof material->records - material->len) {
      return ERROR_EXHAUSTED;
    }
    memcpy(material->records + material->len, record.path - sizeof(struct header), size);
    material->len += size;
  }
  return 0;
}

// Reads len bytes of text from path, which was opened as fd, behind a header. Returns what is
// wrong, or NULL.
static const char *add_file(struct tls_material *material, struct header header, const char *path,
                            int fd) {
  size_t path_len = strlen(path);
  size_t at = material->len + sizeof header + path_len + 1;
  size_t len = 0;
  if (at + TLS_FILE_MAX_BYTES + 1 > sizeof material->records) {
    return "is one too many: all files together are too large";
  }
  for (;;) {
    ssize_t got = read(fd, material->records + at + len, TLS_FILE_MAX_BYTES + 1 - len);
    if (got < 0) {
      return strerror(errno);
    }
    if (got == 0) {
      break;
    }
    len += (size_t)got;
    if (len > TLS_FILE_MAX_BYTES) {
      return "is too large";
    }
  }
  if (len == 0) {
    return "is empty";
  }
  header.len = (uint32_t)len;
  header.path_len = (uint32_t)path_len;
  memcpy(material->records + material->len, &header, sizeof header);
  memcpy(material->records + material->len + sizeof header, path, path_len + 1);
  material->records[at + len] = '\0';
  material->len = at + len + 1;
  return NULL;
}

struct reading {
  struct tls_material *material;
  config_report *report;
  void *context;
  bool failed;
};

static void fail(struct reading *reading, const char *key, const char *path, const char *what) {
  char fault[2 * CONFIG_LIST_BYTES];
  snprintf(fault, sizeof fault, "%s: %s %s", key, path, what);
  reading->report(fault, reading->context);
  reading->failed = true;
}

static void read_file(struct reading *reading, const char *key, const char *path, size_t listener,
                      enum tls_record_kind kind) {
  struct stat status;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 || fstat(fd, &status) != 0) {
    fail(reading, key, path, strerror(errno));
  } else if (kind == TLS_RECORD_KEY && (status.st_mode & 007) != 0) {
    fail(reading, key, path, "can be got at by everybody on this machine; run: chmod o-rwx on it");
  } else {
    struct header header = {.listener = (uint32_t)listener, .kind = kind};
    const char *wrong = add_file(reading->material, header, path, fd);
    if (wrong) {
      fail(reading, key, path, wrong);
    }
  }
  if (fd >= 0) {
    close(fd);
  }
}

// The next of a list with commas. False: no more.
static bool next_path(const char **list, char *path, size_t size) {
  size_t len = strcspn(*list, ",");
  if (len == 0) {
    return false;
  }
  snprintf(path, size, "%.*s", (int)len, *list);
  *list += len + ((*list)[len] == ',');
  return true;
}

int tls_material_read(struct tls_material *material, const struct config *config,
                      const bool *skipped, config_report *report, void *context) {
  struct reading reading = {.material = material, .report = report, .context = context};
  material->len = 0;
  for (size_t i = 0; i < config->server.listener_count; i++) {
    const struct config_listener *listener = &config->server.listeners[i];
    const char *certificates = listener->tls.cert;
    const char *keys = listener->tls.key;
    char name[KEY_NAME_BYTES], key[KEY_NAME_BYTES + 16];
    char certificate[CONFIG_LIST_BYTES], private_key[CONFIG_LIST_BYTES];
    if (listener->addr[0] == '\0' || !listener->tls.enabled || (skipped && skipped[i])) {
      continue;
    }
    config_listener_path(config, listener, name, sizeof name);
    while (next_path(&certificates, certificate, sizeof certificate) &&
           next_path(&keys, private_key, sizeof private_key)) {
      snprintf(key, sizeof key, "%s.tls.cert", name);
      read_file(&reading, key, certificate, i, TLS_RECORD_CERTIFICATE);
      snprintf(key, sizeof key, "%s.tls.key", name);
      read_file(&reading, key, private_key, i, TLS_RECORD_KEY);
    }
    if (listener->tls.client_ca[0] != '\0') {
      snprintf(key, sizeof key, "%s.tls.client_ca", name);
      read_file(&reading, key, listener->tls.client_ca, i, TLS_RECORD_CLIENT_CA);
    }
  }
  return reading.failed ? ERROR_INVALID : 0;
}

// --- The segment -----------------------------------------------------------------------

enum { READ_TRIES = 1000 };
enum { WORDS = (sizeof(struct tls_material) + 7) / 8 };

struct content {
  _Atomic uint64_t sequence;  // odd while it is written
  _Atomic uint64_t words[WORDS];
};

struct tls_segment {
  struct shm shm;
  struct content *content;
};

static void protect(const struct shm *shm) {
  // Where the system does not let us lock so much it stays as it is, as libsodium does it.
  (void)!mlock(shm->base, shm->size);
  (void)!madvise(shm->base, shm->size, MADV_DONTDUMP);
}

struct tls_segment *tls_segment_create(void) {
  struct tls_segment *segment = calloc(1, sizeof *segment);
  if (!segment || shm_create(&segment->shm, "janus-tls", sizeof(struct content), true) != 0) {
    free(segment);
    return NULL;
  }
  protect(&segment->shm);
  segment->content = segment->shm.base;
  return segment;
}

struct tls_segment *tls_segment_open(int fd) {
  struct tls_segment *segment = calloc(1, sizeof *segment);
  if (!segment) {
    close(fd);
    return NULL;
  }
  if (shm_map(&segment->shm, fd, false) != 0) {
    free(segment);
    return NULL;
  }
  if (segment->shm.size < sizeof(struct content)) {
    tls_segment_free(segment);
    return NULL;
  }
  protect(&segment->shm);
  segment->content = segment->shm.base;
  return segment;
}

void tls_segment_free(struct tls_segment *segment) {
  if (segment) {
    shm_unmap(&segment->shm);
    free(segment);
  }
}

int tls_segment_fd(const struct tls_segment *segment) { return segment->shm.fd; }

// As many words as are in use: the records stand at the end.
static size_t words_of(const struct tls_material *material) {
  return (offsetof(struct tls_material, records) + material->len + 7) / 8;
}

void tls_segment_publish(struct tls_segment *segment, const struct tls_material *material) {
  struct content *content = segment->content;
  uint64_t odd = atomic_load_explicit(&content->sequence, memory_order_relaxed) | 1;
  size_t count = words_of(material);
  atomic_store_explicit(&content->sequence, odd, memory_order_release);
  for (size_t i = 0; i < count; i++) {
    uint64_t word;
    memcpy(&word, (const uint8_t *)material + i * sizeof word, sizeof word);
    atomic_store_explicit(&content->words[i], word, memory_order_release);
  }
  atomic_store_explicit(&content->sequence, odd + 1, memory_order_release);
}

// One try.
static int try_read(const struct tls_segment *segment, struct tls_material *material) {
  const struct content *content = segment->content;
  uint64_t before = atomic_load_explicit(&content->sequence, memory_order_acquire);
  size_t count = offsetof(struct tls_material, records) / 8;
  for (size_t i = 0; i < count; i++) {
    uint64_t word = atomic_load_explicit(&content->words[i], memory_order_acquire);
    memcpy((uint8_t *)material + i * sizeof word, &word, sizeof word);
    if (i + 1 == offsetof(struct tls_material, records) / 8) {
      if (material->len > sizeof material->records) {
        return ERROR_BUSY;
      }
      count = words_of(material);
    }
  }
  bool torn =
      before & 1 || atomic_load_explicit(&content->sequence, memory_order_relaxed) != before;
  return torn ? ERROR_BUSY : 0;
}

int tls_segment_read(const struct tls_segment *segment, struct tls_material *material) {
  int error = ERROR_BUSY;
  for (int i = 0; i < READ_TRIES && error == ERROR_BUSY; i++) {
    error = try_read(segment, material);
    if (error == ERROR_BUSY) {
      sched_yield();
    }
  }
  return error;
}
_Static_assert(offsetof(struct tls_material, records) % 8 == 0, "records begin with a word");
_Static_assert(sizeof(struct tls_material) % 8 == 0, "whole words");
