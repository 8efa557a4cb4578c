// Tensors: what a caller feeds a graph and gets from it, checked against what the graph takes.

import { InputError, fail } from "./errors.js";

/**
 * The array that holds a dtype's elements, by the ONNX name of the dtype. Those that JavaScript has no array for
 * are raw bits: of 16 each, else of 8 with the narrower ones in the low bits.
 */
export const ARRAYS = { __proto__: null };
for (const word of "Float32 Float64 Int8 Int16 Int32 BigInt64 Uint8 Uint16 Uint32 BigUint64 float16 bfloat16 bool float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn int4 uint4 int2 uint2".split(" ")) {
  ARRAYS[word.replace("Big", "").toLowerCase()] =
    globalThis[`${word}Array`] ?? (/16/.test(word) ? Uint16Array : Uint8Array);
}
/** Which values (their JavaScript type) are elements of which dtypes. */
const ELEMENTS = /^(boolean bool|number float(32|64)|(number|bigint) u?int(8|\d\d))$/;

export const isCount = (value) => Number.isSafeInteger(value) && value >= 0;

/** How many elements a shape has, `first` times. */
const count = (shape, first = 1) => shape.reduce((size, extent) => size * extent, first);

/**
 * The bytes of a tensor. Infinity where they are 2 GB or more, its zeros left aside; as in wasmgraph/metadata.py.
 */
export const sizeOf = (shape, dtype) => {
  const { BYTES_PER_ELEMENT } = ARRAYS[dtype];
  return count(shape.map((extent) => extent || 1), BYTES_PER_ELEMENT) < 2 ** 31 ? count(shape, BYTES_PER_ELEMENT) : Infinity;
};

/** Whether an extent is known before a run; an open one is a name. */
export const isKnown = (extent) => typeof extent === "number";

/** Whether a tensor of this shape can stand where the graph says `known`. */
export const fits = (known, shape) =>
  known[0] === "..." ||
  (known.length === shape.length && known.every((extent, i) => !isKnown(extent) || extent === shape[i]));

/** "float32[1, 1, 8, 8]" */
const typeOf = (dtype, shape) => `${dtype}[${shape.join(", ")}]`;

/** "image: float32[1, 1, 8, 8]" */
export const describe = ({ name, dtype, shape }) => `${name}: ${typeOf(dtype, shape)}`;

// "Float32Array", of arrays from another frame too; Node's Buffer is a Uint8Array.
const classOf = (data) => data?.[Symbol.toStringTag];

/** See index.d.ts. */
export function tensor(data, shape, dtype) {
  dtype ??= Object.keys(ARRAYS).find((each) => ARRAYS[each].name === classOf(data)) ?? "float32";
  data = convert(data, dtype);
  return { data, shape: [...(shape ?? [data.length])], dtype };
}

/** Numbers, nested or not, as a typed array, where that keeps them; floats are rounded to the nearest. */
function convert(data, dtype) {
  if (ArrayBuffer.isView(data)) return data;
  const flat = [data].flat(Infinity);
  const array = new ARRAYS[dtype](flat.length);
  flat.forEach((value, i) => {
    try {
      array[i] = (classOf(array)[0] === "B" ? BigInt : Number)(value);
    } catch {
      // what is no number stays 0, and differs
    }
    const isKept =
      ELEMENTS.test(`${typeof value} ${dtype}`) &&
      (array[i] == value || (dtype[0] === "f" && isFinite(array[i]) >= isFinite(value)));
    if (!isKept) fail(InputError, `the value ${value} does not fit into ${dtype}`);
  });
  return array;
}

/**
 * What `given` feeds the graph's inputs, in their order: `{data, shape}` each, where the data are bytes.
 *
 * Throws an InputError that lists every problem.
 */
export function checkInputs(specs, given) {
  const left = { __proto__: null, ...given };
  const axes = { __proto__: null };
  const problems = [];
  const tensors = specs.map((spec) => {
    const { name } = spec;
    if (!(name in left)) return problems.push(`input ${describe(spec)} is missing`);
    try {
      return fit(left[name], spec, axes);
    } catch ({ message }) {
      problems.push(`input '${name}': ${message}`);
    } finally {
      delete left[name];
    }
  });
  problems.unshift(...Object.keys(left).map((name) => `there is no input named '${name}'`));
  if (problems.length) fail(InputError, problems.join("\n"), `the graph takes ${specs.map(describe).join("; ")}`);
  return tensors;
}

/** One of them. `axes` has what is known of the open axes: their extents, and the input that has decided it. */
function fit(value, { name, dtype, shape: known }, axes) {
  let { data = value, shape, dtype: found = dtype } = Object(value);
  const expected = ARRAYS[dtype].name;
  data = convert(data, dtype);
  const { length, byteLength } = data;
  // Without a shape at most one axis may be open, which takes what is left.
  shape = Array.from(shape ?? known.map((extent) => (isKnown(extent) ? extent : length / count(known.filter(isKnown)))));
  const isRight =
    found === dtype &&
    classOf(data) === expected &&
    shape.every(isCount) &&
    fits(known, shape) &&
    sizeOf(shape, dtype) === byteLength;
  if (!isRight) {
    fail(
      InputError,
      `expected ${typeOf(dtype, known)} in a ${expected} of ${count(shape)}, found ${typeOf(found, shape)} in a ${classOf(data)} of ${length}`,
    );
  }
  known.forEach((axis, i) => {
    if (isKnown(axis)) return;
    const [extent, owner] = (axes[axis] ??= [shape[i], name]);
    if (extent !== shape[i]) fail(InputError, `axis '${axis}' is ${shape[i]}, but ${extent} in input '${owner}'`);
  });
  return { data: new Uint8Array(data.buffer, data.byteOffset, byteLength), shape };
}
