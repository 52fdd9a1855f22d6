// The primitives by WebCrypto. Each is made by a function of `subtle` that rejects where the
// browser lacks it, and has the same calls as its counterpart in fallback.js:
//
//   exchange   pair(secret?) -> {publicKey, shared(otherPublic)}    X25519
//   signature  sign(seed, bytes), verify(publicKey, sign, bytes)    Ed25519
//   cipher     seal(key, nonce, plain), open(key, nonce, sealed)    AES-GCM, the tag at the end

import { concat, fromBase64, fromHex } from "./bytes.js";

// WebCrypto takes a private key only with what says what it is.
const PKCS8_X25519 = fromHex("302e020100300506032b656e04220420");
const PKCS8_ED25519 = fromHex("302e020100300506032b657004220420");
const X25519 = { name: "X25519" };
const ED25519 = { name: "Ed25519" };

async function exchange(subtle) {
  const made = {
    async pair(secret) {
      const pair = secret
        ? { privateKey: await subtle.importKey("pkcs8", concat(PKCS8_X25519, secret), X25519, true,
                                               ["deriveBits"]) }
        : await subtle.generateKey(X25519, false, ["deriveBits"]);
      const publicKey = secret
        ? fromBase64((await subtle.exportKey("jwk", pair.privateKey)).x)
        : new Uint8Array(await subtle.exportKey("raw", pair.publicKey));
      return {
        publicKey,
        async shared(otherPublic) {
          const other = await subtle.importKey("raw", otherPublic, X25519, false, []);
          return new Uint8Array(
            await subtle.deriveBits({ ...X25519, public: other }, pair.privateKey, 256));
        },
      };
    },
  };
  const pair = await made.pair();
  await pair.shared(pair.publicKey);
  return made;
}

async function signature(subtle) {
  const made = {
    async sign(seed, bytes) {
      const key = await subtle.importKey("pkcs8", concat(PKCS8_ED25519, seed), ED25519, false,
                                         ["sign"]);
      return new Uint8Array(await subtle.sign(ED25519, key, bytes));
    },
    async verify(publicKey, sign, bytes) {
      const key = await subtle.importKey("raw", publicKey, ED25519, false, ["verify"]);
      return subtle.verify(ED25519, key, sign, bytes);
    },
  };
  await made.sign(new Uint8Array(32), new Uint8Array(1));
  return made;
}

async function cipher(subtle) {
  const run = async (what, key, iv, bytes) =>
    new Uint8Array(await subtle[what](
      { name: "AES-GCM", iv }, await subtle.importKey("raw", key, "AES-GCM", false, [what]), bytes));
  const made = {
    seal: (key, nonce, plain) => run("encrypt", key, nonce, plain),
    open: (key, nonce, sealed) => run("decrypt", key, nonce, sealed),
  };
  await made.seal(new Uint8Array(32), new Uint8Array(12), new Uint8Array(1));
  return made;
}

export const native = { exchange, signature, cipher };
