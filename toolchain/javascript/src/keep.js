// What is fetched goes to the browser's cache, for the next visit: see source.js.

import { LoadError } from "./errors.js";

/**
 * Put the bytes of an address into `store`, if there is one, in place of what it had.
 *
 * Throws a LoadError where their SHA-256 is not `expected`, if that is given.
 */
export async function keep(bytes, store, address, expected) {
  const hash = await crypto.subtle.digest("SHA-256", bytes);
  const digest = Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (expected && expected !== digest) throw new LoadError(`it has the SHA-256 ${digest}, not ${expected}`);
  if (!store) return;
  try {
    const place = (name) => `https://wasmgraph.invalid/${name}`;
    const before = await (await store.match(address))?.text();
    if (before !== digest) await store.delete(place(before));
    await store.put(place(digest), new Response(bytes));
    await store.put(address, new Response(digest));
  } catch (error) {
    console.info(`wasmgraph: nothing is cached: ${error.message}`); // no room left, say
  }
}
