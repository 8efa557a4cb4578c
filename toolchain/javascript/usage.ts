// How the package is used from TypeScript; tests check that it compiles. Not part of what is published.

import {
  InferenceError,
  InputError,
  type Graph,
  type Tensor,
  WasmgraphError,
  fromImageData,
  load,
  tensor,
} from "wasmgraph";

export async function classify(canvas: CanvasRenderingContext2D): Promise<number> {
  const graph: Graph = await load("model.wasm", { threads: 2, cache: true, timeout: 1000 });
  const image = fromImageData(canvas.getImageData(0, 0, 224, 224), {
    size: [224, 224],
    mean: [0.485, 0.456, 0.406],
    std: [0.229, 0.224, 0.225],
    layout: "NCHW",
  });
  const { probabilities } = await graph.run({ image });
  graph.close();
  return (probabilities!.data as Float32Array).indexOf(1);
}

export async function explain(graph: Graph): Promise<string> {
  const tokens: Tensor = tensor([1n, 2n, 3n], [1, 3], "int64");
  try {
    await graph.run({ tokens, mask: [[true, false, true]], scale: new Float32Array(1) }, { timeout: 50 });
  } catch (error) {
    if (error instanceof InputError || error instanceof InferenceError) return error.hint ?? error.message;
    if (error instanceof WasmgraphError) return error.kind;
    throw error;
  }
  return graph.inputs.map(({ name, dtype, shape }) => `${name}: ${dtype}[${shape.join(", ")}]`).join();
}

export async function refused(graph: Graph): Promise<void> {
  // @ts-expect-error: not a dtype
  tensor([1], [1], "float31");
  // @ts-expect-error: not a layout
  fromImageData({ data: [], width: 0, height: 0 }, { layout: "CHWN" });
  // @ts-expect-error: no input is a text
  await graph.run({ text: "hello" });
  // @ts-expect-error: not a number of threads
  await load(new URL("file:///model.wasm"), { threads: "2" });
}
