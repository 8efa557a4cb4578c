// wasmgraph's own `.wasm`, under Node's engine (V8).

import { read, serve } from "./serve.mjs";

await serve({
  async imports() {
    const { Graph } = await import("./graph_host.mjs");
    return async (model, threads) => {
      const graph = await Graph.load(read(model), threads);
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
