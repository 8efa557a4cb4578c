// The metadata in a graph's custom section `wasmgraph`, checked as far as they are used here: files are of any
// origin.

import { LoadError, printable } from "./errors.js";
import { ARRAYS, isKnown, isSmall } from "./tensor.js";

export const ABI = 1;

const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isExtent = (extent) => typeof extent === "string" || isCount(extent);
const TENSORS = [{ name: "", dtype: (dtype) => typeof dtype === "string" && Object.hasOwn(ARRAYS, dtype), shape: [isExtent] }];
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

const typeOf = (value) => (Array.isArray(value) ? "list" : value === null ? "null" : typeof value);

function check(value, like, key) {
  const isRight = typeof like === "function" ? like(value) : typeOf(value) === typeOf(like);
  if (!isRight) {
    const found = Object(value) === value ? `a ${typeOf(value)}` : value;
    throw new LoadError(printable(`the graph's metadata: '${key}' cannot be ${found}`));
  }
  if (typeOf(like) === "list") value.forEach((item) => check(item, like[0], key));
  if (typeOf(like) === "object") Object.keys(like).forEach((name) => check(value[name], like[name], name));
}

/** The metadata of a compiled module. Throws a LoadError where it is no graph of this ABI. */
export function readMetadata(module) {
  const sections = WebAssembly.Module.customSections(module, "wasmgraph");
  if (sections.length !== 1) {
    throw new LoadError(
      `no graph: it has ${sections.length} custom sections 'wasmgraph'`,
      "a graph is the .wasm that `wasmgraph compile` writes",
    );
  }
  let data;
  try {
    data = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(sections[0]));
  } catch (error) {
    throw new LoadError(printable(`the graph's metadata is not JSON: ${error.message}`));
  }
  check(data, METADATA, "all of it");
  const { inputs, outputs, steps, kernels } = data;
  const tensors = [...inputs, ...outputs];
  const isRight =
    steps.every(({ kernel }) => kernel < kernels.length) &&
    tensors.every(({ shape, dtype }) => shape.length <= 32 && isSmall(shape.filter(isKnown), dtype)) &&
    [inputs, outputs].every((list) => new Set(list.map(({ name }) => name)).size === list.length);
  if (!isRight) throw new LoadError("the graph's metadata: a step has no kernel, a tensor is too large, or two have one name");
  return data;
}
