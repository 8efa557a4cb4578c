// wasmgraph's own `.wasm`, under Node's engine (V8), by the package of toolchain/javascript.

import { read, serve } from "./serve.mjs";

const PACKAGE = new URL("../../toolchain/javascript/src/index.js", import.meta.url);

await serve({
  async imports() {
    const { load } = await import(PACKAGE);
    const { ARRAYS } = await import(new URL("tensor.js", PACKAGE));
    const tensor = ({ name, dtype, shape, bytes }) => [
      name,
      { data: new ARRAYS[dtype](bytes.buffer), shape, dtype },
    ];
    return async (model, threads) => {
      const graph = await load(read(model), { threads });
      return {
        prepare: (tensors) => Object.fromEntries(tensors.map(tensor)),
        run: (inputs) => graph.run(inputs),
        tensors: (outputs) =>
          Object.entries(outputs).map(([name, { data, shape, dtype }]) => ({
            ...{ name, dtype, shape },
            bytes: new Uint8Array(data.buffer),
          })),
        details: () => ({ guest: { total: graph.memoryBytes } }),
      };
    };
  },
});
