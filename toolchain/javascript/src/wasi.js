// WASI with nothing behind it, as in wasmgraph/runtime/sandbox.py: no arguments, environment, files, clock,
// randomness or network. What goes to stderr is kept, for errors.

import { encode } from "./binary.js";

const WASI = "wasi_snapshot_preview1";
const BADF = 8;
const FAULT = 21;
const INVAL = 28;
const NOTCAPABLE = 76;
const MAX_VECTORS = 1024;
const KEPT_BYTES = 4096;

// Every function of preview 1 by its parameters: i is i32, I is i64. All but proc_exit return an i32.
const SIGNATURES = {};
for (const line of [
  "ii args_get args_sizes_get clock_res_get environ_get environ_sizes_get fd_fdstat_get fd_fdstat_set_flags fd_filestat_get fd_prestat_get fd_renumber fd_tell random_get sock_shutdown",
  "iIi clock_time_get",
  "iIIi fd_advise fd_filestat_set_times",
  "iII fd_allocate fd_fdstat_set_rights",
  "i fd_close fd_datasync fd_sync proc_exit proc_raise",
  "iI fd_filestat_set_size",
  "iiiIi fd_pread fd_pwrite fd_readdir",
  "iii fd_prestat_dir_name path_create_directory path_remove_directory path_unlink_file sock_accept",
  "iiii fd_read fd_write poll_oneoff",
  "iIii fd_seek",
  "iiiii path_filestat_get path_symlink sock_send",
  "iiiiIIi path_filestat_set_times",
  "iiiiiii path_link",
  "iiiiiIIii path_open",
  "iiiiii path_readlink path_rename sock_recv",
]) {
  const [parameters, ...names] = line.split(" ");
  for (const name of names) SIGNATURES[name] = parameters;
}
SIGNATURES.sched_yield = "";

/** Whether a module's import is a function of WASI. */
export const isWasi = ({ module, name, kind }) =>
  module === WASI && kind === "function" && Object.hasOwn(SIGNATURES, name);

/** What a graph has said: the end of its stderr, as bytes, and its exit code. */
export class Console {
  stderr = [];
  exitCode;

  /** Forget it, before a run. */
  clear() {
    this.stderr = [];
  }
}

/** The functions among `imports`, typed; `memory()` gives the memory, once there is one. */
export function wasiImports(imports, memory, console) {
  const view = () => new DataView(memory()?.buffer ?? new ArrayBuffer(0));
  const guarded = (answer) => (...values) => {
    try {
      return answer(view(), ...values.map((value) => (typeof value === "bigint" ? value : value >>> 0)));
    } catch (error) {
      if (error instanceof RangeError) return FAULT; // outside the memory
      throw error;
    }
  };
  const noList = guarded((bytes, count, size) => {
    bytes.setUint32(count, 0);
    bytes.setUint32(size, 0);
    return 0;
  });
  const answers = {
    args_sizes_get: noList,
    environ_sizes_get: noList,
    args_get: () => 0,
    environ_get: () => 0,
    fd_prestat_get: () => BADF,
    fd_write: guarded((bytes, descriptor, vectors, count, written) => {
      if (descriptor !== 1 && descriptor !== 2) return BADF;
      if (count > MAX_VECTORS) return INVAL;
      let total = 0;
      for (let i = 0; i < count; i++) {
        const start = bytes.getUint32(vectors + 8 * i, true);
        const length = bytes.getUint32(vectors + 8 * i + 4, true);
        if (start + length > bytes.byteLength) return FAULT;
        total += length;
        if (descriptor === 1) continue;
        // Only the end can be of interest, and a graph may name the same gigabyte many times.
        const kept = Math.min(length, KEPT_BYTES);
        const said = new Uint8Array(bytes.buffer, start + length - kept, kept);
        console.stderr = [...console.stderr, ...said].slice(-KEPT_BYTES);
      }
      bytes.setUint32(written, total, true);
      return 0;
    }),
    proc_exit(code) {
      console.exitCode = code;
      throw new Error(`it left with exit code ${code}`);
    },
  };
  const names = [...new Set(imports.filter(isWasi).map(({ name }) => name))];
  const functions = names.map((name) => [name, answers[name] ?? (() => NOTCAPABLE)]);
  return { [WASI]: typed(Object.fromEntries(functions), SIGNATURES) };
}

const WITHOUT_RESULT = ["proc_exit", "wg_free", "wg_stop", "_initialize"];

/**
 * The functions as exports of a module, with WebAssembly's types: JavaScript's own take and give whatever an
 * importer wants. Where a function of WebAssembly has another type, that is a LinkError.
 */
export function typed(functions, signatures) {
  const names = Object.keys(functions);
  const vector = (items) => [...encode(items.length), ...items.flat()];
  const text = (name) => vector([...name].map((letter) => letter.charCodeAt(0)));
  const section = (id, items) => [id, ...vector(vector(items))];
  const value = { i: 0x7f, I: 0x7e };
  const bytes = [
    ...[0, 97, 115, 109, 1, 0, 0, 0],
    ...section(1, names.map((name) => [
      0x60,
      ...vector([...signatures[name]].map((letter) => value[letter])),
      ...vector(WITHOUT_RESULT.includes(name) ? [] : [value.i]),
    ])),
    ...section(2, names.map((name, i) => [0, ...text(name), 0, ...encode(i)])),
    ...section(7, names.map((name, i) => [...text(name), 0, ...encode(i)])),
  ];
  const module = new WebAssembly.Module(new Uint8Array(bytes));
  return new WebAssembly.Instance(module, { "": functions }).exports;
}
