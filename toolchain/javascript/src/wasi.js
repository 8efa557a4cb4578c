// WASI with nothing behind it, as in wasmgraph/runtime/sandbox.py: no arguments, environment, files, clock,
// randomness or network. What goes to stderr is kept, for errors.

import { encode } from "./binary.js";

const BADF = 8;
const FAULT = 21;
const INVAL = 28;
const NOTCAPABLE = 76;
const MAX_VECTORS = 1024;
const KEPT_BYTES = 4096;

/** Parameters by function: i is i32, I is i64. */
const signatures = (text) =>
  Object.fromEntries(
    text.split(",").flatMap((line) => {
      const [parameters, ...names] = line.split(" ");
      return names.map((name) => [name, parameters]);
    }),
  );

/** The ABI's functions; those of a second line need not be there. */
export const ABI_FUNCTIONS = signatures(
  " wg_abi wg_run wg_error wg_error_len _start,i wg_output wg_alloc,ii wg_output_shape wg_free,iii wg_input",
);
const OPTIONAL_FUNCTIONS = signatures(" _initialize wg_stop,ii wg_step,iii wg_work");

// Every function of preview 1.
const WASI_FUNCTIONS = signatures(
  "ii args_get args_sizes_get clock_res_get environ_get environ_sizes_get fd_fdstat_get fd_fdstat_set_flags fd_filestat_get fd_prestat_get fd_renumber fd_tell random_get sock_shutdown,iIi clock_time_get,iIIi fd_advise,iII fd_allocate fd_fdstat_set_rights,i fd_close fd_datasync fd_sync proc_exit proc_raise,iI fd_filestat_set_size,iIIi fd_filestat_set_times,iiiIi fd_pread fd_pwrite fd_readdir,iii fd_prestat_dir_name path_create_directory path_remove_directory path_unlink_file sock_accept,iiii fd_read fd_write poll_oneoff,iIii fd_seek,iiiii path_filestat_get path_symlink sock_send,iiiiIIi path_filestat_set_times,iiiiiii path_link,iiiiiIIii path_open,iiiiii path_readlink path_rename sock_recv, sched_yield",
);

const WITHOUT_RESULT = /^_|_(exit|free|stop)$/;

/**
 * `functions` as exports of a module, with WebAssembly's types: JavaScript's own take and give whatever an importer
 * wants. Where a function of WebAssembly is missing or has another type, that is a LinkError.
 */
function typed(functions, types) {
  const names = Object.keys(functions);
  const vector = (items) => [...encode(items.length), ...items.flat()];
  const text = (name) => vector([...name].map((letter) => letter.charCodeAt()));
  const section = (id, describe) => [id, ...vector(vector(names.map(describe)))];
  const bytes = [
    ...[0, 97, 115, 109, 1, 0, 0, 0],
    ...section(1, (name) => [
      0x60,
      ...vector([...types[name]].map((letter) => (letter === "i" ? 0x7f : 0x7e))),
      ...(WITHOUT_RESULT.test(name) ? [0] : [1, 0x7f]),
    ]),
    ...section(2, (name, i) => [0, ...text(name), 0, ...encode(i)]),
    ...section(7, (name, i) => [...text(name), 0, ...encode(i)]),
  ];
  const module = new WebAssembly.Module(new Uint8Array(bytes));
  return new WebAssembly.Instance(module, { "": functions }).exports;
}

/**
 * A new instance of a module, over `memory` where it imports one: its memory and its functions.
 *
 * Imports of anything but WASI and that memory are a LinkError. `said(bytes)` gets what it writes to stderr.
 */
export async function link(module, memory, said) {
  const types = { ...ABI_FUNCTIONS, ...OPTIONAL_FUNCTIONS };
  const functions = {};
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
        const start = view.getUint32(vectors, true);
        const length = view.getUint32(vectors + 4, true);
        // Only the end can be of interest, and a graph may name the same gigabyte many times.
        const kept = Math.min(length, KEPT_BYTES);
        const bytes = new Uint8Array(view.buffer, start + length - kept, kept);
        if (descriptor === 2) said(bytes);
        total += length;
      }
      view.setUint32(written, total, true);
      return 0;
    }),
    proc_exit(code) {
      throw new Error(`it left with exit code ${code}`);
    },
  };
  for (const { name } of WebAssembly.Module.imports(module)) {
    if (Object.hasOwn(WASI_FUNCTIONS, name)) functions[name] = answers[name] ?? (() => NOTCAPABLE);
  }
  const { exports } = await WebAssembly.instantiate(module, {
    __proto__: null, // or a graph could import what every object has
    wasi_snapshot_preview1: typed(functions, WASI_FUNCTIONS),
    env: memory && { __proto__: null, memory },
  });
  memory ??= exports.memory;
  if (!(memory instanceof WebAssembly.Memory)) throw new Error("it has no memory");
  const names = Object.keys(types).filter((name) => name in ABI_FUNCTIONS || name in exports);
  return { memory, functions: typed(Object.fromEntries(names.map((name) => [name, exports[name]])), types) };
}
