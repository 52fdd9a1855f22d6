// The primitives of native.js once more, by a library, for browsers that lack them.

import { gcm } from "@noble/ciphers/aes.js";
import { ed25519, x25519 } from "@noble/curves/ed25519.js";

export const exchange = {
  async pair(secret = crypto.getRandomValues(new Uint8Array(32))) {
    return {
      publicKey: x25519.getPublicKey(secret),
      shared: async (otherPublic) => x25519.getSharedSecret(secret, otherPublic),
    };
  },
};

export const signature = {
  sign: async (seed, bytes) => ed25519.sign(bytes, seed),
  verify: async (publicKey, sign, bytes) => ed25519.verify(sign, bytes, publicKey),
};

export const cipher = {
  seal: async (key, nonce, plain) => gcm(key, nonce).encrypt(plain),
  open: async (key, nonce, sealed) => gcm(key, nonce).decrypt(sealed),
};
