// Load a graph and run it: the package's face.

import { InferenceError, LoadError, explained } from "./errors.js";
import { startGuest } from "./guest.js";
import { prepare } from "./program.js";
import { takeInputs } from "./tensor.js";

/** See index.d.ts. */
export const load = (source, options = {}) =>
  explained(LoadError, async () => {
    const program = await prepare(source, options);
    const { metadata } = program;
    const { inputs, outputs } = metadata;
    let isRemote = (options.worker ?? options.timeout > 0) || program.away;
    let instance;
    let isClosed;

    const start = async (timeout) => {
      instance ??= await (isRemote ? (await import("./remote.js")).start(program, timeout) : startGuest(program));
    };
    const drop = () => {
      instance?.close?.();
      instance = undefined;
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
      run: (given, { timeout = options.timeout } = {}) =>
        explained(InferenceError, async () => {
          if (isClosed) throw Error("it is closed");
          const result = last.then(async () => {
            const tensors = await takeInputs(inputs, given);
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
          });
          last = result.catch(() => {});
          const found = (await result).outputs;
          return Object.fromEntries(outputs.map(({ name }, i) => [name, found[i]]));
        }),
      close() {
        isClosed = true;
        last.then(drop);
      },
    };
  });
