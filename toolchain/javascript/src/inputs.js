// Inputs that are not just as the graph has them: numbers become tensors, open axes get their extents, and what is wrong
// is told.

import { say } from "./words.js";

/** Whether an extent is known before a run; an open one is a name. */
const isKnown = (extent) => typeof extent === "number";
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const count = (shape) => shape.reduce((size, extent) => size * extent, 1);

/** "float32[1, 1, 8, 8]" */
const typeOf = (dtype, shape) => `${dtype}[${shape.join(", ")}]`;

/** "image: float32[1, 1, 8, 8]" */
const describe = ({ name, dtype, shape }) => `${name}: ${typeOf(dtype, shape)}`;

/**
 * As tensor.js's `accept`, which has the last word on each, with `convert` of the same place.
 *
 * Throws a problem that lists every problem.
 */
export function check(specs, given, convert, accept) {
  const left = { __proto__: null, ...given };
  const axes = { __proto__: null };
  const problems = [];
  const tensors = specs.map((spec) => {
    const { name } = spec;
    if (!(name in left)) return problems.push(`input ${describe(spec)} is missing`);
    try {
      return fit(left[name], spec, axes, convert, accept);
    } catch ({ message, facts }) {
      problems.push(`input '${name}': ${message ?? facts[0]}`);
    } finally {
      delete left[name];
    }
  });
  problems.unshift(...Object.keys(left).map((name) => `there is no input named '${name}'`));
  if (problems.length) say("InputError", problems.join("\n"), `the graph takes ${specs.map(describe).join("; ")}`);
  return tensors;
}

/** One of them. `axes` has what is known of the open axes: their extents, and the input that has decided it. */
function fit(value, { name, dtype, shape: known }, axes, convert, accept) {
  let { data = value, shape, dtype: found = dtype } = Object(value);
  data = convert(data, dtype);
  // Without a shape at most one axis may be open, which takes what is left.
  shape = Array.from(shape ?? known.map((extent) => (isKnown(extent) ? extent : data.length / count(known.filter(isKnown)))));
  const isShape =
    shape.every(isCount) &&
    (known[0] === "..." ||
      (known.length === shape.length && known.every((extent, i) => !isKnown(extent) || extent === shape[i])));
  const [tensor] = (isShape && accept([{ name: "x", dtype, shape }], { x: { data, shape, dtype: found } })) || [];
  if (!tensor) {
    const kind = convert([], dtype).constructor.name;
    say(
      "InputError",
      `expected ${typeOf(dtype, known)} in a ${kind} of ${count(shape)}, found ${typeOf(found, shape)} in a ${data[Symbol.toStringTag]} of ${data.length}`,
    );
  }
  known.forEach((axis, i) => {
    if (isKnown(axis)) return;
    const [extent, owner] = (axes[axis] ??= [shape[i], name]);
    if (extent !== shape[i]) say("InputError", `axis '${axis}' is ${shape[i]}, but ${extent} in input '${owner}'`);
  });
  return tensor;
}
