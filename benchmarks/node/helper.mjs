// A thread that helps with every run of a graph: an instance of the same module over the same memory.
// It sleeps between runs. The process ends with its error, if it has one.

import { parentPort, workerData } from "node:worker_threads";
import { RETURNED, RUN } from "./threads.mjs";
import { wasiImports } from "./wasi.mjs";

const { module, memory, control, stack, thread } = workerData;
const imports = { env: { memory }, wasi_snapshot_preview1: wasiImports(() => memory) };
const { exports: wasm } = await WebAssembly.instantiate(module, imports);
parentPort.postMessage("ready");
for (let run = 1; ; run++) {
  Atomics.wait(control, RUN, run - 1);
  try {
    wasm.wg_work(stack, thread, run);
  } catch (error) {
    wasm.wg_stop();
    throw error;
  } finally {
    Atomics.add(control, RETURNED, 1);
    Atomics.notify(control, RETURNED);
  }
}
