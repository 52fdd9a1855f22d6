// test/vectors.txt as {name: text}, and the engines that each must be computed by.

import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";

import { fromHex } from "../../../tools/web/bytes.js";
import { choosePrimitives } from "../../../tools/web/primitives.js";

globalThis.crypto ??= webcrypto; // a global from node 19 on

const text = readFileSync(new URL("../../vectors.txt", import.meta.url), "utf8");
export const V = Object.fromEntries(
  Array.from(text.matchAll(/^(\w+)(?: \(.*\))? = (\S+)$/gm), ([, name, value]) => [name, value]));
export const raw = (name) => fromHex(V[name]);

export const loadFallback = () => import("../../../build/web/fallback.js");
export const engines = {
  native: await choosePrimitives(webcrypto.subtle, loadFallback),
  fallback: await choosePrimitives(undefined, loadFallback),
};
