// A thread that helps with every run of one instance; see crew.js.

import { FAILED, LEAVE, RETURNED, RUN } from "./control.js";
import { link } from "./wasi.js";

/** A helper's whole life; `post(error)` tells that it has begun, and later why it failed. */
export async function help({ module, memory, control, stack, thread }, post) {
  try {
    const { exports } = await link(module, memory, () => {});
    post();
    for (let run = 1; ; run++) {
      Atomics.wait(control, RUN, run - 1);
      if (control[RUN] === LEAVE) return;
      try {
        exports.wg_work(stack, thread, run);
      } catch (error) {
        control[FAILED] = 1;
        exports.wg_stop();
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
