// A component in JavaScript, here in Node, after jco has translated it:
//
//   npx jco transpile GRAPH.wasm --name graph -o translated
//   node library.mjs translated/graph.js
//
// Describes the graph, runs it on zeros and prints the values of its float32 outputs.
import { pathToFileURL } from "node:url";

const { model } = await import(pathToFileURL(process.argv[2]));

const { inputs, outputs, model: source } = model.describe();
const shown = ({ name, dtype, shape }) =>
  `${name}: ${dtype}[${shape?.map((extent) => extent.val).join(", ") ?? "..."}]`;
console.log(`${source.name}: ${inputs.map(shown).join(", ")} -> ${outputs.map(shown).join(", ")}`);

// An open axis gets the extent 1.
const extents = ({ shape }) => shape.map(({ tag, val }) => (tag === "fixed" ? val : 1));
const nbytes = { bool: 1, float16: 2, float32: 4, float64: 8, int64: 8, int32: 4, uint8: 1, int8: 1 };
const zeros = inputs.map((input) => {
  const shape = extents(input);
  const length = shape.reduce((a, b) => a * b, nbytes[input.dtype]);
  const tensor = { dtype: input.dtype, shape: new Uint32Array(shape), bytes: new Uint8Array(length) };
  return { name: input.name, tensor };
});

try {
  for (const { name, tensor } of model.run(zeros)) {
    if (tensor.dtype !== "float32") continue;
    // The bytes need not lie at a multiple of four.
    const values = new Float32Array(tensor.bytes.slice().buffer);
    console.log(`${name}: ${[...values].map((value) => value.toFixed(4)).join(" ")}`);
  }
} catch (error) {
  // What `run` returns as an error, jco throws: its kind, and a sentence for people.
  const { tag, val } = error.payload ?? { tag: "trap", val: error.message };
  console.error(`${tag}: ${val}`);
  process.exitCode = 1;
}
