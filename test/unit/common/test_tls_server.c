// TLS as a server, against OpenSSL as a client, over a socket pair.
#include "common/tls_server.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
// After those that it needs.
#include <cmocka.h>

#include "worker/tls_bytes.h"

static char folder[] = "/tmp/janus-test-tls-XXXXXX";
static struct config config;
static struct tls_material *material;

static void ignore_fault(const char *fault, void *context) {
  (void)context;
  fail_msg("%s", fault);
}

// A self-signed certificate for that name, and its key, as files.
static void make_certificate(const char *name, const char *cert, const char *key) {
  EVP_PKEY *pair = EVP_EC_gen("P-256");
  X509 *certificate = X509_new();
  X509_NAME *subject = X509_get_subject_name(certificate);
  char names[64];
  snprintf(names, sizeof names, "DNS:%s", name);
  X509_set_version(certificate, 2);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0);
  X509_set_issuer_name(certificate, subject);
  X509_set_pubkey(certificate, pair);
  X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
  X509_sign(certificate, pair, EVP_sha256());
  FILE *file = fopen(cert, "w");
  PEM_write_X509(file, certificate);
  fclose(file);
  file = fopen(key, "w");
  PEM_write_PrivateKey(file, pair, NULL, NULL, 0, NULL, NULL);
  fclose(file);
  chmod(key, 0600);
  X509_free(certificate);
  EVP_PKEY_free(pair);
}

static int set_up(void **state) {
  (void)state;
  struct config_listener *listener = &config.server.listeners[0];
  char cert[2][64], key[2][64];
  if (sodium_init() < 0 || !mkdtemp(folder) || !(material = tls_material_new())) {
    return -1;
  }
  for (int i = 0; i < 2; i++) {
    snprintf(cert[i], sizeof cert[i], "%s/%d.crt", folder, i);
    snprintf(key[i], sizeof key[i], "%s/%d.key", folder, i);
    make_certificate(i == 0 ? "first.example" : "second.example", cert[i], key[i]);
  }
  config.server.listener_count = 1;
  strcpy(listener->addr, "h:1");
  listener->tls.enabled = true;
  snprintf(listener->tls.cert, sizeof listener->tls.cert, "%s,%s", cert[0], cert[1]);
  snprintf(listener->tls.key, sizeof listener->tls.key, "%s,%s", key[0], key[1]);
  return tls_material_read(material, &config, NULL, ignore_fault, NULL);
}

static int tear_down(void **state) {
  (void)state;
  char command[128];
  tls_material_free(material);
  snprintf(command, sizeof command, "rm -r %s", folder);
  return system(command);  // NOLINT(cert-env33-c): a folder of our own making
}

struct pair {
  int fds[2];
  SSL_CTX *contexts[2];
  SSL *server, *client;
};

static void connect_pair(struct pair *pair, const struct tls_material *with, const char *name,
                         SSL_SESSION *session, int version) {
  char why[256] = "";
  int64_t expires;
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair->fds), 0);
  pair->contexts[0] =
      tls_server_context(&config.server.listeners[0], 0, with, &expires, why, sizeof why);
  assert_string_equal(why, "");
  assert_non_null(pair->contexts[0]);
  pair->contexts[1] = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_min_proto_version(pair->contexts[1], version);
  SSL_CTX_set_max_proto_version(pair->contexts[1], version);
  pair->server = tls_server(pair->contexts[0], pair->fds[0]);
  SSL_CTX_free(pair->contexts[0]);  // as a reload does
  pair->client = SSL_new(pair->contexts[1]);
  SSL_set_fd(pair->client, pair->fds[1]);
  SSL_set_tlsext_host_name(pair->client, name);
  if (session) {
    SSL_set_session(pair->client, session);
  }
  int done[2] = {0, 0};
  for (int i = 0; i < 10 && !(done[0] == 1 && done[1] == 1); i++) {
    done[1] = SSL_connect(pair->client);
    done[0] = SSL_accept(pair->server);
  }
  assert_int_equal(done[0], 1);
  assert_int_equal(done[1], 1);
}

static void close_pair(struct pair *pair) {
  // Without an end of its own the client's session would be good for nothing.
  SSL_set_shutdown(pair->client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  SSL_free(pair->server);
  SSL_free(pair->client);
  SSL_CTX_free(pair->contexts[1]);
  close(pair->fds[0]);
  close(pair->fds[1]);
}

// A session of the client's, with its ticket. To be freed.
static SSL_SESSION *session_of(struct pair *pair) {
  uint8_t byte;
  assert_int_equal(tls_send(pair->server, (const uint8_t *)"x", 1), 1);
  assert_int_equal(SSL_read(pair->client, &byte, 1), 1);
  return SSL_get1_session(pair->client);
}

static void the_server_name_picks_the_certificate(void **state) {
  (void)state;
  static const char *const names[][2] = {{"first.example", "first.example"},
                                         {"second.example", "second.example"},
                                         {"other.example", "first.example"}};
  for (size_t i = 0; i < 3; i++) {
    struct pair pair;
    connect_pair(&pair, material, names[i][0], NULL, TLS1_3_VERSION);
    X509 *shown = SSL_get1_peer_certificate(pair.client);
    assert_int_equal(X509_check_host(shown, names[i][1], 0, 0, NULL), 1);
    X509_free(shown);
    close_pair(&pair);
  }
}

static void a_ticket_lives_through_one_rotation(void **state) {
  (void)state;
  static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
  for (size_t v = 0; v < 2; v++) {
    for (int rotations = 0; rotations < 3; rotations++) {
      struct pair pair;
      // A session is resumed for a name of the second context too.
      connect_pair(&pair, material, "second.example", NULL, versions[v]);
      SSL_SESSION *session = session_of(&pair);
      close_pair(&pair);
      for (int i = 0; i < rotations; i++) {
        tls_material_rotate(material);
      }
      connect_pair(&pair, material, "second.example", session, versions[v]);
      assert_int_equal(SSL_session_reused(pair.server), rotations < TLS_TICKET_KEYS);
      SSL_SESSION_free(session);
      close_pair(&pair);
    }
  }
}

static void the_segment_carries_it_all(void **state) {
  (void)state;
  struct tls_segment *writer = tls_segment_create();
  struct tls_material *copy = tls_material_new();
  tls_segment_publish(writer, material);
  struct tls_segment *reader = tls_segment_open(dup(tls_segment_fd(writer)));
  assert_non_null(reader);
  assert_int_equal(tls_segment_read(reader, copy), 0);
  assert_int_equal(copy->len, material->len);
  assert_memory_equal(copy->records, material->records, material->len);
  struct pair pair;
  connect_pair(&pair, material, "first.example", NULL, TLS1_3_VERSION);
  SSL_SESSION *session = session_of(&pair);
  close_pair(&pair);
  connect_pair(&pair, copy, "first.example", session, TLS1_3_VERSION);
  assert_int_equal(SSL_session_reused(pair.server), 1);
  SSL_SESSION_free(session);
  close_pair(&pair);
  tls_material_free(copy);
  tls_segment_free(reader);
  tls_segment_free(writer);
}

static void bytes_go_both_ways_in_pieces(void **state) {
  (void)state;
  static uint8_t sent[300000], got[sizeof sent];
  struct pair pair;
  struct evbuffer *waiting = evbuffer_new();
  connect_pair(&pair, material, "first.example", NULL, TLS1_3_VERSION);
  for (size_t i = 0; i < sizeof sent; i++) {
    sent[i] = (uint8_t)(i * 7 >> 3);
  }
  ssize_t n = tls_send(pair.server, sent, sizeof sent);
  assert_true(n > 0 && (size_t)n < sizeof sent);  // the socket is full
  evbuffer_add(waiting, sent + n, sizeof sent - (size_t)n);
  for (size_t have = 0; have < sizeof sent;) {
    int read = SSL_read(pair.client, got + have, (int)(sizeof got - have));
    have += read > 0 ? (size_t)read : 0;
    if (evbuffer_get_length(waiting) > 0) {
      n = tls_send_buffer(pair.server, waiting);
      assert_true(n > 0 || errno == EAGAIN);
    }
  }
  assert_memory_equal(sent, got, sizeof sent);
  assert_true(tls_accepted_bytes(pair.server) > sizeof sent);

  bool more;
  assert_int_equal(tls_receive(pair.server, got, sizeof got, &more), -1);
  assert_int_equal(errno, EAGAIN);
  for (int i = 0; i < 10; i++) {
    assert_int_equal(SSL_write(pair.client, sent, 100), 100);
  }
  assert_int_equal(tls_receive(pair.server, got, 450, &more), 450);
  assert_true(more);
  assert_int_equal(tls_receive(pair.server, got, sizeof got, &more), 550);
  assert_false(more);
  SSL_shutdown(pair.client);
  assert_int_equal(tls_receive(pair.server, got, sizeof got, &more), 0);
  evbuffer_free(waiting);
  close_pair(&pair);
}

// A client may change its keys, but not for ever.
static void a_flood_of_new_keys_ends_the_connection(void **state) {
  (void)state;
  struct pair pair;
  uint8_t byte;
  bool more;
  int updates = 0;
  ssize_t got = -1;
  connect_pair(&pair, material, "first.example", NULL, TLS1_3_VERSION);
  for (; updates < 10000 && got < 0; updates++) {
    SSL_key_update(pair.client, SSL_KEY_UPDATE_NOT_REQUESTED);
    assert_int_equal(SSL_do_handshake(pair.client), 1);
    got = tls_receive(pair.server, &byte, 1, &more);
    assert_int_equal(got, -1);
    if (errno != EAGAIN) {
      break;
    }
  }
  assert_int_equal(errno, EPROTO);
  assert_in_range(updates, 100, 2000);
  close_pair(&pair);
}

// It is read no further, and must not be taken for one that says nothing.
static void new_keys_asked_for_by_one_who_takes_nothing_are_a_fault(void **state) {
  (void)state;
  static uint8_t bytes[1 << 20];
  struct pair pair;
  bool more;
  connect_pair(&pair, material, "first.example", NULL, TLS1_3_VERSION);
  int size = 1;  // of the server's send buffer: the least there is
  setsockopt(pair.fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  while (send(pair.fds[0], bytes, 1, 0) == 1) {  // not through TLS, which nobody gets to see
  }
  ssize_t got = -1;
  errno = EAGAIN;
  for (int i = 0; i < 500 && got == -1 && errno == EAGAIN; i++) {
    SSL_key_update(pair.client, SSL_KEY_UPDATE_REQUESTED);
    assert_int_equal(SSL_do_handshake(pair.client), 1);
    got = tls_receive(pair.server, bytes, sizeof bytes, &more);
  }
  assert_int_equal(got, -1);
  assert_int_equal(errno, EPROTO);
  close_pair(&pair);
}

static void a_broken_record_behind_a_good_one_is_a_fault(void **state) {
  (void)state;
  static const uint8_t broken[] = "\x17\x03\x03\x00\x20 this is sealed by nobody at all ";
  uint8_t bytes[64];
  struct pair pair;
  bool more;
  connect_pair(&pair, material, "first.example", NULL, TLS1_3_VERSION);
  assert_int_equal(SSL_write(pair.client, "good", 4), 4);
  assert_int_equal(write(pair.fds[1], broken, sizeof broken), sizeof broken);
  assert_int_equal(tls_receive(pair.server, bytes, sizeof bytes, &more), 4);
  assert_true(more);
  assert_int_equal(tls_receive(pair.server, bytes, sizeof bytes, &more), -1);
  assert_int_equal(errno, EPROTO);
  close_pair(&pair);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_server_name_picks_the_certificate),
      cmocka_unit_test(a_ticket_lives_through_one_rotation),
      cmocka_unit_test(the_segment_carries_it_all),
      cmocka_unit_test(bytes_go_both_ways_in_pieces),
      cmocka_unit_test(a_flood_of_new_keys_ends_the_connection),
      cmocka_unit_test(new_keys_asked_for_by_one_who_takes_nothing_are_a_fault),
      cmocka_unit_test(a_broken_record_behind_a_good_one_is_a_fault),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
