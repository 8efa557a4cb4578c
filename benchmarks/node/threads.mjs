// What a graph for several threads needs of its host: the memory that it imports, and the threads.

import { once } from "node:events";
import { Worker } from "node:worker_threads";

/** Words that the threads share beside the graph's memory: the run under way, counted from 1, ... */
export const RUN = 0;
/** ... and how many times a helper has returned from one. */
export const RETURNED = 1;

const STACK_BYTES = 256 * 1024;
/** How often to look whether a helper has returned before sleeping: to be woken takes longer than that. */
const LOOKS = 20_000;
const HEADER_BYTES = 8;
const IMPORT_SECTION = 2;

/** The shared memory that a module imports, made as its `bytes` want it; undefined where it has its own. */
export function sharedMemory(module, bytes) {
  const imports = WebAssembly.Module.imports(module);
  if (!imports.some(({ kind }) => kind === "memory")) return undefined;
  let at = HEADER_BYTES;
  const number = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
  };
  const skip = () => {
    const nbytes = number();
    at += nbytes;
  };
  while (bytes[at++] !== IMPORT_SECTION) skip();
  number(); // the section's length
  number(); // how many there are
  for (const { kind } of imports) {
    skip(); // the module's name
    skip(); // the import's
    at++; // its kind
    if (kind === "memory") break;
    number(); // a function's type
  }
  at++; // flags: shared, and with a maximum
  return new WebAssembly.Memory({ initial: number(), maximum: number(), shared: true });
}

/** The threads that help with every run of one instance. */
export class Helpers {
  #wasm;
  #count;
  #control = new Int32Array(new SharedArrayBuffer(8));
  #runs = 0;

  /** Start `count` threads for the instance with the exports `wasm`. */
  static async start(count, module, memory, wasm) {
    const helpers = new Helpers();
    helpers.#wasm = wasm;
    helpers.#count = count;
    for (let thread = 1; thread <= count; thread++) {
      const block = wasm.wg_alloc(STACK_BYTES) >>> 0;
      if (block === 0) throw new Error("no memory left for a thread's stack");
      // A stack grows down from its end.
      const data = { module, memory, control: helpers.#control, stack: block + STACK_BYTES, thread };
      const worker = new Worker(new URL("./helper.mjs", import.meta.url), { workerData: data });
      await once(worker, "message");
    }
    return helpers;
  }

  /** The result of `wg_run`, once every thread has done its part. */
  run() {
    const control = this.#control;
    Atomics.store(control, RUN, ++this.#runs);
    Atomics.notify(control, RUN);
    try {
      return this.#wasm.wg_run();
    } catch (error) {
      this.#wasm.wg_stop(); // they may wait for what this thread has left undone
      throw error;
    } finally {
      const all = this.#runs * this.#count;
      for (let looks = 0; ; looks++) {
        const returned = Atomics.load(control, RETURNED);
        if (returned === all) break;
        if (looks >= LOOKS) Atomics.wait(control, RETURNED, returned);
      }
    }
  }
}
