// A message on the wire: one binary WebSocket message, which is a big-endian length of four
// bytes and as many bytes.

import { concat } from "./bytes.js";

// What a gateway takes from a client. What it sends may be more, as it is configured.
export const SEND_MAX_BYTES = 16384;

export function frame(body) {
  const length = new Uint8Array(4);
  new DataView(length.buffer).setInt32(0, body.length);
  return concat(length, body);
}

export function unframe(message) {
  const length = message.length < 4 ? -1
    : new DataView(message.buffer, message.byteOffset).getInt32(0);
  if (length <= 0 || length !== message.length - 4) {
    throw new Error(`a message of ${message.length} bytes says that ${length} follow its length`);
  }
  return message.subarray(4);
}
