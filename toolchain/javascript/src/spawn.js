// Threads, wherever this runs: web workers, or Node's.

/** A module of Node's own; a bundler for browsers must not look for it. */
export const node = (name) => import(/* @vite-ignore */ /* webpackIgnore: true */ `node:${name}`);

/** Whether memory can be shared between threads: in a browser, on pages that are cross-origin isolated. */
export const canShare = () => globalThis.crossOriginIsolated !== false && typeof SharedArrayBuffer === "function";

/** Whether this thread may sleep: a page's own may not. */
export function canWait() {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1);
    return true;
  } catch {
    return false;
  }
}

/**
 * Start a worker of this package.
 *
 * `heard(message)` gets what it says, `failed(text)` is told of an error that ends it.
 */
export async function spawn(heard, failed) {
  let worker;
  if (globalThis.Worker) {
    // In this form bundlers find the file.
    worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => heard(data);
    worker.onerror = (event) => {
      event.preventDefault?.();
      failed(event.message ?? "its script cannot be loaded");
    };
  } else {
    const { Worker } = await node("worker_threads");
    // Not the flags of this process: they may be about its own script.
    worker = new Worker(new URL("./worker.js", import.meta.url), { execArgv: [] });
    worker.on("message", heard).on("error", (error) => failed(error.message));
  }
  return worker;
}

/** In a worker: answer what the thread that started it says. */
export async function listen(answer) {
  const port = globalThis.postMessage ? globalThis : (await node("worker_threads")).parentPort;
  port.onmessage = ({ data }) => answer(data, port);
}
