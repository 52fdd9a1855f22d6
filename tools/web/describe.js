// Packets in words, as janus-client has them.

import { toHex, toTextOrNull } from "./bytes.js";
import {
  CS_HANDSHAKE, CS_HEARTBEAT, HANDSHAKE, HEARTBEAT, LOGOUT, LOGOUT_CODES, MODULES, SC_HANDSHAKE,
  SC_HEARTBEAT, SC_LOGOUT, SC_UNEXPECTED_ERROR, SYSTEM, SYSTEM_SEQUENCES, UNEXPECTED_ERROR,
} from "./messages.js";
import { decode } from "./protobuf.js";

const PREVIEW_BYTES = 60;

function preview(data) {
  const shown = data.subarray(0, PREVIEW_BYTES);
  const text = toTextOrNull(shown);
  const words = text === null ? `hex ${toHex(shown)}` : JSON.stringify(text);
  return words + (data.length > shown.length ? "..." : "");
}

function systemFields(packet, sent) {
  if (packet.seq === HANDSHAKE) {
    // Without the keys, and without the token.
    const { timestamp, cert_version, server_id, start_index } =
      decode(sent ? CS_HANDSHAKE : SC_HANDSHAKE, packet.data);
    return sent ? { server_id, timestamp, cert_version } : { timestamp, cert_version, start_index };
  }
  if (packet.seq === HEARTBEAT) {
    return decode(sent ? CS_HEARTBEAT : SC_HEARTBEAT, packet.data);
  }
  if (packet.seq === UNEXPECTED_ERROR && !sent) {
    return decode(SC_UNEXPECTED_ERROR, packet.data);
  }
  if (packet.seq === LOGOUT && !sent) {
    const { code } = decode(SC_LOGOUT, packet.data);
    return { code, meaning: LOGOUT_CODES[code] ?? "unknown" };
  }
  return null;
}

function content(packet, sent) {
  try {
    const fields = packet.mod === SYSTEM && systemFields(packet, sent);
    if (fields) {
      return Object.entries(fields).map(([name, value]) =>
        `${name}=${typeof value === "string" ? JSON.stringify(value) : value}`).join(" ");
    }
  } catch (error) {
    return `malformed: ${error.message}`;
  }
  return preview(packet.data);
}

export function describe(packet, sent) {
  const module = MODULES[packet.mod] ?? `module ${packet.mod}`;
  const sequence = (packet.mod === SYSTEM && SYSTEM_SEQUENCES[packet.seq]) || packet.seq;
  const words = [sent ? "->" : "<-", module, sequence];
  for (const [title, value] of [["obj", packet.obj], ["index", packet.index],
                                ["version", packet.data_version]]) {
    if (value) {
      words.push(`${title} ${value}`);
    }
  }
  words.push(`${packet.data.length} bytes${packet.compress ? " (compressed)" : ""}:`);
  return `${words.join(" ")} ${content(packet, sent)}`;
}
