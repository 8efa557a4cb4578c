// Load a graph and run it: the package's face.

import { startGuest } from "./guest.js";
import { prepare } from "./program.js";
import { checkInputs } from "./tensor.js";

/** See index.d.ts. */
export async function load(source, options = {}) {
  const program = await prepare(source, options);
  const { metadata } = program;
  const { inputs, outputs } = metadata;
  let isRemote = (options.worker ?? options.timeout > 0) || program.needsWorker;
  let instance;
  let isClosed;

  const start = async (timeout) => {
    instance ??= await (isRemote ? (await import("./remote.js")).startRemote(program, timeout) : startGuest(program));
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

  let last = start(options.timeout); // what is wrong with the graph shows while it is loaded
  await last;
  return {
    inputs,
    outputs,
    metadata,
    get memoryBytes() {
      return instance?.memory?.buffer.byteLength;
    },
    async run(given, { timeout = options.timeout } = {}) {
      if (isClosed) throw new Error(`${program.name} is closed`);
      const tensors = checkInputs(inputs, given);
      const result = last.then(() => runOnce(tensors, timeout));
      last = result.catch(() => {});
      const found = (await result).outputs;
      return Object.fromEntries(outputs.map(({ name }, i) => [name, found[i]]));
    },
    close() {
      isClosed = true;
      last.then(drop);
    },
  };
}
