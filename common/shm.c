#include "common/shm.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

enum { SIZE_SEALS = F_SEAL_SHRINK | F_SEAL_GROW };

static int map(struct shm *shm, int fd, size_t size, bool writable) {
  void *base = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    return ERROR_SYSTEM;
  }
  *shm = (struct shm){.base = base, .size = size, .fd = fd};
  return 0;
}

int shm_create(struct shm *shm, const char *name, size_t size, bool only_writer) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  *shm = (struct shm){.fd = -1};
  if (fd < 0) {
    return ERROR_SYSTEM;
  }
  // Mapped first: the seal against writing spares mappings that exist.
  if (ftruncate(fd, (off_t)size) != 0 || map(shm, fd, size, true) != 0) {
    close(fd);
    return ERROR_SYSTEM;
  }
  if (fcntl(fd, F_ADD_SEALS, SIZE_SEALS | F_SEAL_SEAL | (only_writer ? F_SEAL_FUTURE_WRITE : 0)) !=
      0) {
    shm_unmap(shm);
    return ERROR_SYSTEM;
  }
  return 0;
}

int shm_map(struct shm *shm, int fd, bool writable) {
  struct stat status;
  int seals = fcntl(fd, F_GET_SEALS);
  int error = 0;
  *shm = (struct shm){.fd = -1};
  if (fstat(fd, &status) != 0) {
    error = ERROR_SYSTEM;
  } else if (seals < 0 || (seals & SIZE_SEALS) != SIZE_SEALS || status.st_size <= 0) {
    error = ERROR_INVALID;
  } else {
    error = map(shm, fd, (size_t)status.st_size, writable);
  }
  if (error != 0) {
    close(fd);
  }
  return error;
}

void shm_unmap(struct shm *shm) {
  if (shm->base) {
    munmap(shm->base, shm->size);
    close(shm->fd);
  }
  *shm = (struct shm){.fd = -1};
}
