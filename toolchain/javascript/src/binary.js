// The memory that a module declares, read from its first bytes and narrowed to a limit. Engines say nothing of
// a memory's limits to JavaScript. The bytes come from anywhere, but the engine validates the module: what
// is malformed here is left for it to refuse.

export const PAGE_BYTES = 65536;
/** What a memory with 32-bit addresses can have, and does have where no maximum is declared. */
const MAX_PAGES = 65536;

const HEADER_BYTES = 8;
const IMPORTS = 2;
const MEMORIES = 5;
// Sections that can stand before the memories, custom ones included: behind any other there are none.
const LAST = 5;

class Short extends Error {}

/** Unsigned LEB128. */
export const encode = (value) =>
  value > 127 ? [(value % 128) | 128, ...encode(Math.floor(value / 128))] : [value];

/**
 * What the module's first bytes say of its memories: `{memories, isWasm}`, or undefined where they end too
 * early to tell. `complete` says that there are no more.
 *
 * A memory is `{minimum, maximum, isShared, is64}` in pages; the module's own has where its section lies.
 */
export function readHead(bytes, complete) {
  const isWasm = [0, 97, 115, 109].every((byte, i) => bytes[i] === byte);
  const memories = [];
  let at = HEADER_BYTES;
  const byte = () => {
    if (at >= bytes.length) throw new Short();
    return bytes[at++];
  };
  const number = () => {
    let value = 0;
    for (let scale = 1, more = true; more; scale *= 128) {
      if (scale > 2 ** 63) throw new Short();
      const next = byte();
      value += (next & 127) * scale;
      more = next > 127;
    }
    return value;
  };
  const memory = (section) => {
    const flags = byte();
    const minimum = number();
    const maximum = flags & 1 ? number() : undefined;
    memories.push({ minimum, maximum, isShared: (flags & 2) > 0, is64: (flags & 4) > 0, flags, ...section });
  };
  const skipName = () => {
    at = number() + at;
  };
  try {
    while (isWasm) {
      const start = at;
      const id = byte();
      if (id > LAST) break;
      const end = number() + at;
      if (end > bytes.length) throw new Short();
      if (id === IMPORTS) {
        for (let left = number(); left > 0; left--) {
          skipName();
          skipName();
          const kind = byte();
          if (kind === 0) number();
          else if (kind === 2) memory();
          else break; // a graph imports nothing else, so the module will be refused
        }
      } else if (id === MEMORIES) {
        for (let left = number(); left > 0; left--) memory({ start, end });
      }
      at = end;
    }
  } catch (error) {
    if (!(error instanceof Short)) throw error;
    if (!complete) return undefined;
  }
  return { memories, isWasm };
}

/** `bytes`, whose own memory may not grow beyond `pages`; the same where that needs nothing. */
export function limitMemory(bytes, { memories: [memory, another] }, pages) {
  const { minimum, maximum, flags, start, end } = memory ?? {};
  if (start === undefined || another || minimum > pages || (maximum ?? MAX_PAGES) <= pages) return bytes;
  const body = [1, flags | 1, ...encode(minimum), ...encode(pages)];
  const section = [MEMORIES, ...encode(body.length), ...body];
  const limited = new Uint8Array(bytes.length - (end - start) + section.length);
  limited.set(bytes.subarray(0, start));
  limited.set(section, start);
  limited.set(bytes.subarray(end), start + section.length);
  return limited;
}
