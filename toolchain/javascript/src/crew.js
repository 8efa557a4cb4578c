// The threads that help with every run of one instance: workers that instantiate the same module over the
// same memory. They sleep between runs.

import { CONTROL_BYTES, FAILED, LEAVE, RETURNED, RUN } from "./control.js";
import { LoadError } from "./errors.js";
import { spawn } from "./spawn.js";

const STACK_BYTES = 256 * 1024;

/** How often to look whether a helper has returned before sleeping: to be woken takes longer than that. */
const LOOKS = 20_000;

/**
 * Start what makes up `threads` threads with the one that calls `run`.
 *
 * `call(name)` calls the instance's function, `allocate(bytes)` gives room in its memory.
 */
export async function startCrew(threads, module, { steps }, memory, call, allocate) {
  // A graph without shares has nothing to give to another thread.
  const size = steps.some(({ shares }) => shares > 1) ? threads - 1 : 0;
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
      const stack = allocate(STACK_BYTES) + STACK_BYTES; // it grows downwards
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
    /** The run's code once every thread has done its part; where one has failed, `trapped(error)` throws. */
    async run(trapped) {
      Atomics.store(control, RUN, ++runs);
      Atomics.notify(control, RUN);
      let code;
      try {
        code = call("wg_run");
      } catch (error) {
        call("wg_stop"); // they may wait for what this thread has left undone
        throw error;
      } finally {
        for (let looks = 0, returned; (returned = Atomics.load(control, RETURNED)) < runs * size; looks++) {
          if (looks > LOOKS) Atomics.wait(control, RETURNED, returned);
        }
      }
      if (control[FAILED]) {
        while (!message) await new Promise(setTimeout); // it is on its way
        trapped({ message });
      }
      return code;
    },
  };
}
