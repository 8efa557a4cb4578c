// What the options `threads` and `maxMemory` ask for.

import { MemoryLimitExceeded } from "./errors.js";
import { limitMemory } from "./memory.js";

/** Throws a RangeError where they make no sense. */
export function checkLimits({ threads = 1, maxMemory = 1 }) {
  if (![threads, maxMemory].every((value) => Number.isInteger(value) && value > 0)) {
    throw new RangeError("threads and maxMemory should be whole numbers from 1 on");
  }
}

/** Compile a module whose memory has that maximum, in bytes. */
export const compileWithin = (bytes, maxMemory) => WebAssembly.compile(limitMemory(bytes, maxMemory).bytes);

/** The error for a failure that is told so, if it comes from the memory's limit: the executor's texts, or Rust's allocator's. */
export const exceeded = (message, maxMemory) =>
  /out of memory|no memory left|memory allocation of/.test(message)
    ? new MemoryLimitExceeded(`${message}; the limit is ${maxMemory} bytes`, "allow more memory")
    : undefined;
