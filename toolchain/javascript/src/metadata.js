// The metadata in a graph's custom section `wasmgraph`, checked as far as they are used here: files are of any
// origin.

import { fail } from "./errors.js";
import { ARRAYS, isKnown, sizeOf } from "./tensor.js";

export const ABI = 1;

const isText = (value) => typeof value === "string";
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const TENSORS = [{ name: "", dtype: (dtype) => isText(dtype) && ARRAYS[dtype], shape: [(extent) => isText(extent) || isCount(extent)] }];
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

const check = (value, like) =>
  (like.call ? like(value) : typeOf(value) === typeOf(like)) &&
  Object.keys(like.map ? value : like).every((key) => check(value[key], like[key] ?? like[0]));

/** What the parts say of each other. */
const isConsistent = ({ inputs, outputs, steps, kernels }) =>
  steps.every(({ kernel }) => kernels[kernel]) &&
  [inputs, outputs].every(
    (tensors) =>
      new Set(tensors.map(({ name }) => name)).size === tensors.length &&
      tensors.every(({ shape, dtype }) => shape.length < 33 && sizeOf(shape.filter(isKnown), dtype) < Infinity),
  );

/** The metadata of a compiled module. Stops where it is no graph of this ABI, perhaps with an error of JSON. */
export const readMetadata = (module) => {
  const sections = WebAssembly.Module.customSections(module, "wasmgraph");
  if (sections.length !== 1) fail("no graph", sections.length);
  const metadata = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(sections[0]));
  if (!check(metadata, METADATA) || !isConsistent(metadata)) fail("metadata", metadata, METADATA, check);
  return metadata;
};
