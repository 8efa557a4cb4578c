// wasmgraph's own `.wasm`, under Node's engine (V8).

import { read, serve } from "./serve.mjs";

await serve({
  async imports() {
    const { Graph } = await import("./graph_host.mjs");
    return async (model, threads) => {
      if (threads !== 1) throw new Error("this host runs graphs on one thread");
      const graph = await Graph.load(read(model));
      return {
        prepare: (tensors) =>
          graph.metadata.inputs.map(({ name }) => tensors.find((t) => t.name === name).bytes),
        run: (inputs) => graph.run(inputs),
        tensors: (outputs) =>
          graph.metadata.outputs.map((tensor, index) => ({ ...tensor, bytes: outputs[index] })),
        details: () => ({ guest: { total: graph.memoryBytes } }),
      };
    };
  },
});
