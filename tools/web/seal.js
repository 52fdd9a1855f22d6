// Messages under the session key: 12 bytes nonce, ciphertext, 16 bytes tag.

import { concat } from "./bytes.js";

const NONCE_BYTES = 12;
const TAG_BYTES = 16;
export const SEAL_BYTES = NONCE_BYTES + TAG_BYTES;

export async function seal(cipher, key, plain,
                           nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES))) {
  return concat(nonce, await cipher.seal(key, nonce, plain));
}

export async function unseal(cipher, key, sealed) {
  if (sealed.length < SEAL_BYTES) {
    throw new Error(`a sealed message of ${sealed.length} bytes is too short`);
  }
  try {
    return await cipher.open(key, sealed.slice(0, NONCE_BYTES), sealed.slice(NONCE_BYTES));
  } catch {
    throw new Error("a message can't be opened: it is not sealed with the session's key");
  }
}
