// Chooses what each primitive is taken from: WebCrypto where the browser has it, else the
// library brought along.

import { native } from "./native.js";

const TITLES = { exchange: "X25519", signature: "Ed25519", cipher: "AES-GCM" };

// subtle: crypto.subtle, undefined on a page that is no secure context. loadFallback resolves
// to the module fallback.js. Resolves to {exchange, signature, cipher, report}; one that is
// not to be had is null, and report has a line of words for each that is not the browser's.
export async function choosePrimitives(subtle, loadFallback) {
  const chosen = { report: [] };
  if (!subtle) {
    chosen.report.push("The browser gives this page no WebCrypto (crypto.subtle), since it was " +
                       "not loaded over https or from this machine.");
  }
  for (const [name, title] of Object.entries(TITLES)) {
    let why = "there is no WebCrypto";
    try {
      if (subtle) {
        chosen[name] = await native[name](subtle);
        continue;
      }
    } catch (error) {
      why = `${error.name}: ${error.message}`;
    }
    try {
      chosen[name] = (await loadFallback())[name];
      chosen.report.push(`${title} is taken from the library brought along: ${why}.`);
    } catch (error) {
      chosen[name] = null;
      chosen.report.push(`${title} is missing: ${why}. The library that would do was not brought ` +
                         `along (make web, with npm): ${error.message}`);
    }
  }
  return chosen;
}
