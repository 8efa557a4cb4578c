// A graph's bytes: from memory, a file, the network, or what an earlier visit kept.

import { LoadError } from "./errors.js";
import { node } from "./spawn.js";

/** Where contents stand in the cache, by their SHA-256. A name that no server has. */
const KEPT = "https://wasmgraph.invalid/";

const note = (error) => console.info(`wasmgraph: nothing is cached: ${error.message}`);
const isDigest = (cache) => /^[0-9a-f]{64}$/.test(cache);

/**
 * `{bytes}` or `{response}` of an address or a file.
 *
 * `isKept` says that it comes from the cache; else `keep(bytes)` puts it there.
 */
export async function open(address, { cache = true, signal }) {
  // A place that is no URL is a file, but on a page it is relative to the page.
  if (/^file:/i.test(address) || !(globalThis.location || /^[a-z][\w+.-]+:/i.test(address))) {
    const { readFile } = await node("fs/promises");
    return { bytes: await readFile(/^file:/i.test(address) ? new URL(address) : address, { signal }) };
  }
  const isCached = cache && /^(?!data:|blob:)/i.test(address);
  // There is none on a page without HTTPS, and none that may be used in a sandboxed frame.
  const store = isCached && (await globalThis.caches?.open("wasmgraph").catch(note));
  const find = async () => (await store.match(address))?.text();
  if (store && cache !== "reload") {
    const response = await store.match(KEPT + (isDigest(cache) ? cache : await find()));
    if (response) return { response, isKept: cache === true };
  }
  const response = await fetch(address, { signal });
  if (!response.ok) throw new LoadError(`the server answered ${response.status} ${response.statusText}`);
  const keep = async (bytes) => {
    const hash = await crypto.subtle.digest("SHA-256", bytes);
    const digest = Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (isDigest(cache) && cache !== digest) throw new LoadError(`it has the SHA-256 ${digest}, not ${cache}`);
    if (!store) return;
    try {
      const before = await find();
      if (before !== digest) await store.delete(KEPT + before);
      await store.put(KEPT + digest, new Response(bytes));
      await store.put(address, new Response(digest));
    } catch (error) {
      note(error); // no room left, say
    }
  };
  return { response, keep: store || isDigest(cache) ? keep : undefined };
}
