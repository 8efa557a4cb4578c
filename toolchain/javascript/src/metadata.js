// The metadata in a graph's custom section `wasmgraph`, checked as wasmgraph/metadata.py does: files are of
// any origin. What is not known is left alone, since a later wasmgraph may add fields.

import { LoadError, printable } from "./errors.js";
import { ARRAYS, isSmall } from "./tensor.js";

export const ABI = 1;
export const SECTION = "wasmgraph";

function fail(key, expected, found) {
  // Not the inside of it, which may be nested too deeply to be shown.
  const shown = Array.isArray(found) ? "a list" : Object(found) === found ? "an object" : `${JSON.stringify(found)}`;
  const short = shown.length > 60 ? `${shown.slice(0, 57)}...` : shown;
  throw new LoadError(printable(`the graph's metadata: '${key}' should be ${expected}, not ${short}`));
}

// A check takes a value and the key it stands under.
const is = (expected, test) => (value, key) => {
  if (!test(value)) fail(key, expected, value);
};
const isText = (value) => typeof value === "string";
const text = is("a string", isText);
const flag = is("true or false", (value) => typeof value === "boolean");
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const number = is("a count", isCount);
const object = is("an object", (value) => Object(value) === value && !Array.isArray(value));
const array = is("a list", Array.isArray);
const optional = (check) => (value, key) => value === undefined || check(value, key);
const every = (check) => (value, key) => {
  array(value, key);
  value.forEach((item) => check(item, key));
};
const mapping = (check) => (value, key) => {
  object(value, key);
  Object.keys(value).forEach((name) => check(value[name], name));
};
const record = (fields) => (value, key) => {
  object(value, key);
  Object.keys(fields).forEach((name) => fields[name](value[name], name));
};

const isExtent = (extent) => isText(extent) || isCount(extent);
const tensors = (value, key) => {
  every((item) => {
    record({ name: text, dtype: is("a dtype", (dtype) => isText(dtype) && Object.hasOwn(ARRAYS, dtype)), shape: every(is("a count", isExtent)) })(item, key);
    const { shape, dtype } = item;
    if (shape.length > 32 || !isSmall(shape.filter(isCount), dtype)) fail("shape", "at most 2147483647 bytes on 32 axes", shape);
  })(value, key);
  const names = value.map(({ name }) => name);
  if (new Set(names).size < names.length) fail(key, "tensors of different names", names);
};

const check = record({
  abi: number,
  producer: mapping(text),
  model: record({
    name: text,
    sha256: is("64 hexadecimal digits", (value) => isText(value) && /^[0-9a-f]{64}$/.test(value)),
    opset: number,
    operators: mapping(number),
  }),
  simd: is("a SIMD level", (value) => ["none", "simd128", "relaxed"].includes(value)),
  threads: flag,
  inputs: tensors,
  outputs: tensors,
  sizes: record({ code: number, weights: number, arena: number, io: number }),
  kernels: every(record({ symbol: text, description: text })),
  steps: every(record({ kernel: number, nodes: every(text), flops: optional(number), shares: optional(number) })),
  dynamic: optional(flag),
});

/** The metadata of a compiled module. Throws a LoadError where it is no graph of this ABI. */
export function readMetadata(module) {
  const [section, second] = WebAssembly.Module.customSections(module, SECTION);
  if (!section) {
    throw new LoadError(
      `a wasm module, but no graph: it has no custom section '${SECTION}'`,
      "a graph is the .wasm that `wasmgraph compile` writes",
    );
  }
  if (second) throw new LoadError(`two custom sections '${SECTION}'`);
  let data;
  try {
    data = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(section));
  } catch (error) {
    throw new LoadError(printable(`the graph's metadata is not JSON: ${error.message}`));
  }
  object(data, "metadata");
  number(data.abi, "abi");
  if (data.abi !== ABI) {
    throw new LoadError(
      `the graph has ABI version ${data.abi}, this wasmgraph knows ${ABI}`,
      "use the wasmgraph that compiled it, or compile the model again",
    );
  }
  check(data, "metadata");
  const stray = data.steps.find(({ kernel }) => kernel >= data.kernels.length);
  if (stray) fail("steps", `an index below ${data.kernels.length}`, stray.kernel);
  return data;
}
