#include "common/tls_server.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  IDENTITIES_MAX = 32,
  TICKETS_AT_ONCE = 1,
  IV_BYTES = 16,
  // After the handshake, in the life of a connection: new keys, and tries to negotiate anew.
  HANDSHAKE_MESSAGES_MAX = 1000,
};

// What the callbacks of one listener's context look up. It lives as long as the context does.
struct server {
  struct tls_ticket_key tickets[TLS_TICKET_KEYS];
  SSL_CTX *contexts[IDENTITIES_MAX];  // one for each certificate; the first is the owner's
  size_t count;
};

// --- What goes with a context ----------------------------------------------------------

static void on_context_freed(void *parent, void *server_of_it, CRYPTO_EX_DATA *data, int index,
                             long number, void *argument) {
  struct server *server = server_of_it;
  (void)parent;
  (void)data;
  (void)index;
  (void)number;
  (void)argument;
  for (size_t i = 1; server && i < server->count; i++) {
    SSL_CTX_free(server->contexts[i]);
  }
  if (server) {
    OPENSSL_cleanse(server->tickets, sizeof server->tickets);
    free(server);
  }
}

static int server_index(void) {
  static int index = -1;
  if (index < 0) {
    index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, on_context_freed);
  }
  return index;
}

SSL *tls_server(SSL_CTX *context, int fd) {
  SSL *ssl = SSL_new(context);
  if (ssl && (SSL_set_fd(ssl, fd) != 1 ||
              SSL_set_app_data(ssl, SSL_CTX_get_ex_data(context, server_index())) != 1)) {
    SSL_free(ssl);
    return NULL;
  }
  return ssl;
}

// --- Handshake messages after the handshake ------------------------------------------------

static int count_index(void) {
  static int index = -1;
  if (index < 0) {
    index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
  }
  return index;
}

// OpenSSL reads such messages one after the other within one call, for as long as there are
// any: a client with nothing else to say would hold everybody up. One who sends too many is
// taken to have ended the connection.
static void on_protocol_message(int is_written, int version, int type, const void *bytes,
                                size_t len, SSL *ssl, void *argument) {
  (void)version;
  (void)argument;
  uint8_t first = len > 0 ? *(const uint8_t *)bytes : 0;
  // TLS 1.3's new keys, and what a client of TLS 1.2 has to say after the handshake.
  bool is_late =
      (type == SSL3_RT_HANDSHAKE && first == SSL3_MT_KEY_UPDATE) ||
      (type == SSL3_RT_HEADER && first == SSL3_RT_HANDSHAKE && SSL_is_init_finished(ssl));
  if (is_written || !is_late) {
    return;
  }
  uintptr_t count = (uintptr_t)SSL_get_ex_data(ssl, count_index()) + 1;
  SSL_set_ex_data(ssl, count_index(), (void *)count);
  if (count > HANDSHAKE_MESSAGES_MAX) {
    SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
  }
}

bool tls_server_is_flooded(const SSL *ssl) {
  return (uintptr_t)SSL_get_ex_data(ssl, count_index()) > HANDSHAKE_MESSAGES_MAX;
}

// --- Session tickets -------------------------------------------------------------------

static int set_mac(EVP_MAC_CTX *mac, const struct tls_ticket_key *key) {
  char digest[] = "SHA256";
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)key->authentication_key,
                                        sizeof key->authentication_key),
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end(),
  };
  return EVP_MAC_CTX_set_params(mac, parameters);
}

// 0: not one of ours, a full handshake; 2: to be replaced by a new one.
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int encrypt) {
  const struct server *server = SSL_get_app_data(ssl);
  const struct tls_ticket_key *key = server->tickets;
  if (encrypt) {
    memcpy(name, key->name, sizeof key->name);
    return RAND_bytes(iv, IV_BYTES) == 1 &&
                   EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->encryption_key, iv) ==
                       1 &&
                   set_mac(mac, key) == 1
               ? 1
               : -1;
  }
  for (int i = 0; i < TLS_TICKET_KEYS; i++, key++) {
    if (memcmp(name, key->name, sizeof key->name) == 0) {
      bool good =
          EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->encryption_key, iv) == 1 &&
          set_mac(mac, key) == 1;
      return !good ? -1 : i == 0 ? 1 : 2;
    }
  }
  return 0;
}

// --- The server name --------------------------------------------------------------------

// NOLINTNEXTLINE(readability-non-const-parameter): the type is OpenSSL's
static int on_server_name(SSL *ssl, int *alert, void *argument) {
  const struct server *server = SSL_get_app_data(ssl);
  const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  (void)alert;
  (void)argument;
  for (size_t i = 0; name && i < server->count; i++) {
    X509 *certificate = SSL_CTX_get0_certificate(server->contexts[i]);
    if (X509_check_host(certificate, name, 0, 0, NULL) == 1) {
      SSL_set_SSL_CTX(ssl, server->contexts[i]);
      return SSL_TLSEXT_ERR_OK;
    }
  }
  return SSL_TLSEXT_ERR_NOACK;  // the first one serves
}

// --- Making a context ---------------------------------------------------------------------

// Keys under a password would have OpenSSL ask on the terminal.
// NOLINTNEXTLINE(readability-non-const-parameter): the type is OpenSSL's
static int no_password(char *buffer, int size, int is_write, void *argument) {
  (void)buffer;
  (void)size;
  (void)is_write;
  (void)argument;
  return -1;
}

static int64_t expiry_ms(const X509 *certificate) {
  int days = 0;
  int seconds = 0;
  ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
  int known = epoch ? ASN1_TIME_diff(&days, &seconds, epoch, X509_get0_notAfter(certificate)) : 0;
  ASN1_TIME_free(epoch);
  return known ? ((int64_t)days * 24 * 60 * 60 + seconds) * 1000 : INT64_MAX;
}

// Whether nothing but the end of the file was met.
static bool at_end(void) {
  unsigned long error = ERR_peek_last_error();
  ERR_clear_error();
  return error == 0 || ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

// The certificate first, then those that lead to an authority. These three return what is wrong
// with the file, or NULL.
static const char *use_chain(SSL_CTX *context, const struct tls_record *record, int64_t *expires) {
  BIO *bio = BIO_new_mem_buf(record->text, (int)record->len);
  X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, no_password, NULL) : NULL;
  bool good = certificate && SSL_CTX_use_certificate(context, certificate) == 1;
  if (good && expiry_ms(certificate) < *expires) {
    *expires = expiry_ms(certificate);
  }
  X509_free(certificate);
  while (good && (certificate = PEM_read_bio_X509(bio, NULL, no_password, NULL))) {
    good = SSL_CTX_add0_chain_cert(context, certificate) == 1;
    if (!good) {
      X509_free(certificate);
    }
  }
  BIO_free(bio);
  return good && at_end() ? NULL : "is no certificate in PEM that serves, or its chain is none";
}

static const char *use_key(SSL_CTX *context, const struct tls_record *record) {
  BIO *bio = BIO_new_mem_buf(record->text, (int)record->len);
  EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
  const char *wrong = NULL;
  if (!key) {
    wrong = "has no private key in PEM, or one under a password";
  } else if (SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1) {
    wrong = "is not the key of that certificate";
  }
  EVP_PKEY_free(key);
  BIO_free(bio);
  return wrong;
}

// Asks clients for a certificate from these authorities.
static const char *use_client_ca(SSL_CTX *context, const struct tls_record *record, bool required) {
  BIO *bio = BIO_new_mem_buf(record->text, (int)record->len);
  X509_STORE *store = SSL_CTX_get_cert_store(context);
  X509 *authority;
  bool good = bio != NULL;
  size_t count = 0;
  while (good && (authority = PEM_read_bio_X509(bio, NULL, no_password, NULL))) {
    good = X509_STORE_add_cert(store, authority) == 1 &&
           SSL_CTX_add_client_CA(context, authority) == 1;
    X509_free(authority);
    count++;
  }
  BIO_free(bio);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                     NULL);
  return good && count > 0 && at_end() ? NULL : "has no certificates of authorities in PEM";
}

// A ticket is for one listener, and for the authorities by which its client was judged, if it had
// to be.
static bool set_session_context(SSL_CTX *context, uint32_t index, bool required,
                                const struct tls_record *client_ca) {
  uint8_t id[SHA256_DIGEST_LENGTH];
  SHA256((const uint8_t *)(client_ca->text ? client_ca->text : ""), client_ca->len, id);
  memcpy(id, &index, sizeof index);
  id[sizeof index] = required;
  return SSL_CTX_set_session_id_context(context, id, sizeof id) == 1;
}

static SSL_CTX *new_context(const struct config_listener *listener, uint32_t index,
                            const struct tls_record *client_ca) {
  SSL_CTX *context = SSL_CTX_new(TLS_server_method());
  if (!context) {
    return NULL;
  }
  // Bytes that end without TLS's own end are an end all the same: every message has its length.
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                   SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                   SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, TICKETS_AT_ONCE);
  int least = listener->tls.min_version == TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
  if (SSL_CTX_set_min_proto_version(context, least) != 1 ||
      !set_session_context(context, index, listener->tls.client_required, client_ca) ||
      SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket) != 1) {
    SSL_CTX_free(context);
    return NULL;
  }
  SSL_CTX_set_tlsext_servername_callback(context, on_server_name);
  SSL_CTX_set_msg_callback(context, on_protocol_message);
  return context;
}

SSL_CTX *tls_server_context(const struct config_listener *listener, uint32_t index,
                            const struct tls_material *material, int64_t *expires, char *why,
                            size_t why_size) {
  struct tls_record record = {.text = NULL};
  struct tls_record client_ca = {.text = NULL};
  struct server *server = calloc(1, sizeof *server);
  const char *part = "TLS";
  const char *wrong = NULL;
  *expires = INT64_MAX;
  ERR_clear_error();
  if (!server) {
    snprintf(why, why_size, "out of memory");
    return NULL;
  }
  memcpy(server->tickets, material->tickets, sizeof server->tickets);
  while (tls_material_next(material, &record)) {
    if (record.listener == index && record.kind == TLS_RECORD_CLIENT_CA) {
      client_ca = record;
    }
  }
  record = (struct tls_record){.text = NULL};
  while (!wrong && tls_material_next(material, &record)) {
    if (record.listener != index || record.kind == TLS_RECORD_CLIENT_CA) {
      continue;
    }
    part = record.path;
    if (record.kind == TLS_RECORD_KEY) {
      wrong = use_key(server->contexts[server->count - 1], &record);
      continue;
    }
    SSL_CTX *context =
        server->count < IDENTITIES_MAX ? new_context(listener, index, &client_ca) : NULL;
    if (!context) {
      wrong = "is one certificate too many, or memory is out";
      break;
    }
    server->contexts[server->count++] = context;
    wrong = use_chain(context, &record, expires);
    if (!wrong && client_ca.text) {
      part = client_ca.path;
      wrong = use_client_ca(context, &client_ca, listener->tls.client_required);
    }
  }
  if (!wrong && (server->count == 0 ||
                 SSL_CTX_set_ex_data(server->contexts[0], server_index(), server) != 1)) {
    part = "TLS";
    wrong = "has no certificate, or memory is out";
  }
  if (!wrong) {
    return server->contexts[0];
  }
  snprintf(why, why_size, "%s %s", part, wrong);
  for (size_t i = 0; i < server->count; i++) {
    SSL_CTX_free(server->contexts[i]);
  }
  OPENSSL_cleanse(server->tickets, sizeof server->tickets);
  free(server);
  return NULL;
}
