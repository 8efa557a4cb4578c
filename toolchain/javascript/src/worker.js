// What runs in a worker: a graph for a thread that must not be held up, or a helper of a run.

import { startGuest } from "./guest.js";
import { help } from "./helper.js";
import { pack } from "./packed.js";
import { listen } from "./spawn.js";

let guest;

listen(async (message, port) => {
  if (message.help) return help(message.help, (error) => port.postMessage(error));
  try {
    guest ??= await startGuest(message.program);
    const { tensors, call } = message;
    const began = performance.now();
    const answer = tensors ? await guest.run(tensors) : { code: call && guest.call(...call) };
    port.postMessage({ ...answer, ms: performance.now() - began }, answer.outputs?.map(({ data }) => data.buffer) ?? []);
  } catch (error) {
    port.postMessage({ error: pack(error) });
  }
});
