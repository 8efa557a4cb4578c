// The threads that help with every run of one instance: workers that instantiate the same module over the
// same memory. They sleep between runs.

import { link } from "./guest.js";
import { LoadError, printable } from "./errors.js";
import { spawn } from "./spawn.js";
import { Console } from "./wasi.js";

// Words that the threads share beside the graph's memory: the run under way, counted from 1; how many times a
// helper has returned from one; the length of a failed helper's error, which follows.
const RUN = 0;
const RETURNED = 1;
const FAILED = 2;
const HEAD_BYTES = 12;
const TEXT_BYTES = 1024;

const STACK_BYTES = 256 * 1024;
/** How often to look whether a helper has returned before sleeping: to be woken takes longer than that. */
const LOOKS = 20_000;

export class Crew {
  #workers = [];
  #control = new Int32Array(new SharedArrayBuffer(HEAD_BYTES + TEXT_BYTES));
  #runs = 0;

  /** Start `size` threads; `allocate(bytes)` gives the address of memory for a stack. */
  static async start(size, { module }, memory, allocate) {
    const crew = new Crew();
    try {
      for (let thread = 1; thread <= size; thread++) {
        const stack = allocate(STACK_BYTES) + STACK_BYTES; // a stack grows down from its end
        await crew.#add({ module, memory, control: crew.#control, stack, thread });
      }
      return crew;
    } catch (error) {
      crew.close();
      throw error;
    }
  }

  async #add(help) {
    await new Promise((resolve, reject) => {
      const fail = (text) => reject(new LoadError(`a thread cannot be started: ${printable(text)}`));
      spawn((failure) => (failure ? fail(failure) : resolve()), fail).then((worker) => {
        this.#workers.push(worker);
        worker.postMessage({ help });
      }, reject);
    });
    this.#workers.at(-1).unref?.(); // between runs it keeps no process alive
  }

  /** `run()`'s code once every thread has done its part, and the text of a helper's failure. */
  run(run, stop) {
    const control = this.#control;
    Atomics.store(control, RUN, ++this.#runs);
    Atomics.notify(control, RUN);
    let code;
    try {
      code = run();
    } catch (error) {
      stop(); // they may wait for what this thread has left undone
      throw error;
    } finally {
      const all = this.#runs * this.#workers.length;
      for (let looks = 0; ; looks++) {
        const returned = Atomics.load(control, RETURNED);
        if (returned === all) break;
        if (looks >= LOOKS) Atomics.wait(control, RETURNED, returned);
      }
    }
    const length = Atomics.load(control, FAILED);
    const text = new Uint8Array(control.buffer, HEAD_BYTES, length).slice();
    return { code, failure: new TextDecoder().decode(text) };
  }

  close() {
    this.#workers.forEach((worker) => worker.terminate());
  }
}

/** A helper's whole life; `ready(failure)` tells that it has begun, or why not. */
export async function help({ module, memory, control, stack, thread }, ready) {
  let functions;
  try {
    ({ functions } = await link({ module }, memory, new Console()));
  } catch (error) {
    return ready(String(error?.message ?? error));
  }
  ready();
  for (let run = 1; ; run++) {
    Atomics.wait(control, RUN, run - 1);
    try {
      functions.wg_work(stack, thread, run);
    } catch (error) {
      const text = new TextEncoder().encode(error?.message ?? error).subarray(0, TEXT_BYTES);
      new Uint8Array(control.buffer, HEAD_BYTES).set(text);
      Atomics.store(control, FAILED, text.length);
      functions.wg_stop();
    } finally {
      Atomics.add(control, RETURNED, 1);
      Atomics.notify(control, RETURNED);
    }
  }
}
