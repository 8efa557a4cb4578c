// A graph's bytes: from a file, the network, or what an earlier visit kept.

import { fail } from "./errors.js";

/**
 * `{bytes}` or `{response}` of an address or a file.
 *
 * `kept` says that it comes from the cache; else `keep(bytes)`, where it is there, puts it there.
 */
export const open = async (address, { cache = true, signal }) => {
  // A place that is no URL is a file, but on a page it is relative to the page.
  if (!globalThis.location && !/^(?!file:)[a-z][\w+.-]+:/i.test(address)) {
    return (await import("./file.js")).read(address, signal);
  }
  const digest = cache?.length === 64 && cache; // in hexadecimal digits
  // There is none on a page without HTTPS, and none that may be used in a sandboxed frame.
  const store = cache && !/^(data|blob):/i.test(address) && (await globalThis.caches?.open("wasmgraph").catch(console.info));
  if (store && cache !== "reload") {
    // Contents stand under their SHA-256, as names that no server has; addresses name one.
    const name = digest || (await (await store.match(address))?.text());
    const response = await store.match(`https://wasmgraph.invalid/${name}`);
    if (response) return { response, kept: !digest };
  }
  const response = await fetch(address, { signal });
  if (!response.ok) fail("refused", response);
  return {
    response,
    keep: (store || digest) && ((bytes) => import("./keep.js").then((cache) => cache.keep(bytes, store, address, digest))),
  };
};
