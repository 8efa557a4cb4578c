// Load a graph and run it: the package's face.

import { startGuest } from "./guest.js";
import { prepare } from "./program.js";
import { startRemote } from "./remote.js";
import { checkInputs } from "./tensor.js";

/** Whether this thread may sleep: a page's own may not. */
function canWait() {
  try {
    return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1);
  } catch {
    return false;
  }
}

/** See index.d.ts. */
export async function load(source, options = {}) {
  const program = await prepare(source, options);
  const { name, metadata, threads } = program;
  const { inputs, outputs } = metadata;
  let isRemote = (options.worker ?? options.timeout > 0) || (threads > 1 && !canWait());
  let instance;
  let last;
  let isClosed = false;

  const start = async (timeout) => {
    instance ??= await (isRemote ? startRemote(program, timeout) : startGuest(program));
  };
  const drop = () => {
    instance?.close();
    instance = undefined;
  };
  const runOnce = async (tensors, timeout) => {
    if (timeout && !isRemote) {
      // Only another thread can be stopped; the graph stays there.
      drop();
      isRemote = true;
    }
    try {
      await start(timeout);
      return await instance.run(tensors, timeout);
    } catch (error) {
      drop(); // it stopped anywhere: nothing can be said of the state of its memory
      throw error;
    }
  };
  const queue = (work) => {
    const result = last.then(work);
    last = result.catch(() => {});
    return result;
  };

  last = start(options.timeout); // what is wrong with the graph shows while it is loaded
  await last;
  return {
    inputs,
    outputs,
    metadata,
    get memoryBytes() {
      return instance?.memory?.buffer.byteLength;
    },
    async run(given, { timeout = options.timeout } = {}) {
      if (isClosed) throw new Error(`${name} is closed`);
      const tensors = checkInputs(inputs, given);
      const found = await queue(() => runOnce(tensors, timeout));
      return Object.fromEntries(outputs.map((spec, i) => [spec.name, found.outputs[i]]));
    },
    close() {
      isClosed = true;
      queue(drop);
    },
  };
}
