// A graph in a worker: the thread that calls it is not held up, and a run that takes too long is ended.

import { InferenceError, LoadError, RunTimeout, printable, unpack } from "./errors.js";
import { spawn } from "./spawn.js";

/** ms; beyond it a timer rings at once. */
const MAX_TIMER = 2 ** 31 - 1;

/** As `Guest`, in a thread of its own; its methods give promises. */
export class Remote {
  #worker;
  #settle;
  #name;
  #kind = LoadError;

  /** Start a program in a new worker; `timeout` in ms, if any, is for starting it. */
  static async start(program, timeout) {
    const remote = new Remote();
    remote.#name = program.name;
    remote.#worker = await spawn(
      ({ ok, error }) => remote.#settle?.(error ? unpack(error) : undefined, ok),
      (text) => remote.#settle?.(new remote.#kind(`${program.name}: its worker ended: ${printable(text)}`)),
    );
    try {
      await remote.#ask("start", program, timeout);
      remote.#kind = InferenceError;
      return remote;
    } catch (error) {
      remote.close();
      throw error;
    }
  }

  /** As `Guest.run`: `{outputs, ms}`. */
  run(tensors, timeout) {
    // Copies, of which nothing else is a part, so that they can be moved.
    const copies = tensors.map(({ data, shape }) => ({ data: data.slice(), shape }));
    return this.#ask("run", copies, timeout, copies.map(({ data }) => data.buffer));
  }

  step(index, times, timeout) {
    return this.#ask("step", [index, times], timeout);
  }

  /** End the worker; a run under way fails. */
  close() {
    this.#worker.terminate();
    this.#settle?.(new InferenceError(`${this.#name} was closed`));
  }

  #ask(ask, value, timeout, moved = []) {
    return new Promise((resolve, reject) => {
      let timer;
      this.#settle = (error, ok) => {
        clearTimeout(timer);
        this.#settle = undefined;
        this.#worker.unref?.(); // an idle worker keeps no process alive
        if (error) reject(error);
        else resolve(ok);
      };
      if (timeout) {
        timer = setTimeout(() => {
          this.#settle(new RunTimeout(`${this.#name} was stopped after its time limit of ${timeout / 1e3} s`));
          this.close();
        }, Math.min(timeout, MAX_TIMER));
      }
      this.#worker.ref?.();
      this.#worker.postMessage({ ask, value }, moved);
    });
  }
}
