// What the user sees: the fields, the buttons and the log around one session at a time.

import { fromHex, fromText } from "./bytes.js";
import { describe } from "./describe.js";
import { canInflate } from "./inflate.js";
import { publicFromPem, seedFromPem } from "./pem.js";
import { choosePrimitives } from "./primitives.js";
import { Session } from "./session.js";

const LOG_LINES_MAX = 1000;

const gateway = document.forms.gateway.elements;
const message = document.forms.message.elements;
const lines = document.getElementById("log");
const state = document.getElementById("state");
const start = performance.now();

let session = null;

function log(text, kind) {
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = `${(performance.now() - start).toFixed(1)} ms`;
  line.className = kind ?? "";
  line.append(time, text);
  lines.append(line);
  if (lines.childElementCount > LOG_LINES_MAX) {
    lines.firstElementChild.remove();
  }
}

// What can be done now.
function show() {
  const now = session?.state ?? "idle";
  const alive = now !== "idle" && now !== "closed";
  state.textContent = now;
  gateway.connect.disabled = alive;
  gateway.login.disabled = now !== "connected";
  gateway.close.disabled = !alive;
  message.send.disabled = now !== "open";
  message.heartbeat.disabled = now !== "open";
}

// Runs what a button does; what goes wrong is told.
function attempt(what, action) {
  return async (event) => {
    event.preventDefault();
    try {
      await action();
    } catch (error) {
      log(`${what} failed: ${error.message}`, "failed");
    }
    show();
  };
}

function named(title, parse) {
  try {
    return parse();
  } catch (error) {
    throw new Error(`${title}: ${error.message}`);
  }
}

function integer(field, bits) {
  const value = named(field.name, () => BigInt(field.value.trim()));
  if (BigInt.asIntN(bits, value) !== value) {
    throw new Error(`${field.name}: it does not fit into ${bits} bits`);
  }
  return value;
}

function connect(primitives) {
  session = new Session({
    url: gateway.url.value.trim(),
    primitives,
    on: {
      step(text) {
        log(text);
        show();
      },
      packet(packet, sent) {
        log(describe(packet, sent), "packet");
      },
      end(why) {
        log(why);
        show();
      },
    },
  });
}

function login() {
  const serverKey = gateway.server_key.value.trim();
  return session.login({
    token: gateway.token.value.trim(),
    seed: named("the client's private key", () => seedFromPem(gateway.client_key.value)),
    serverId: integer(gateway.server_id, 64),
    serverKey: serverKey ? named("the server's key", () => publicFromPem(serverKey)) : null,
    encrypted: !gateway.plain.checked,
  });
}

function send() {
  const text = message.data.value;
  return session.send({
    mod: Number(integer(message.mod, 32)),
    seq: Number(integer(message.seq, 32)),
    obj: integer(message.obj, 64),
    data: message.form.value === "hex" ? named("data", () => fromHex(text)) : fromText(text),
    compress: message.compress.checked,
  });
}

for (const input of document.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", async () => {
    gateway[input.dataset.for].value = await input.files[0]?.text() ?? "";
  });
}

// An IPv6 address keeps its brackets in hostname.
gateway.url.value = `ws://${location.hostname || "127.0.0.1"}:17002/ws`;

const primitives = await choosePrimitives(globalThis.crypto.subtle, () => import("./fallback.js"));
if (!canInflate()) {
  primitives.report.push("DecompressionStream is missing: compressed answers are shown as they come.");
}
document.getElementById("primitives").append(...primitives.report.map((text) => {
  const line = document.createElement("li");
  line.textContent = text;
  return line;
}));
document.forms.gateway.addEventListener("submit", attempt("connecting", () => connect(primitives)));
document.forms.message.addEventListener("submit", attempt("sending", send));
gateway.login.addEventListener("click", attempt("the login", login));
gateway.close.addEventListener("click", attempt("closing", () => session.close()));
message.heartbeat.addEventListener("click", attempt("the heartbeat", () => session.heartbeat()));
show();
log("ready");
