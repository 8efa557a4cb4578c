// What the options `threads` and `maxMemory` ask for.

import { limitMemory } from "./memory.js";

/** Throws a RangeError where they make no sense. What compiles a module within `maxMemory`, if that is given. */
export function check({ threads = 1, maxMemory }) {
  if (![threads, maxMemory ?? 1].every((value) => Number.isInteger(value) && value > 0)) {
    throw new RangeError("threads and maxMemory should be whole numbers from 1 on");
  }
  return maxMemory && ((bytes) => WebAssembly.compile(limitMemory(bytes, maxMemory).bytes));
}
