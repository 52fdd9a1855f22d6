// Ed25519 keys out of PEM: a private key (PKCS#8), a public key, or that of a certificate.

import { fromBase64, toHex } from "./bytes.js";

const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const OBJECT = 0x06;
const SEQUENCE = 0x30;
const VERSION = 0xa0; // of a certificate

const ED25519 = "2b6570"; // 1.3.101.112

// The elements of DER content, one after the other: [tag, content].
function elements(der) {
  const found = [];
  for (let at = 0; at < der.length;) {
    const tag = der[at];
    let length = der[at + 1];
    at += 2;
    if (length > 0x80 && length <= 0x83) {
      const end = at + (length & 0x7f);
      for (length = 0; at < end; at++) {
        length = length * 256 + der[at];
      }
    }
    // Not a number: der has ended before.
    if (!(length <= der.length - at)) {
      throw new Error("the key is cut off, or no DER");
    }
    found.push([tag, der.subarray(at, at + length)]);
    at += length;
  }
  return found;
}

// The contents of the elements, which must have these tags; there may be more of them.
function expect(der, ...tags) {
  const found = elements(der);
  return tags.map((tag, i) => {
    if (found[i]?.[0] !== tag) {
      throw new Error("the key is not of the form expected");
    }
    return found[i][1];
  });
}

function pemContent(text, label) {
  const found = new RegExp(`-----BEGIN ${label}-----([^-]*)-----END ${label}-----`).exec(text);
  return found && fromBase64(found[1]);
}

function expectEd25519(algorithm) {
  if (toHex(expect(algorithm, OBJECT)[0]) !== ED25519) {
    throw new Error("the key is of another kind than Ed25519");
  }
}

function keyOf32(key) {
  if (key.length !== 32) {
    throw new Error(`the key has ${key.length} bytes instead of 32`);
  }
  return key.slice();
}

function publicKey(info) {
  const [algorithm, bits] = expect(info, SEQUENCE, BIT_STRING);
  expectEd25519(algorithm);
  return keyOf32(bits.subarray(1)); // after the number of unused bits
}

// The 32 bytes that the private key is made from.
export function seedFromPem(text) {
  const der = pemContent(text, "PRIVATE KEY");
  if (!der) {
    throw new Error("there is no -----BEGIN PRIVATE KEY----- in it");
  }
  const [info] = expect(der, SEQUENCE);
  const [, algorithm, key] = expect(info, INTEGER, SEQUENCE, OCTET_STRING);
  expectEd25519(algorithm);
  return keyOf32(expect(key, OCTET_STRING)[0]);
}

export function publicFromPem(text) {
  const key = pemContent(text, "PUBLIC KEY");
  if (key) {
    return publicKey(expect(key, SEQUENCE)[0]);
  }
  const certificate = pemContent(text, "CERTIFICATE");
  if (!certificate) {
    throw new Error("there is neither a PUBLIC KEY nor a CERTIFICATE in it");
  }
  const [body] = expect(expect(certificate, SEQUENCE)[0], SEQUENCE);
  const fields = elements(body).filter(([tag]) => tag !== VERSION);
  // After the serial number, algorithm, issuer, validity and subject.
  if (fields[5]?.[0] !== SEQUENCE) {
    throw new Error("the certificate is not of the form expected");
  }
  return publicKey(fields[5][1]);
}
