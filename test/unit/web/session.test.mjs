// A session against a gateway that is played by the test.

import assert from "node:assert/strict";
import test from "node:test";

import { fromText, toText } from "../../../tools/web/bytes.js";
import { CS_HANDSHAKE, PACKET, SC_HANDSHAKE, SC_LOGOUT } from "../../../tools/web/messages.js";
import { decode, encode } from "../../../tools/web/protobuf.js";
import { seal, unseal } from "../../../tools/web/seal.js";
import { Session } from "../../../tools/web/session.js";
import { frame, unframe } from "../../../tools/web/wire.js";
import { engines, raw } from "./vectors.mjs";

const { exchange, signature, cipher } = engines.native;
const ask = { token: "token", seed: raw("client_ed25519_seed"),
              serverKey: raw("server_ed25519_public") };

// The other end, and what the session told.
async function connected() {
  const peer = { bodies: [], waiting: [], told: [], packets: [], ends: [] };
  class Socket {
    constructor() {
      peer.socket = this;
    }
    send(message) {
      peer.bodies.push(unframe(message));
      peer.waiting.shift()?.();
    }
    close(code = 1005) {
      queueMicrotask(() => this.onclose({ code, reason: "" }));
    }
  }
  peer.session = new Session({
    url: "ws://x/ws",
    primitives: engines.native,
    WebSocket: Socket,
    on: {
      step: (text) => peer.told.push(text),
      packet: (packet, sent) => sent || peer.packets.push(packet),
      end: (why) => peer.ends.push(why),
    },
  });
  peer.body = async () => {
    if (peer.bodies.length === 0) {
      await new Promise((resolve) => peer.waiting.push(resolve));
    }
    return peer.bodies.shift();
  };
  peer.say = (body) => peer.socket.onmessage({ data: frame(body).slice().buffer });
  peer.settled = () => peer.session.receiving;
  peer.socket.onopen();
  return peer;
}

// As the gateway does it, with the changes given. Resolves to the session's key.
async function answerLogin(peer, changes = {}) {
  const asked = decode(PACKET, await peer.body());
  const { pub } = decode(CS_HANDSHAKE, asked.data);
  const pair = await exchange.pair(raw("server_x25519_private"));
  const answer = { pub: pair.publicKey, timestamp: 1, start_index: 1, ...changes };
  answer.sign ??= await signature.sign(raw("server_ed25519_seed"), answer.pub);
  peer.say(encode(PACKET, { mod: 1, seq: 1, data: encode(SC_HANDSHAKE, answer) }));
  return pair.shared(pub);
}

async function loggedIn() {
  const peer = await connected();
  const login = peer.session.login(ask);
  peer.key = await answerLogin(peer);
  await login;
  return peer;
}

test("messages that are sent at once go out numbered and in order", async () => {
  const peer = await loggedIn();
  const texts = ["one", "two", "three"];
  await Promise.all(texts.map((text) =>
    peer.session.send({ mod: 3, seq: 1, data: fromText(text), compress: text === "one" })));
  for (const [i, text] of texts.entries()) {
    const packet = decode(PACKET, await unseal(cipher, peer.key, await peer.body()));
    assert.equal(packet.index, i + 1);
    assert.equal(packet.compress || toText(packet.data) === text, true);
  }
});

test("what comes is told in order, a large one before a small one", async () => {
  const peer = await loggedIn();
  for (const size of [900000, 1]) {
    peer.say(await seal(cipher, peer.key,
                        encode(PACKET, { mod: 3, seq: 1, data: new Uint8Array(size) })));
  }
  await peer.settled();
  assert.deepEqual(peer.packets.slice(1).map((packet) => packet.data.length), [900000, 1]);
});

test("a message that is too large is not sent, and costs no number", async () => {
  const peer = await loggedIn();
  const large = peer.session.send({ mod: 3, seq: 1, data: new Uint8Array(16384) });
  await assert.rejects(large, /larger than/);
  await peer.session.heartbeat();
  assert.equal(decode(PACKET, await unseal(cipher, peer.key, await peer.body())).index, 1);
});

test("a logout is told with the end", async () => {
  const peer = await loggedIn();
  peer.say(await seal(cipher, peer.key,
                      encode(PACKET, { mod: 1, seq: 4, data: encode(SC_LOGOUT, { code: 3 }) })));
  peer.socket.onclose({ code: 1000, reason: "" });
  await peer.settled();
  assert.deepEqual(peer.ends, ["the connection is closed, code 1000; before, the gateway said: " +
                               "logout, ConflictingLogin"]);
  await assert.rejects(peer.session.heartbeat(), /not logged in/);
});

for (const [what, message, why] of [
  ["text", () => "hello", /sent text/],
  ["a malformed frame", () => new ArrayBuffer(3), /a message of 3 bytes/],
  ["what is not sealed with the key", () => frame(new Uint8Array(100)).buffer, /can't be opened/],
]) {
  test(`${what} ends the session`, async () => {
    const peer = await loggedIn();
    peer.socket.onmessage({ data: message() });
    await peer.settled();
    assert.match(peer.ends.join("\n"), why);
    assert.equal(peer.ends.length, 1);
  });
}

const zero = new Uint8Array(32);
for (const [what, login, answer, why] of [
  ["another's signature", {}, { sign: new Uint8Array(64) }, /is not that of the server key/],
  ["no encryption", {}, { pub: zero }, /has no encryption/],
  ["encryption that was not asked for", { encrypted: false }, {}, /encrypts, but was not asked to/],
]) {
  test(`a login that is answered with ${what} fails`, async () => {
    const peer = await connected();
    const done = assert.rejects(peer.session.login({ ...ask, ...login }), why);
    await answerLogin(peer, answer);
    await done;
    assert.equal(peer.session.state, "closed");
    assert.equal(peer.session.key, null);
  });
}

test("without encryption messages stay plain, where that was asked for", async () => {
  const peer = await connected();
  const login = peer.session.login({ ...ask, serverKey: null, encrypted: false });
  await answerLogin(peer, { pub: zero });
  await login;
  assert.match(peer.told.join("\n"), /nobody checks the gateway's signature/);
  await peer.session.heartbeat();
  assert.equal(decode(PACKET, await peer.body()).seq, 2);
});

test("a connection that closes during the login fails it", async () => {
  const peer = await connected();
  const done = assert.rejects(peer.session.login(ask), /the connection is closed, code 1006/);
  await peer.body();
  peer.socket.onclose({ code: 1006, reason: "" });
  await done;
});
