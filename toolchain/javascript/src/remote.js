// A graph in a worker: the thread that calls it is not held up, and a run that takes too long is ended.

import { RunTimeout } from "./errors.js";
import { unpack } from "./packed.js";
import { spawn } from "./spawn.js";

/** ms; beyond it a timer rings at once. */
const MAX_TIMER = 2 ** 31 - 1;

/** As `startGuest`, in a thread of its own. Every step may take `timeout` ms, if that is given. */
export async function startRemote(program, timeout) {
  let settle;
  const fail = ({ message }) => settle({ error: { kind: "InferenceError", message: `the worker ended: ${message}` } });
  const worker = await spawn((answer) => settle(answer), fail);
  const close = () => worker.terminate();

  const ask = (message, limit, moved) =>
    new Promise((resolve, reject) => {
      const timer =
        limit &&
        setTimeout(() => {
          close();
          reject(new RunTimeout(`${program.name} was stopped after its time limit of ${limit / 1e3} s`));
        }, Math.min(limit, MAX_TIMER));
      settle = (answer) => {
        clearTimeout(timer);
        worker.unref?.(); // an idle worker keeps no process alive
        if (answer.error) reject(unpack(answer.error));
        else resolve(answer);
      };
      worker.ref?.();
      worker.postMessage(message, moved);
    });

  const remote = {
    close,
    call: (...call) => ask({ call }, timeout),
    run(tensors, limit) {
      // Copies, of which nothing else is a part, so that they can be moved.
      const copies = tensors.map(({ data, shape }) => ({ data: data.slice(), shape }));
      return ask({ tensors: copies }, limit, copies.map(({ data }) => data.buffer));
    },
  };
  try {
    await ask({ program }, timeout);
    return remote;
  } catch (error) {
    close();
    throw error;
  }
}
