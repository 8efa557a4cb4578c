// What runs in a worker: a graph for a thread that must not be held up, or a helper of a run.

import { help } from "./crew.js";
import { pack } from "./errors.js";
import { Guest } from "./guest.js";
import { listen } from "./spawn.js";

let guest;

const answers = {
  async start(program) {
    guest = await Guest.start(program);
  },
  run(tensors) {
    const began = performance.now();
    const outputs = guest.run(tensors);
    return { outputs, ms: performance.now() - began };
  },
  step([index, times]) {
    const began = performance.now();
    guest.step(index, times);
    return { ms: performance.now() - began };
  },
};

listen(async (message, port) => {
  if (message.help) return help(message.help, (failure) => port.postMessage(failure));
  try {
    const ok = await answers[message.ask](message.value);
    port.postMessage({ ok }, ok?.outputs?.map(({ data }) => data.buffer) ?? []);
  } catch (error) {
    port.postMessage({ error: pack(error) });
  }
});
