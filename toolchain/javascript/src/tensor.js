// Tensors: what a caller feeds a graph and gets from it.

import { InputError } from "./errors.js";

/**
 * The array that holds a dtype's elements, by the ONNX name of the dtype. Those that JavaScript has no array for
 * are raw bits: of 16 each, else of 8 with the narrower ones in the low bits.
 */
export const ARRAYS = { __proto__: null };
for (const word of "Float32 Float64 Int8 Int16 Int32 BigInt64 Uint8 Uint16 Uint32 BigUint64 float16 bfloat16 bool float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn int4 uint4 int2 uint2".split(" ")) {
  ARRAYS[word.replace("Big", "").toLowerCase()] =
    globalThis[`${word}Array`] ?? (/16/.test(word) ? Uint16Array : Uint8Array);
}
/** Whether an extent is known before a run; an open one is a name. */
export const isKnown = (extent) => typeof extent === "number";

/**
 * The bytes of a tensor. Infinity where they are 2 GB or more, its zeros left aside; as in wasmgraph/metadata.py.
 */
export const sizeOf = (shape, dtype) => {
  const size = (least) => shape.reduce((nbytes, extent) => nbytes * (extent || least), ARRAYS[dtype].BYTES_PER_ELEMENT);
  return size(1) < 2 ** 31 ? size(0) : Infinity;
};

// "Float32Array", of arrays from another frame too; Node's Buffer is a Uint8Array.
const classOf = (data) => data?.[Symbol.toStringTag];

/** See index.d.ts. */
export const tensor = (data, shape, dtype) => {
  dtype ??= Object.keys(ARRAYS).find((each) => ARRAYS[each].name === classOf(data)) ?? "float32";
  data = convert(data, dtype);
  return { data, shape: [...(shape ?? [data.length])], dtype };
};

/** Numbers, nested or not, as a typed array, where that keeps them; floats are rounded to the nearest. */
const convert = (data, dtype) => {
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
      // Which values, by JavaScript's type, are elements of which dtypes.
      /^(boolean bool|number float(32|64)|(number|bigint) u?int(8|\d\d))$/.test(`${typeof value} ${dtype}`) &&
      (array[i] == value || (dtype[0] === "f" && isFinite(array[i]) >= isFinite(value)));
    if (!isKept) throw new InputError(`the value ${value} does not fit into ${dtype}`);
  });
  return array;
};

/**
 * What `given` feeds the graph's inputs, in their order: `{data, shape}` each, where the data are bytes. Nothing but
 * tensors and typed arrays that are exactly what the graph takes is let through.
 */
const accept = (specs, inputs) => {
  const given = { ...inputs };
  const tensors = [];
  const isRight = specs.every(({ name, dtype, shape: known }) => {
    const { data = given[name], shape = known, dtype: found = dtype } = Object(given[name]);
    return (
      found === dtype &&
      classOf(data) === ARRAYS[dtype].name &&
      shape?.length === known.length &&
      known.every((extent, i) => extent === shape[i]) &&
      // Not of open axes: that of a name is Infinity.
      sizeOf(known, dtype) === data.byteLength &&
      tensors.push({ data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength), shape })
    );
  });
  return isRight && Object.keys(given).length === specs.length && tensors;
};

/** The same where inputs may also be numbers or of open axes: inputs.js sees to those, and to what is wrong. */
export const takeInputs = async (specs, given) =>
  accept(specs, given) || import("./inputs.js").then((inputs) => inputs.check(specs, given, convert, accept));
