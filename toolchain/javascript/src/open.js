// Shapes that a run decides: in the graph's memory, on their way to it and from it.

import { say } from "./words.js";

/** Axes of a tensor whose shape the graph tells. */
const MAX_RANK = 32;

/** As the rank that `wg_input` is told: the shape is the one compiled in. */
const STATIC_SHAPE = -1;

const isKnown = (extent) => typeof extent === "number";

/**
 * `put(shape)` tells the graph a shape: what `wg_input` is to be told of it. `get(spec, i)` is the one that the graph says
 * its output i has, checked.
 */
export function shapes(need, call, view, report) {
  let scratch = 0;
  /** Room in the graph's memory for the extents of one shape; after a call it may be elsewhere. */
  const room = () => {
    scratch ||= need("wg_alloc", 8 * MAX_RANK);
    const { buffer, byteOffset } = view("shape", 0, scratch, 8 * MAX_RANK);
    return new DataView(buffer, byteOffset);
  };
  return {
    put({ shape: known }, shape) {
      if (known.every(isKnown)) return [0, STATIC_SHAPE];
      const dims = room();
      shape.forEach((extent, axis) => dims.setBigInt64(8 * axis, BigInt(extent), true));
      return [scratch, shape.length];
    },
    get({ name, dtype, shape: known }, i) {
      if (known.every(isKnown)) return [...known];
      room();
      const rank = call("wg_output_shape", i, scratch);
      if (rank > MAX_RANK) report("wg_output_shape", i);
      const dims = room();
      const shape = Array.from({ length: rank }, (_, axis) => Number(dims.getBigInt64(8 * axis, true)));
      const isRight =
        shape.every((extent) => Number.isSafeInteger(extent) && extent >= 0) &&
        (known[0] === "..." ||
          (known.length === rank && known.every((extent, axis) => !isKnown(extent) || extent === shape[axis])));
      if (!isRight) say(undefined, `the graph gives output ${name}: ${dtype}[${known.join(", ")}] the shape [${shape}]`);
      return shape;
    },
  };
}
