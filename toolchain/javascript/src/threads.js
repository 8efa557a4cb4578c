// What is to be known of a graph and this place before several threads work on a run.

import { LoadError } from "./errors.js";
import { limitMemory } from "./memory.js";

/**
 * `{threads, shared, needsWorker}`: how many there will be, the memory to make for them, and whether the graph must
 * live in a worker.
 */
export function planThreads(metadata, bytes, { threads = 1, maxMemory }) {
  if (!metadata.threads) {
    throw new LoadError(`it was compiled for one thread, not for ${threads}`, "compile the model with --threads");
  }
  const shared = limitMemory(bytes, maxMemory).memory;
  if (!shared?.shared) throw new LoadError("a graph for several threads should import a shared memory");
  if (threads > 1 && globalThis.crossOriginIsolated === false) {
    console.info("wasmgraph: one thread instead of several, since this page is not cross-origin isolated");
    return { threads: 1, shared };
  }
  return { threads, shared, needsWorker: threads > 1 && !canWait() };
}

/** Whether this thread may sleep: a page's own may not. */
function canWait() {
  try {
    return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1);
  } catch {
    return false;
  }
}
