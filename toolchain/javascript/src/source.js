// A graph's bytes: from a file, the network, or what an earlier visit kept.

import { LoadError, fail } from "./errors.js";

/**
 * `{bytes}` or `{response}` of an address or a file.
 *
 * `isKept` says that it comes from the cache; else `keep(bytes)`, where it is there, puts it there.
 */
export async function open(address, { cache = true, signal }) {
  // A place that is no URL is a file, but on a page it is relative to the page.
  if (/^file:/i.test(address) || !(globalThis.location || /^[a-z][\w+.-]+:/i.test(address))) {
    const { readBytes } = await import("./file.js");
    return { bytes: await readBytes(address, signal) };
  }
  const digest = cache !== true && cache !== "reload" && cache;
  // There is none on a page without HTTPS, and none that may be used in a sandboxed frame.
  const store =
    cache &&
    /^(?!data:|blob:)/i.test(address) &&
    (await globalThis.caches?.open("wasmgraph").catch(({ message }) => console.info(`wasmgraph: nothing is cached: ${message}`)));
  if (store && cache !== "reload") {
    // Contents stand under their SHA-256, as names that no server has; addresses name one.
    const name = digest || (await (await store.match(address))?.text());
    const response = await store.match(`https://wasmgraph.invalid/${name}`);
    if (response) return { response, isKept: !digest };
  }
  const response = await fetch(address, { signal });
  if (!response.ok) fail(LoadError, `the server answered ${response.status} ${response.statusText}`);
  return {
    response,
    keep: (store || digest) && (async (bytes) => (await import("./keep.js")).keep(bytes, store, address, digest)),
  };
}
