// Tensors: what a caller feeds a graph and gets from it, checked against what the graph takes.

import { InputError, printable } from "./errors.js";

/** The array that holds a dtype's elements; what JavaScript has no numbers for is raw bits. */
export const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
};
for (const dtype of "bool float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn int4 uint4 int2 uint2".split(" ")) {
  ARRAYS[dtype] = Uint8Array;
}
/** Those whose elements are numbers here, integers in the first group. */
const NUMBERS = /^(u?int\d\d|u?int8)$|^float(32|64)$/;

/** Bytes of a tensor at most, its zeros left aside. As in wasmgraph/metadata.py. */
const MAX_BYTES = 2 ** 31 - 1;

/** How many elements a shape has, `first` times. */
export const count = (shape, first = 1) => shape.reduce((size, extent) => size * extent, first);

/** Whether a tensor of these extents is small enough, even if none of them were 0. */
export const isSmall = (shape, dtype) =>
  count(shape.map((extent) => extent || 1), ARRAYS[dtype].BYTES_PER_ELEMENT) <= MAX_BYTES;

/** Whether an extent is known before a run; an open one is a name. */
export const isKnown = (extent) => typeof extent === "number";

/** Whether a tensor of this shape can stand where the graph says `known`. */
export const fits = (known, shape) =>
  known[0] === "..." ||
  (known.length === shape.length && known.every((extent, i) => !isKnown(extent) || extent === shape[i]));

/** "image: float32[1, 1, 8, 8]" */
export const describe = ({ name, dtype, shape }) => `${name}: ${dtype}[${shape.join(", ")}]`;

// "Float32Array", of arrays from another frame too; Node's Buffer is a Uint8Array.
const classOf = (data) => data?.[Symbol.toStringTag];

/** See index.d.ts. */
export function tensor(data, shape, dtype) {
  dtype ??= Object.keys(ARRAYS).find((each) => ARRAYS[each].name === classOf(data)) ?? "float32";
  if (!ArrayBuffer.isView(data)) data = convert([data], dtype);
  return { data, shape: [...(shape ?? [data.length])], dtype };
}

/** Numbers, nested or not, as a typed array, where that keeps them; floats are rounded to the nearest. */
function convert(values, dtype) {
  const flat = values.flat(Infinity);
  const [isNumber, isInteger] = NUMBERS.exec(dtype) ?? [];
  const array = new ARRAYS[dtype](flat.length);
  flat.forEach((value, i) => {
    try {
      array[i] = classOf(array)[0] === "B" ? BigInt(value) : value;
    } catch {
      // what is no integer stays 0, and differs
    }
    const isKept = isInteger
      ? /number|bigint/.test(typeof value) && array[i] == value
      : typeof value === (isNumber ? "number" : dtype === "bool" && "boolean") &&
        isFinite(array[i]) >= isFinite(value);
    if (!isKept) throw new InputError(`the value ${value} does not fit into ${dtype}`);
  });
  return array;
}

/**
 * What `given` feeds the graph's inputs, in their order: `{data, shape}` each.
 *
 * Throws an InputError that lists every problem.
 */
export function checkInputs(specs, inputs) {
  const given = inputs ?? {};
  const owners = {};
  const problems = Object.keys(given)
    .filter((name) => !specs.some((spec) => spec.name === name))
    .map((name) => `there is no input named '${name}'`);
  const tensors = specs.map((spec) => {
    const { name, shape: known } = spec;
    if (!Object.hasOwn(given, name)) return problems.push(`input ${describe(spec)} is missing`);
    try {
      const found = fit(given[name], spec);
      known.forEach((axis, i) => {
        if (isKnown(axis)) return;
        const [extent, owner] = (owners[`axis '${axis}'`] ??= [found.shape[i], name]);
        if (extent !== found.shape[i]) {
          throw new InputError(`axis '${axis}' is ${found.shape[i]}, but ${extent} in input '${owner}'`);
        }
      });
      return found;
    } catch (error) {
      if (!error.kind) throw error;
      problems.push(`input '${name}': ${error.message}`);
    }
  });
  if (problems.length) {
    throw new InputError(printable(problems.join("\n")), printable(`the graph takes ${specs.map(describe).join("; ")}`));
  }
  return tensors;
}

function fit(value, { dtype, shape: known }) {
  let { data = value, shape, dtype: found = dtype } = Object(value);
  const Kind = ARRAYS[dtype];
  if (/array|number|bigint|boolean/.test(Array.isArray(data) ? "array" : typeof data)) data = convert([data], dtype);
  if (found !== dtype) throw new InputError(`expected dtype ${dtype}, found ${found}`);
  if (classOf(data) !== Kind.name) {
    throw new InputError(`expected a ${Kind.name} (${dtype}), found ${data?.constructor?.name ?? data}`);
  }
  const size = data.length;
  // Without a shape at most one axis may be open, which takes what is left.
  shape = Array.from(shape ?? known.map((extent) => (isKnown(extent) ? extent : size / count(known.filter(isKnown)))));
  const isShape = shape.every((extent) => Number.isInteger(extent) && extent >= 0);
  if (!isShape || !fits(known, shape)) throw new InputError(`expected shape [${known.join(", ")}], found [${shape.join(", ")}]`);
  if (count(shape) !== size || !isSmall(shape, dtype)) {
    throw new InputError(`the shape [${shape.join(", ")}] is of ${count(shape)} elements, the data of ${size}`);
  }
  return { data: new Kind(data.buffer, data.byteOffset, size), shape };
}
