// Threads, wherever this runs: web workers, or Node's.

/** A module of Node's own; a bundler for browsers must not look for it. */
export const node = (name) => import(/* @vite-ignore */ /* webpackIgnore: true */ `node:${name}`);

/** Start a worker of this package. `heard(message)` gets what it says, `failed(error)` what ends it. */
export async function spawn(heard, failed) {
  let worker;
  if (globalThis.Worker) {
    // In this form bundlers find the file.
    worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => heard(data);
    worker.onerror = failed;
  } else {
    const { Worker } = await node("worker_threads");
    // Without the flags of this process: they may be about its own script.
    worker = new Worker(new URL("./worker.js", import.meta.url), { execArgv: [] });
    worker.on("message", heard).on("error", failed);
  }
  return worker;
}

/** In a worker: answer what the thread that started it says. */
export async function listen(answer) {
  const port = globalThis.postMessage ? globalThis : (await node("worker_threads")).parentPort;
  port.onmessage = ({ data }) => answer(data, port);
}
