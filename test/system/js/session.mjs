// A session by npm's WebSocket client, told line by line:
//   node session.mjs URL CA TOKEN CLIENT-KEY SERVER-KEY [leave]
// It logs in, sends a message and a ping, and waits for the end, or leaves.

import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { fromText } from "../../../tools/web/bytes.js";
import { describe } from "../../../tools/web/describe.js";
import { publicFromPem, seedFromPem } from "../../../tools/web/pem.js";
import { choosePrimitives } from "../../../tools/web/primitives.js";
import { Session } from "../../../tools/web/session.js";

globalThis.crypto ??= webcrypto; // a global from node 19 on

const packages = new URL("../../../build/npm/test/system/js/", import.meta.url);
const { WebSocket } = createRequire(packages)("ws");
const [url, ca, token, clientKey, serverKey, leave] = process.argv.slice(2);

class Client extends WebSocket {
  constructor(address) {
    super(address, { ca: readFileSync(ca) });
    this.on("pong", (data) => console.log(`pong: ${data}`));
    this.on("ping", () => console.log("ping from the gateway"));
    this.on("error", (error) => console.log(`error: ${error.message}`));
  }
}

const session = new Session({
  url,
  WebSocket: Client,
  primitives: await choosePrimitives(crypto.subtle),
  on: {
    step: (text) => console.log(text),
    packet: (packet, sent) => console.log(describe(packet, sent)),
    end: (why) => console.log(why),
  },
});
await new Promise((resolve) => session.socket.addEventListener("open", resolve));
await session.login({
  token,
  seed: seedFromPem(readFileSync(clientKey, "utf8")),
  serverKey: publicFromPem(readFileSync(serverKey, "utf8")),
});
await session.send({ mod: 3, seq: 7, data: fromText("hello") });
session.socket.ping("are you there");
if (leave) {
  session.close();
}
