// The memory that a module declares, which engines do not tell, and a lower limit for it. The engine validates
// the module: what is malformed here is left for it to refuse.

import { LoadError, MemoryLimitExceeded } from "./errors.js";

const PAGE_BYTES = 65536;
const HEADER_BYTES = 8;
const IMPORTS = 2;
const MEMORIES = 5;

/** Unsigned LEB128. */
const encode = (value) => (value > 127 ? [(value % 128) | 128, ...encode(Math.floor(value / 128))] : [value]);

/**
 * `{memory, bytes}`: the limits of a module's one memory in pages, as a WebAssembly.Memory takes them, none
 * higher than `maxMemory` bytes; and the module, whose own memory has that maximum.
 */
export function limitMemory(source, maxMemory = Infinity) {
  const bytes = ArrayBuffer.isView(source) ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength) : new Uint8Array(source);
  let at = HEADER_BYTES;
  let memory;
  const number = () => {
    let value = 0;
    for (let scale = 1, byte = 128; byte > 127 && scale < 2 ** 63; scale *= 128) {
      byte = bytes[at++] ?? 0;
      value += (byte & 127) * scale;
    }
    return value;
  };
  const limits = () => {
    if (memory) throw new LoadError("the graph has more than one memory");
    const flags = number();
    const initial = number();
    const maximum = Math.min(flags & 1 ? number() : PAGE_BYTES, Math.floor(maxMemory / PAGE_BYTES));
    if (initial > maximum) {
      const least = initial * PAGE_BYTES;
      throw new MemoryLimitExceeded(
        `the graph needs ${least} bytes of memory to start with, the limit is ${maxMemory}`,
        `allow at least ${least} bytes`,
      );
    }
    memory = { initial, maximum, shared: (flags & 2) > 0 };
    return [flags | 1, ...encode(initial), ...encode(maximum)];
  };
  while (at < bytes.length) {
    const start = at;
    const id = number();
    const length = number();
    const end = at + length;
    if (id > MEMORIES) break; // no memories behind these
    if (id === IMPORTS) {
      for (let left = number(); left > 0 && at < end; left--) {
        // The names of the module and the import.
        at = number() + at;
        at = number() + at;
        const kind = number();
        if (kind === 2) limits();
        else if (kind) break; // a graph imports nothing else, and will be refused
        else number();
      }
    } else if (id === MEMORIES) {
      const body = [number(), ...limits()];
      if (body[0] > 1) limits();
      const section = [id, ...encode(body.length), ...body];
      const limited = new Uint8Array(start + section.length + bytes.length - end);
      limited.set(bytes.subarray(0, start));
      limited.set(section, start);
      limited.set(bytes.subarray(end), start + section.length);
      return { memory, bytes: limited };
    }
    at = end;
  }
  return { memory, bytes };
}
