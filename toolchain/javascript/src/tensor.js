// Tensors: what a caller feeds a graph and gets from it, checked against what the graph takes.

import { InputError, printable, quote } from "./errors.js";

const NARROW =
  "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn int4 uint4 int2 uint2";

/** The array that holds a dtype's elements; what JavaScript has no numbers for is raw bits. */
export const ARRAYS = {
  bool: Uint8Array,
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
  float32: Float32Array,
  float64: Float64Array,
  ...Object.fromEntries(NARROW.split(" ").map((dtype) => [dtype, Uint8Array])),
};

/** Bytes. As in wasmgraph/metadata.py. */
const MAX_BYTES = 2 ** 31 - 1;

/** Whether a tensor of these extents (open ones count as 1) is small enough, its zeros left aside. */
export const isSmall = (shape, dtype) =>
  shape.reduce((size, extent) => size * (extent || 1), itemBytes(dtype)) <= MAX_BYTES;

export const itemBytes = (dtype) => ARRAYS[dtype].BYTES_PER_ELEMENT;

/** How many elements a shape without open axes has. */
export const count = (shape) => shape.reduce((a, b) => a * b, 1);

const isOpen = (extent) => typeof extent === "string";

/** Whether every extent of a graph's input or output is known before a run. */
export const isFixed = ({ shape }) => !shape.some(isOpen);

/** Whether a tensor of this shape can stand where the graph says `known`. */
export const fits = (known, shape) =>
  (known.length === 1 && known[0] === "...") ||
  (known.length === shape.length && known.every((extent, i) => isOpen(extent) || extent === shape[i]));

/** "image: float32[1, 1, 8, 8]" */
export const describe = ({ name, dtype, shape }) => printable(`${name}: ${dtype}[${shape.join(", ")}]`);

/** A tensor of `data` (a typed array, or numbers). Without a dtype it is the one of the array's class. */
export function tensor(data, shape, dtype = dtypeOf(data)) {
  if (!Object.hasOwn(ARRAYS, dtype)) throw new InputError(`there is no dtype ${quote(dtype)}`);
  const elements = ArrayBuffer.isView(data) ? data : convert([data], dtype);
  return { data: elements, shape: [...(shape ?? [elements.length])], dtype };
}

/** The class of a typed array by name, also of one from another frame; Node's Buffer is a Uint8Array. */
const classOf = (data) => data?.[Symbol.toStringTag];

function dtypeOf(data) {
  const known = Object.keys(ARRAYS).find((dtype) => dtype !== "bool" && ARRAYS[dtype].name === classOf(data));
  return known ?? "float32";
}

const isBig = (dtype) => /int64/.test(dtype);

/** Numbers as a typed array, where that keeps them; floats are rounded to the nearest. */
function convert(values, dtype) {
  const Kind = ARRAYS[dtype];
  const flat = values.flat(Infinity);
  if (/float8|float4|float16|int[24]$/.test(dtype)) {
    throw new InputError(`expected a ${Kind.name} of the bits of ${dtype}, found numbers`);
  }
  const kept = (value) => {
    if (dtype === "bool") return typeof value === "boolean";
    if (isBig(dtype)) return typeof value === "bigint" || Number.isSafeInteger(value);
    if (typeof value !== "number") return false;
    return /^float/.test(dtype) ? true : Number.isInteger(value);
  };
  const array = new Kind(flat.length);
  flat.forEach((value, i) => {
    if (kept(value)) array[i] = isBig(dtype) ? BigInt(value) : value;
    const back = array[i];
    const isSame = /^float/.test(dtype) ? Number.isFinite(back) || !Number.isFinite(value) : back == value;
    if (!kept(value) || !isSame) {
      throw new InputError(`the value ${quote(value)} does not fit into ${dtype}`);
    }
  });
  return array;
}

/**
 * What `given` feeds the graph's inputs, in their order: `{data, shape}` each.
 *
 * Throws an InputError that lists every problem.
 */
export function checkInputs(specs, given) {
  const problems = Object.keys(given ?? {})
    .filter((name) => !specs.some((spec) => spec.name === name))
    .map((name) => `there is no input named ${quote(name)}`);
  const extents = new Map();
  const tensors = specs.map((spec) => {
    try {
      if (!Object.hasOwn(given ?? {}, spec.name)) {
        throw new InputError(`input ${describe(spec)} is missing`);
      }
      const found = fit(given[spec.name], spec);
      agree(spec, found.shape, extents);
      return found;
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      problems.push(error.message);
    }
  });
  if (problems.length) {
    const takes = specs.map(describe).join(", ") || "no inputs";
    throw new InputError(problems.join("\n"), `the graph takes ${takes}`);
  }
  return tensors;
}

function fit(value, spec) {
  const { dtype, name } = spec;
  const where = `input ${quote(name)}`;
  let { data = value, shape } = Object(value);
  if (Array.isArray(data) || /number|bigint|boolean/.test(typeof data)) {
    try {
      data = convert([data], dtype);
    } catch (error) {
      throw new InputError(`${where}: ${error.message}`);
    }
  }
  const Kind = ARRAYS[dtype];
  const found = value?.dtype ?? dtype;
  if (found !== dtype) throw new InputError(`${where}: expected dtype ${dtype}, found ${printable(`${found}`)}`);
  if (classOf(data) !== Kind.name) {
    const what = printable(String(data?.constructor?.name ?? data));
    throw new InputError(`${where}: expected a ${Kind.name} (${dtype}), found ${what}`);
  }
  shape = shape === undefined ? guess(spec.shape, data.length) : Array.from(Object(shape));
  const isShape = shape.every((extent) => Number.isSafeInteger(extent) && extent >= 0);
  if (!isShape || !fits(spec.shape, shape)) {
    throw new InputError(`${where}: expected shape [${spec.shape.join(", ")}], found [${shape.join(", ")}]`);
  }
  if (count(shape) !== data.length) {
    throw new InputError(`${where}: shape [${shape.join(", ")}] has ${count(shape)} elements, the data ${data.length}`);
  }
  if (!isSmall(shape, dtype)) throw new InputError(`${where} has more than ${MAX_BYTES} bytes`);
  return { data: new Kind(data.buffer, data.byteOffset, data.length), shape };
}

/** The shape of `length` elements without one: at most one open axis, which takes what is left. */
function guess(known, length) {
  const open = known.filter(isOpen);
  if (open.length > 1) return [length];
  const rest = length / count(known.filter((extent) => !isOpen(extent)));
  return known.map((extent) => (isOpen(extent) ? rest : extent));
}

/** Inputs that name an axis alike give it the same extent. */
function agree({ name, shape }, found, extents) {
  shape.forEach((axis, i) => {
    if (!isOpen(axis)) return;
    const extent = found[i];
    const [first, owner] = extents.get(axis) ?? [extent, name];
    extents.set(axis, [first, owner]);
    if (first !== extent) {
      throw new InputError(
        `axis ${quote(axis)} is ${first} in input ${quote(owner)} and ${extent} in input ${quote(name)}`,
      );
    }
  });
}
