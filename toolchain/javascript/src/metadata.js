// The metadata in a graph's custom section `wasmgraph`, checked as far as they are used here: files are of any
// origin.

import { LoadError, fail } from "./errors.js";
import { ARRAYS, isCount, isKnown, sizeOf } from "./tensor.js";

export const ABI = 1;

const TENSORS = [
  {
    name: "",
    dtype: (dtype) => typeof dtype === "string" && ARRAYS[dtype],
    shape: [(extent) => typeof extent === "string" || isCount(extent)],
  },
];
/** What they should be like: a value of the same type, a list of such, or what a function says. */
const METADATA = {
  abi: (abi) => abi === ABI,
  producer: {},
  model: { name: "", sha256: "", opset: isCount, operators: {} },
  simd: (simd) => ["none", "simd128", "relaxed"].includes(simd),
  threads: true,
  inputs: TENSORS,
  outputs: TENSORS,
  sizes: { code: isCount, weights: isCount, arena: isCount, io: isCount },
  kernels: [{ symbol: "", description: "" }],
  steps: [{ kernel: isCount, nodes: [""] }],
};

/** "[object Array]", "[object Null]" ... of what JSON has. */
const typeOf = (value) => ({}).toString.call(value);

function check(value, like, place) {
  const isRight = like.call ? like(value) : typeOf(value) === typeOf(like);
  if (!isRight) fail(LoadError, `the graph's ${place} cannot be ${`${value}`.slice(0, 99)}`);
  for (const key in Array.isArray(like) ? value : like) check(value[key], like[key] ?? like[0], `${place}.${key}`);
}

/** The metadata of a compiled module. Throws a LoadError where it is no graph of this ABI, or an error of JSON. */
export function readMetadata(module) {
  const sections = WebAssembly.Module.customSections(module, "wasmgraph");
  if (sections.length !== 1) {
    fail(
      LoadError,
      `no graph: it has ${sections.length} custom sections 'wasmgraph'`,
      "a graph is the .wasm that `wasmgraph compile` writes",
    );
  }
  const metadata = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(sections[0]));
  check(metadata, METADATA, "metadata");
  const { inputs, outputs, steps, kernels } = metadata;
  const isRight =
    steps.every(({ kernel }) => kernel < kernels.length) &&
    [inputs, outputs].every(
      (tensors) =>
        new Set(tensors.map(({ name }) => name)).size === tensors.length &&
        tensors.every(({ shape, dtype }) => shape.length <= 32 && sizeOf(shape.filter(isKnown), dtype) < Infinity),
    );
  if (!isRight) fail(LoadError, "the graph's metadata: a step has no kernel, a tensor is too large, or two have one name");
  return metadata;
}
