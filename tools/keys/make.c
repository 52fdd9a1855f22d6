#include "tools/keys/make.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sodium.h>

// Letters and digits, since the account service and secret.conf take it as text.
void make_account_key(char key[ACCOUNT_KEY_MAX_BYTES + 1], size_t bytes) {
  static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  for (size_t i = 0; i < bytes; i++) {
    key[i] = alphabet[randombytes_uniform(sizeof alphabet - 1)];
  }
  key[bytes] = '\0';
}

EVP_PKEY *make_key(void) { return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"); }

// What write puts into a memory BIO, as text.
static bool to_text(BIO *bio, bool written, char text[PEM_MAX_BYTES]) {
  int len = written ? BIO_read(bio, text, PEM_MAX_BYTES - 1) : -1;
  text[len > 0 ? len : 0] = '\0';
  BIO_free(bio);
  return len > 0;
}

bool private_pem(EVP_PKEY *key, char text[PEM_MAX_BYTES]) {
  BIO *bio = BIO_new(BIO_s_mem());
  return bio &&
         to_text(bio, PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1,
                 text);
}

bool public_pem(EVP_PKEY *key, char text[PEM_MAX_BYTES]) {
  BIO *bio = BIO_new(BIO_s_mem());
  return bio && to_text(bio, PEM_write_bio_PUBKEY(bio, key) == 1, text);
}

static X509 *make_certificate(EVP_PKEY *key, int64_t days) {
  X509 *certificate = X509_new();
  uint64_t serial;
  randombytes_buf(&serial, sizeof serial);
  if (!certificate || X509_set_version(certificate, X509_VERSION_3) != 1 ||
      ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial >> 1) != 1 ||
      !X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) ||
      !X509_time_adj_ex(X509_getm_notAfter(certificate), (int)days, 0, NULL) ||
      X509_set_pubkey(certificate, key) != 1 ||
      X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                                 (const unsigned char *)"janus client", -1, -1, 0) != 1 ||
      X509_set_issuer_name(certificate, X509_get_subject_name(certificate)) != 1 ||
      X509_sign(certificate, key, NULL) == 0) {
    X509_free(certificate);
    return NULL;
  }
  return certificate;
}

bool certificate_pem(EVP_PKEY *key, int64_t days, char text[PEM_MAX_BYTES]) {
  X509 *certificate = make_certificate(key, days);
  BIO *bio = BIO_new(BIO_s_mem());
  bool made = certificate && bio && to_text(bio, PEM_write_bio_X509(bio, certificate) == 1, text);
  X509_free(certificate);
  return made;
}

bool make_certs(struct certs_pem *certs, int64_t days) {
  EVP_PKEY *server = make_key();
  EVP_PKEY *client = make_key();
  bool made = server && client && private_pem(server, certs->server) &&
              public_pem(server, certs->server_public) && private_pem(client, certs->client) &&
              certificate_pem(client, days, certs->client_cert);
  EVP_PKEY_free(server);
  EVP_PKEY_free(client);
  return made;
}
