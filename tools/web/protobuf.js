// As much of protobuf as the protocol needs: messages of scalar fields, described by tables
// {name: [number, kind]} with the kinds bytes, string, bool, int32, int64 and uint64. The
// last two are BigInt.

import { concat, fromText, toText } from "./bytes.js";

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

const DEFAULTS = {
  bytes: new Uint8Array(0),
  string: "",
  bool: false,
  int32: 0,
  int64: 0n,
  uint64: 0n,
};

function varint(number) {
  let rest = BigInt.asUintN(64, BigInt(number));
  const out = [];
  while (rest > 0x7fn) {
    out.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return Uint8Array.from(out);
}

function encodeField(number, kind, value) {
  if (kind !== "bytes" && kind !== "string") {
    return concat(varint((number << 3) | VARINT), varint(value));
  }
  const raw = kind === "string" ? fromText(value) : value;
  return concat(varint((number << 3) | BYTES), varint(raw.length), raw);
}

// Fields that are left out have their default, and are not on the wire.
export function encode(fields, values) {
  const parts = [];
  for (const [name, value] of Object.entries(values)) {
    if (!fields[name]) {
      throw new Error(`there is no field ${name}`);
    }
    const [number, kind] = fields[name];
    const empty = typeof value === "object" || typeof value === "string" ? value.length === 0
                                                                           : Number(value) === 0;
    if (!empty) {
      parts.push([number, encodeField(number, kind, value)]);
    }
  }
  return concat(...parts.sort((a, b) => a[0] - b[0]).map(([, part]) => part));
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  take(count) {
    if (count > this.bytes.length - this.at) {
      throw new Error("the message is cut off");
    }
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  varint() {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.take(1)[0];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) {
        return BigInt.asUintN(64, value);
      }
    }
    throw new Error("a number is too long");
  }

  // What a field of that wire type holds: a BigInt or bytes, null for what no message here has.
  value(type) {
    switch (type) {
      case VARINT: return this.varint();
      case BYTES: return this.take(Number(this.varint()));
      case FIXED64: this.take(8); return null;
      case FIXED32: this.take(4); return null;
      default: throw new Error(`wire type ${type} is none that is known`);
    }
  }
}

function fieldValue(kind, raw) {
  switch (kind) {
    case "bytes": return raw.slice();
    case "string": return toText(raw);
    case "bool": return raw !== 0n;
    case "int32": return Number(BigInt.asIntN(32, raw));
    case "int64": return BigInt.asIntN(64, raw);
    default: return raw;
  }
}

// All fields, those not on the wire with their default; unknown ones are passed over.
export function decode(fields, bytes) {
  const message = {};
  const byNumber = new Map();
  for (const [name, [number, kind]] of Object.entries(fields)) {
    message[name] = DEFAULTS[kind];
    byNumber.set(number, [name, kind]);
  }
  const reader = new Reader(bytes);
  while (reader.at < bytes.length) {
    const key = Number(reader.varint());
    const raw = reader.value(key & 7);
    const [name, kind] = byNumber.get(Math.floor(key / 8)) ?? [];
    const wanted = kind === "bytes" || kind === "string" ? BYTES : VARINT;
    if (name && (key & 7) === wanted) {
      message[name] = fieldValue(kind, raw);
    }
  }
  return message;
}
