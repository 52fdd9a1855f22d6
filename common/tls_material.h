// What the listeners need for TLS: certificates, private keys and authorities as their files
// hold them, and the keys of session tickets; and the keys of logins, which change as they do. The
// master reads the files and publishes it all in a segment that it alone writes; workers read it
// when they start and when they are told that it has changed. A segment is locked in memory and
// left out of core dumps.
//
// Any thread, but one at a time.
#ifndef JANUS_COMMON_TLS_MATERIAL_H
#define JANUS_COMMON_TLS_MATERIAL_H

#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/error.h"

enum {
  TLS_FILE_MAX_BYTES = 64 << 10,
  TLS_RECORDS_MAX_BYTES = 1 << 20,
  TLS_TICKET_KEYS = 2,
};

enum tls_record_kind {
  TLS_RECORD_CERTIFICATE,  // with its chain; its key is the record behind it
  TLS_RECORD_KEY,
  TLS_RECORD_CLIENT_CA,
};

struct tls_ticket_key {
  uint8_t name[16];
  uint8_t encryption_key[32];
  uint8_t authentication_key[32];
};

struct tls_material {
  // The first is used for new tickets, the second for those that are out. All workers have the
  // same, and they outlive a reload.
  struct tls_ticket_key tickets[TLS_TICKET_KEYS];
  struct secrets secrets;               // the keys of logins, and nothing else
  int64_t expiry_ms[CONFIG_LISTENERS];  // of the first certificate that does; 0 without TLS
  uint64_t len;                         // of records
  uint8_t records[TLS_RECORDS_MAX_BYTES];
};

// One file of a listener. text ends in a NUL, which len does not count.
struct tls_record {
  uint32_t listener;  // its place in server.listeners
  uint32_t kind;
  uint32_t len;
  const char *text;
  const char *path;  // where it was read; for messages
};

// Locked, left out of core dumps, and wiped when it is freed. Without records and with fresh
// ticket keys. NULL when out of memory.
struct tls_material *tls_material_new(void);
void tls_material_free(struct tls_material *material);  // accepts NULL

// Reads the files of all listeners with TLS, in place of the records before; not of those at the
// places where skipped (NULL: none) is true. Every fault is reported as "KEY: FILE ...". 0 or
// ERROR_INVALID.
int tls_material_read(struct tls_material *material, const struct config *config,
                      const bool *skipped, config_report *report, void *context) MUST_CHECK;

// Adds the records that other has for the listener at that place. ERROR_EXHAUSTED.
int tls_material_keep(struct tls_material *material, const struct tls_material *other,
                      uint32_t listener) MUST_CHECK;

// New tickets get a new key; those that are out stay good until it is called once more.
void tls_material_rotate(struct tls_material *material);

// The record after *record, which is zeroed for the first. False: no more.
bool tls_material_next(const struct tls_material *material, struct tls_record *record);

struct tls_segment;

// NULL when out of memory or descriptors.
struct tls_segment *tls_segment_create(void);
void tls_segment_publish(struct tls_segment *segment, const struct tls_material *material);
int tls_segment_fd(const struct tls_segment *segment);

// The reader's side. Takes over fd. NULL when it is no such segment.
struct tls_segment *tls_segment_open(int fd);
// ERROR_BUSY when the master is writing: it will tell when it has done so.
int tls_segment_read(const struct tls_segment *segment, struct tls_material *material) MUST_CHECK;

void tls_segment_free(struct tls_segment *segment);  // accepts NULL

#endif
