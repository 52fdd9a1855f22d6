// A player's session with the gateway: connect, login, then messages both ways in order.
//
// It says each step in words through on.step(text), each packet through on.packet(packet,
// sent), and the end, once, through on.end(why).

import { canInflate, deflate, inflate } from "./inflate.js";
import {
  CS_HANDSHAKE, CS_HEARTBEAT, HANDSHAKE, HEARTBEAT, LOGOUT, LOGOUT_CODES, PACKET, SC_HANDSHAKE,
  SC_LOGOUT, SYSTEM,
} from "./messages.js";
import { decode, encode } from "./protobuf.js";
import { seal, SEAL_BYTES, unseal } from "./seal.js";
import { frame, SEND_MAX_BYTES, unframe } from "./wire.js";

const CLOSE_NORMAL = 1000;
const isZero = (bytes) => bytes.every((byte) => byte === 0);

// What the browser or the gateway gave as the reason, in words.
function closeWords(event) {
  const words = `the connection is closed, code ${event.code}`;
  return event.reason ? `${words}: ${event.reason}` : words;
}

export class Session {
  // WebSocket is the class to use; primitives are those of primitives.js.
  constructor({ url, primitives, on, WebSocket = globalThis.WebSocket }) {
    this.primitives = primitives;
    this.on = on;
    this.key = null; // the session's, when it is sealed
    this.index = 0;
    this.state = "connecting"; // then connected, login, open, closed
    this.logout = null;        // what the gateway said before it closed
    // Sealing and opening take their time; one thing after the other keeps the order.
    this.sending = Promise.resolve();
    this.receiving = Promise.resolve();
    on.step(`connecting to ${url}`);
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.state = "connected";
      on.step("connected");
    };
    this.socket.onmessage = (event) => {
      this.receiving = this.receiving.then(() => this.receive(event.data))
        .catch((error) => this.fail(error.message));
    };
    // What came before the end is read before.
    this.socket.onclose = (event) => {
      this.receiving = this.receiving.then(() => this.end(closeWords(event)));
    };
  }

  end(why) {
    if (this.state !== "closed") {
      this.state = "closed";
      this.loginDone?.reject(new Error(why));
      this.on.end(this.logout === null ? why : `${why}; before, the gateway said: ${this.logout}`);
    }
  }

  fail(why) {
    this.end(why);
    this.socket.close();
  }

  close() {
    this.socket.close(CLOSE_NORMAL);
  }

  // seed: the client's private key. serverKey: the Ed25519 public key that the answer must be
  // signed with; null: not looked at. Resolves when the gateway has answered.
  async login({ token, seed, serverId = 0n, serverKey = null, encrypted = true }) {
    const { exchange, signature, cipher } = this.primitives;
    if (this.state !== "connected") {
      throw new Error(this.state === "connecting" ? "not connected yet"
                                                  : "there was a login on this connection");
    }
    if (!exchange || !signature || !cipher) {
      throw new Error("the browser lacks what a login needs");
    }
    this.state = "login";
    this.handshake = { serverKey, encrypted, pair: await exchange.pair() };
    const pub = this.handshake.pair.publicKey;
    this.on.step("made an X25519 key pair");
    const sign = await signature.sign(seed, pub);
    this.on.step("signed its public half with the client's Ed25519 key");
    const data = encode(CS_HANDSHAKE, {
      pub, sign, token, server_id: serverId, timestamp: Math.floor(Date.now() / 1000),
    });
    const done = new Promise((resolve, reject) => {
      this.loginDone = { resolve, reject };
    });
    await this.sendPacket({ mod: SYSTEM, seq: HANDSHAKE, data });
    return done;
  }

  async finishLogin(packet) {
    const { serverKey, encrypted, pair } = this.handshake;
    if (packet.mod !== SYSTEM || packet.seq !== HANDSHAKE) {
      throw new Error("the gateway's first message is no answer to the login");
    }
    const answer = decode(SC_HANDSHAKE, packet.data);
    if (!serverKey) {
      this.on.step("nobody checks the gateway's signature: no server key was given");
    } else if (await this.primitives.signature.verify(serverKey, answer.sign, answer.pub)) {
      this.on.step("the gateway's signature is that of the server key");
    } else {
      throw new Error("the gateway's signature is not that of the server key");
    }
    if (encrypted) {
      if (isZero(answer.pub)) {
        throw new Error("the gateway has no encryption, but it was asked for");
      }
      this.key = await pair.shared(answer.pub);
      if (isZero(this.key)) {
        throw new Error("the gateway's public key is unusable");
      }
      this.on.step("agreed on a key: from here on messages are sealed with AES-GCM");
    } else if (!isZero(answer.pub)) {
      throw new Error("the gateway encrypts, but was not asked to");
    } else {
      this.on.step("messages are not sealed, as asked for");
    }
    this.index = answer.start_index;
    this.state = "open";
    this.on.step("logged in");
    this.loginDone.resolve();
  }

  // The next message, numbered.
  send({ mod, seq, obj = 0n, data, compress = false }) {
    if (this.state !== "open") {
      return Promise.reject(new Error("not logged in"));
    }
    this.sending = this.sending.catch(() => {}).then(async () => {
      const packet = { mod, seq, obj, data, compress, index: this.index };
      await this.sendPacket(packet, compress ? await deflate(data) : data);
      this.index++;
    });
    return this.sending;
  }

  heartbeat() {
    const data = encode(CS_HEARTBEAT, { client_time: Math.floor(Date.now() / 1000) });
    return this.send({ mod: SYSTEM, seq: HEARTBEAT, data });
  }

  async sendPacket(packet, data = packet.data) {
    const plain = encode(PACKET, { ...packet, data });
    if (plain.length + (this.key ? SEAL_BYTES : 0) > SEND_MAX_BYTES) {
      throw new Error(`the message is larger than ${SEND_MAX_BYTES} bytes`);
    }
    const body = this.key ? await seal(this.primitives.cipher, this.key, plain) : plain;
    this.socket.send(frame(body));
    this.on.packet(packet, true);
  }

  async receive(message) {
    if (this.state === "closed") {
      return;
    }
    if (typeof message === "string") {
      throw new Error("the gateway sent text");
    }
    const body = unframe(new Uint8Array(message));
    const plain = this.key ? await unseal(this.primitives.cipher, this.key, body) : body;
    const packet = decode(PACKET, plain);
    if (packet.compress && canInflate()) {
      packet.data = await inflate(packet.data);
    } else if (packet.compress) {
      this.on.step("what comes is compressed, and the browser has no DecompressionStream");
    }
    this.on.packet(packet, false);
    if (packet.mod === SYSTEM && packet.seq === LOGOUT) {
      const { code } = decode(SC_LOGOUT, packet.data);
      this.logout = `logout, ${LOGOUT_CODES[code] ?? code}`;
    } else if (this.state === "login") {
      await this.finishLogin(packet);
    }
  }
}
