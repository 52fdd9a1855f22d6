// The page's codecs and keys against the protocol's worked examples.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createPublicKey, generateKeyPairSync } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

import { concat, fromHex, fromText, toHex } from "../../../tools/web/bytes.js";
import { describe } from "../../../tools/web/describe.js";
import { deflate, inflate } from "../../../tools/web/inflate.js";
import {
  CS_HANDSHAKE, PACKET, SC_HANDSHAKE, SC_LOGOUT,
} from "../../../tools/web/messages.js";
import { publicFromPem, seedFromPem } from "../../../tools/web/pem.js";
import { choosePrimitives } from "../../../tools/web/primitives.js";
import { decode, encode } from "../../../tools/web/protobuf.js";
import { seal, unseal } from "../../../tools/web/seal.js";
import { frame, unframe } from "../../../tools/web/wire.js";
import { engines, raw, V } from "./vectors.mjs";

const same = (a, b) => assert.equal(toHex(a), toHex(b));

for (const [name, { exchange, signature, cipher, report }] of Object.entries(engines)) {
  test(`${name}: what it is taken from is said`, () => {
    assert.equal(report.length, name === "native" ? 0 : 4, report.join("\n"));
  });

  test(`${name}: the key exchange of the vectors is computed`, async () => {
    const pair = await exchange.pair(raw("client_x25519_private"));
    same(pair.publicKey, raw("client_x25519_public"));
    same(await pair.shared(raw("server_x25519_public")), raw("shared_key"));
  });

  test(`${name}: fresh pairs agree, and no two are alike`, async () => {
    const [one, other] = [await exchange.pair(), await exchange.pair()];
    same(await one.shared(other.publicKey), await other.shared(one.publicKey));
    assert.notEqual(toHex(one.publicKey), toHex(other.publicKey));
  });

  test(`${name}: the handshakes of the vectors are made and checked`, async () => {
    const pub = raw("client_x25519_public");
    const sign = await signature.sign(raw("client_ed25519_seed"), pub);
    const asked = encode(CS_HANDSHAKE, { pub, sign, token: V.token, timestamp: 1750000000 });
    same(asked, raw("cs_handshake_protobuf"));
    same(frame(encode(PACKET, { mod: 1, seq: 1, data: asked })), raw("cs_handshake_frame"));

    const packet = decode(PACKET, unframe(raw("sc_handshake_frame")));
    const answer = decode(SC_HANDSHAKE, packet.data);
    assert.deepEqual([packet.mod, packet.seq, answer.start_index, answer.timestamp],
                     [1, 1, 1, 1750000001n]);
    const key = raw("server_ed25519_public");
    assert.equal(await signature.verify(key, answer.sign, answer.pub), true);
    assert.equal(await signature.verify(key, answer.sign, pub), false);
  });

  test(`${name}: the sealed message of the vectors is made and read`, async () => {
    const sealed = unframe(raw("encrypted_frame"));
    const plain = encode(PACKET, { data: fromText("hello"), mod: 3, seq: 1, index: 1 });
    same(plain, raw("packet_protobuf"));
    same(await seal(cipher, raw("shared_key"), plain, sealed.slice(0, 12)), sealed);
    same(await unseal(cipher, raw("shared_key"), sealed), plain);
    const broken = sealed.slice();
    broken[20] ^= 1;
    await assert.rejects(unseal(cipher, raw("shared_key"), broken), /can't be opened/);
    await assert.rejects(unseal(cipher, raw("shared_key"), sealed.slice(0, 27)), /too short/);
  });
}

test("what a browser lacks is said, with the reason, whether there is a library or not", async () => {
  const refuse = async () => {
    throw new DOMException("Algorithm: Unrecognized name", "NotSupportedError");
  };
  const subtle = new Proxy(crypto.subtle, {
    get: (real, name) => (bytes, ...rest) =>
      name === "generateKey" ? refuse() : real[name](bytes, ...rest),
  });
  const library = { exchange: {} };
  const chosen = await choosePrimitives(subtle, async () => library);
  assert.equal(chosen.exchange, library.exchange);
  assert.match(chosen.report.join(), /^X25519 is taken from the library.*: NotSupportedError: Alg/);
  const without = await choosePrimitives(subtle, async () => {
    throw new Error("404");
  });
  assert.equal(without.exchange, null);
  assert.match(without.report.join(), /^X25519 is missing: NotSupportedError: .*404$/);
});

test("numbers of all sizes survive, and unknown fields are passed over", () => {
  const packet = { obj: -(2n ** 63n), data_version: 2n ** 64n - 1n, mod: -1, index: -(2 ** 31),
                   compress: true };
  const unknown = fromHex("aa0603010203" + "b10600000000000000 00" + "b80601" + "b50600000000");
  const read = decode(PACKET, concat(unknown, encode(PACKET, packet)));
  assert.deepEqual({ ...read, ...packet }, read);
});

for (const bytes of ["0a", "0a05aa", "08ffffffffffffffffffffff", "0b", "0affffffffffffffffff01"]) {
  test(`a malformed message is refused: ${bytes}`, () => {
    assert.throws(() => decode(PACKET, fromHex(bytes)));
  });
}

for (const bytes of ["", "000000", "00000000", "0000000201", "00000001ffff", "ffffffff01"]) {
  test(`a malformed frame is refused: ${bytes}`, () => {
    assert.throws(() => unframe(fromHex(bytes)), /a message of/);
  });
}

test("data is deflated as zlib does, and inflated", async () => {
  const data = new Uint8Array(100000).fill(7);
  const packed = await deflate(data);
  assert.equal(packed[0], 0x78);
  same(await inflate(packed), data);
  await assert.rejects(inflate(packed.slice(0, -3)));
  await assert.rejects(inflate(fromText("this is no zlib")));
});

test("what inflates to too much is refused", async () => {
  await assert.rejects(inflate(await deflate(new Uint8Array(17 << 20))), /more than/);
});

// By OpenSSL: what janus-keys writes has the same form.
const privatePem = (kind, options) =>
  generateKeyPairSync(kind, options).privateKey.export({ type: "pkcs8", format: "pem" });

test("keys are read from PEM, and those of another kind are refused", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "janus-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, "key");
  const certificate = execFileSync("openssl", [
    "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x", "-keyout", file,
  ], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  const key = readFileSync(file, "utf8");
  const publicPem = createPublicKey(key).export({ type: "spki", format: "pem" });

  const { signature } = engines.native;
  const bytes = fromText("signed");
  const sign = await signature.sign(seedFromPem(`some text\n${key}`), bytes);
  for (const pem of [publicPem, certificate]) {
    assert.equal(await signature.verify(publicFromPem(pem), sign, bytes), true);
  }
  const another = /another kind than Ed25519/;
  assert.throws(() => seedFromPem(privatePem("x25519")), another);
  assert.throws(() => seedFromPem(privatePem("ec", { namedCurve: "P-256" })), another);
  assert.throws(() => seedFromPem(publicPem), /no -----BEGIN PRIVATE KEY/);
  assert.throws(() => publicFromPem(key), /neither/);
  const [head, body, tail] = key.split("\n");
  assert.throws(() => seedFromPem([head, body.slice(0, 40), tail].join("\n")), /cut off/);
});

test("packets are told in words", () => {
  const packet = { mod: 3, seq: 7, obj: 10001n, index: 2, data_version: 0n, compress: false,
                   data: fromText('say "hi"') };
  assert.equal(describe(packet, false),
               '<- user 7 obj 10001 index 2 8 bytes: "say \\"hi\\""');
  assert.equal(describe({ ...packet, data: fromHex("ff00") }, true),
               "-> user 7 obj 10001 index 2 2 bytes: hex ff00");
  const asked = { ...packet, mod: 1, seq: 1, obj: 0n, index: 0, data: raw("cs_handshake_protobuf") };
  assert.equal(describe(asked, true),
               "-> system handshake 184 bytes: server_id=0 timestamp=1750000000 cert_version=0");
  const logout = { mod: 1, seq: 4, data: encode(SC_LOGOUT, { code: 5 }) };
  assert.equal(describe(logout, false), "<- system logout 2 bytes: code=5 meaning=\"Banned\"");
  assert.match(describe({ mod: 1, seq: 2, data: fromHex("0a") }, false), /malformed/);
});
