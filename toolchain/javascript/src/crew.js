// The threads that help with every run of one instance: workers that instantiate the same module over the
// same memory. They sleep between runs.

import { LoadError } from "./errors.js";
import { spawn } from "./spawn.js";
import { link } from "./wasi.js";

// Words that the threads share beside the graph's memory: the run under way, counted from 1; how many times a
// helper has returned from one; whether one has failed.
const RUN = 0;
const RETURNED = 1;
const FAILED = 2;
/** Instead of a run: the instance is closed. */
const LEAVE = -1;
const CONTROL_BYTES = 12;

/** How often to look whether a helper has returned before sleeping: to be woken takes longer than that. */
const LOOKS = 20_000;

/** Start `size` threads; `makeStack()` gives the end of a new stack in the graph's memory. */
export async function startCrew(size, module, memory, makeStack) {
  const control = new Int32Array(new SharedArrayBuffer(CONTROL_BYTES));
  const workers = [];
  let runs = 0;
  let message;
  const close = () => {
    // Some engines end no thread that sleeps.
    Atomics.store(control, RUN, LEAVE);
    Atomics.notify(control, RUN);
    workers.forEach((worker) => worker.terminate());
  };
  try {
    for (let thread = 1; thread <= size; thread++) {
      const stack = makeStack();
      await new Promise((resolve, reject) => {
        const fail = (error) => {
          ({ message } = error);
          reject(new LoadError(`a thread cannot start: ${message}`));
        };
        spawn((error) => (error ? fail(error) : resolve()), fail).then((worker) => {
          workers.push(worker);
          worker.postMessage({ help: { module, memory, control, stack, thread } });
        }, reject);
      });
      workers[thread - 1].unref?.(); // between runs it keeps no process alive
    }
  } catch (error) {
    close();
    throw error;
  }
  return {
    close,
    /** `work()`'s code once every thread has done its part; where one has failed, throws `trapped(error)`. */
    async run(work, stop, trapped) {
      Atomics.store(control, RUN, ++runs);
      Atomics.notify(control, RUN);
      let code;
      try {
        code = work();
      } catch (error) {
        stop(); // they may wait for what this thread has left undone
        throw error;
      } finally {
        for (let looks = 0, returned; (returned = Atomics.load(control, RETURNED)) < runs * size; looks++) {
          if (looks > LOOKS) Atomics.wait(control, RETURNED, returned);
        }
      }
      if (control[FAILED]) {
        while (!message) await new Promise(setTimeout); // it is on its way
        throw trapped({ message });
      }
      return code;
    },
  };
}

/** A helper's whole life; `post(error)` tells that it has begun, and later why it failed. */
export async function help({ module, memory, control, stack, thread }, post) {
  try {
    const { functions } = await link(module, memory, () => {});
    post();
    for (let run = 1; ; run++) {
      Atomics.wait(control, RUN, run - 1);
      if (control[RUN] === LEAVE) return;
      try {
        functions.wg_work(stack, thread, run);
      } catch (error) {
        control[FAILED] = 1;
        functions.wg_stop();
        throw error;
      } finally {
        Atomics.add(control, RETURNED, 1);
        Atomics.notify(control, RETURNED);
      }
    }
  } catch (error) {
    post({ message: `${error?.message}` });
  }
}
