// WASI with nothing behind it, as in wasmgraph/runtime/sandbox.py: no arguments, environment, files, clock,
// randomness or network. What goes to stderr is kept, for errors.

const BADF = 8;
const FAULT = 21;
const INVAL = 28;
const NOTCAPABLE = 76;
const MAX_VECTORS = 1024;
const KEPT_BYTES = 4096;

// Types (parameters > results; i is i32, I is i64) of functions by name: those of the ABI that a graph must have,
// and those of WASI that compiled graphs import. preview1.js has all of WASI's.
const ABI = ">i wg_abi wg_run wg_error wg_error_len,i>i wg_output wg_alloc,ii>i wg_output_shape,iii>i wg_input,> _start,ii> wg_free";
const USUAL =
  "ii>i args_get args_sizes_get environ_get environ_sizes_get fd_fdstat_get fd_prestat_get,iii>i fd_prestat_dir_name,iiii>i fd_read fd_write,i>i fd_close,i> proc_exit,iiiiiIIii>i path_open";

/**
 * Functions with WebAssembly's types: JavaScript's own take and give whatever an importer wants. So each goes through
 * a module that imports and exports just it. Where `find(name)` is none, or one of WebAssembly with another type, that
 * is a LinkError.
 */
function typed(types, find) {
  const { Instance, Module } = WebAssembly;
  const functions = { __proto__: null };
  for (const group of types.split(",")) {
    const [type, ...names] = group.split(" ");
    const bytes = type.split(">").flatMap((kinds) => [kinds.length, ...Array.from(kinds, (kind) => (kind === "i" ? 0x7f : 0x7e))]);
    for (const name of names) {
      const module = new Module(
        new Uint8Array([
          ...[0, 97, 115, 109, 1, 0, 0, 0],
          ...[1, bytes.length + 2, 1, 0x60, ...bytes], // one type,
          ...[2, 5, 1, 0, 0, 0, 0], // an import of it from "" as "",
          ...[7, 4, 1, 0, 0, 0], // exported as ""
        ]),
      );
      functions[name] = new Instance(module, { "": { "": find(name) } }).exports[""];
    }
  }
  return functions;
}

/**
 * A new instance of a module, over `memory` where it imports one: its memory and its exports.
 *
 * Imports of anything but WASI and that memory are a LinkError, and so are exports that are not the ABI's. `said(bytes)`
 * gets what it writes to stderr.
 */
export async function link(module, memory, said) {
  // What does not fit into the memory is a fault.
  const guarded = (answer) => (...values) => {
    try {
      return answer(new DataView(memory.buffer), ...values.map((value) => value >>> 0));
    } catch {
      return FAULT;
    }
  };
  const nothing = guarded((view, count, nbytes) => {
    view.setUint32(count, 0);
    view.setUint32(nbytes, 0);
    return 0;
  });
  const answers = {
    args_get: () => 0,
    environ_get: () => 0,
    args_sizes_get: nothing,
    environ_sizes_get: nothing,
    fd_prestat_get: () => BADF,
    fd_write: guarded((view, descriptor, vectors, count, written) => {
      if (descriptor !== 1 && descriptor !== 2) return BADF;
      if (count > MAX_VECTORS) return INVAL;
      let total = 0;
      for (; count--; vectors += 8) {
        const length = view.getUint32(vectors + 4, true);
        total += length;
        // Only the end can be of interest, and a graph may name the same gigabyte many times.
        const kept = Math.min(length, KEPT_BYTES);
        const bytes = new Uint8Array(view.buffer, view.getUint32(vectors, true) + length - kept, kept);
        if (descriptor === 2) said(bytes);
      }
      view.setUint32(written, total, true);
      return 0;
    }),
    proc_exit(code) {
      throw new Error(`it left with exit code ${code}`);
    },
  };
  const find = (name) => answers[name] ?? (() => NOTCAPABLE);
  let wasi = typed(USUAL, find);
  const isUsual = WebAssembly.Module.imports(module).every(({ name }) => name in wasi || name === "memory");
  if (!isUsual) wasi = typed((await import("./preview1.js")).PREVIEW1, find);
  const { exports } = await WebAssembly.instantiate(module, {
    __proto__: null, // or a graph could import what every object has
    wasi_snapshot_preview1: wasi,
    env: { __proto__: null, memory },
  });
  memory ??= exports.memory;
  if (!memory?.buffer) throw new Error("it has no memory");
  typed(ABI, (name) => exports[name]);
  return { memory, exports };
}
