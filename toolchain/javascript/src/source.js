// A graph's bytes: from memory, a file, the network, or what an earlier visit kept.

import { LoadError } from "./errors.js";
import { node } from "./spawn.js";

const CACHE = "wasmgraph";
/** Where contents stand in the cache, by their SHA-256. A name that no server has. */
const KEPT = "https://wasmgraph.invalid/";

/** As a person calls the source, in errors. */
export const nameOf = (source) =>
  source instanceof Uint8Array || source instanceof ArrayBuffer ? "the graph" : String(source?.url ?? source) || "the graph";

/**
 * The bytes or the Response of a source, and what else there is to say of it.
 *
 * `keep()`, where it is there, puts the contents into the cache; `isKept` says that they come from it.
 */
export async function open(source, { cache = true, signal }) {
  if (typeof cache !== "boolean" && cache !== "reload" && !isDigest(cache)) {
    throw new RangeError(`cache should be true, false, "reload" or a SHA-256 in hexadecimal digits, not ${cache}`);
  }
  if (source instanceof Uint8Array) return { bytes: source };
  if (source instanceof ArrayBuffer) return { bytes: new Uint8Array(source) };
  if (typeof source !== "string" && !(source instanceof URL)) return { response: source };
  const text = String(source);
  try {
    if (isFile(text)) {
      const { readFile } = await node("fs/promises");
      return { bytes: await readFile(/^file:/i.test(text) ? new URL(text) : text, { signal }) };
    }
    const store = cache && !/^(data|blob):/i.test(text) ? await openCache() : undefined;
    const kept = cache === "reload" ? undefined : await find(store, text, cache);
    if (kept) return { response: kept, isKept: true };
    const response = await fetch(text, { signal });
    const keep = store || isDigest(cache) ? keeper(store, text, response.clone(), cache) : undefined;
    return { response, keep };
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new LoadError(`${text} cannot be read: ${error.cause?.message || error.message}`);
  }
}

const isDigest = (cache) => /^[0-9a-f]{64}$/.test(cache);

// A place that is no URL is a file, but on a page it is relative to the page.
const isFile = (text) => /^file:/i.test(text) || !(globalThis.location || /^[a-z][a-z0-9+.-]+:/i.test(text));

async function openCache() {
  try {
    return await globalThis.caches?.open(CACHE);
  } catch (error) {
    console.info(`wasmgraph: nothing is cached: ${error.message}`); // as in a sandboxed frame
  }
}

async function find(store, text, cache) {
  const digest = cache === true ? await (await store?.match(text))?.text() : cache;
  return digest && store?.match(KEPT + digest);
}

/** Keeps a response's contents under their hash, and the hash under the address, once it is asked to. */
function keeper(store, text, response, cache) {
  const contents = response.ok ? response.arrayBuffer() : undefined;
  contents?.catch(() => {}); // whoever reads the other copy is told
  return async () => {
    const bytes = await contents;
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const digest = [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    if (isDigest(cache) && cache !== digest) throw new LoadError(`it has the SHA-256 ${digest}, not ${cache}`);
    if (!store) return;
    try {
      const before = await (await store.match(text))?.text();
      if (before && before !== digest) await store.delete(KEPT + before);
      await store.put(KEPT + digest, new Response(bytes));
      await store.put(text, new Response(digest));
    } catch (error) {
      console.info(`wasmgraph: ${text} is not cached: ${error.message}`); // no room left, say
    }
  };
}
