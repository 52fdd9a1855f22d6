// The messages that a client and the gateway exchange (proto/packet.proto, message.proto),
// and the names of their numbers.

export const PACKET = {
  data: [1, "bytes"],
  data_version: [2, "uint64"],
  obj: [3, "int64"],
  mod: [4, "int32"],
  seq: [5, "int32"],
  ver: [6, "int32"],
  index: [7, "int32"],
  conn_id: [8, "int32"],
  frag_id: [9, "int32"],
  frag_count: [10, "int32"],
  frag_index: [11, "int32"],
  compress: [20, "bool"],
};

export const CS_HANDSHAKE = {
  pub: [1, "bytes"],
  sign: [2, "bytes"],
  token: [3, "string"],
  server_id: [4, "int64"],
  timestamp: [5, "int64"],
  cert_version: [6, "int32"],
};

export const SC_HANDSHAKE = {
  pub: [1, "bytes"],
  sign: [2, "bytes"],
  timestamp: [3, "int64"],
  cert_version: [4, "int32"],
  start_index: [5, "int32"],
};

export const CS_HEARTBEAT = { client_time: [1, "int64"] };
export const SC_HEARTBEAT = { server_time: [1, "int64"], code: [2, "int32"] };
export const SC_UNEXPECTED_ERROR = { mod: [1, "int32"], seq: [2, "int32"], msg: [3, "string"] };
export const SC_LOGOUT = { code: [1, "int32"] };

export const SYSTEM = 1;
export const HANDSHAKE = 1;
export const HEARTBEAT = 2;
export const UNEXPECTED_ERROR = 3;
export const LOGOUT = 4;

export const MODULES = ["unspecified", "system", "dev", "user", "storage", "hero", "room"];
export const SYSTEM_SEQUENCES = ["", "handshake", "heartbeat", "unexpected-error", "logout"];
export const LOGOUT_CODES = [
  "Server",
  "Waiting (try again later)",
  "Unauthorized",
  "ConflictingLogin",
  "AdminKickOut",
  "Banned",
];
