// One instantiated graph in this thread: tensors in, run, tensors out, and what went wrong.
//
// Nothing that the graph says is believed: every address, length, rank and text is checked against its memory
// before it is touched. wasmgraph/runtime/wasmtime_instance.py is the same under Wasmtime.

import { InferenceError, LoadError, fail } from "./errors.js";
import { ABI } from "./metadata.js";
import { ARRAYS, describe, fits, isCount, isKnown, sizeOf } from "./tensor.js";
import { link } from "./wasi.js";

/** As the rank in `wg_input`: the shape is the one compiled in. */
const STATIC_SHAPE = -1;
/** Axes of a tensor whose shape the graph tells. */
const MAX_RANK = 32;
/** Of what the graph says; more is cut off. */
const MAX_TEXT_BYTES = 65536;
const MAX_STDERR = 4096;

const isOpen = ({ shape }) => !shape.every(isKnown);
// Of a copy: shared memory cannot be decoded.
const decode = (bytes) => new TextDecoder().decode(bytes.slice(0, MAX_TEXT_BYTES));

/**
 * Instantiate a program (see program.js). After an error it is of no further use.
 *
 * `run(tensors)` takes what `checkInputs` gives, and gives `{outputs}`: tensors that are the caller's.
 * `call(name, ...)` is a function of the ABI.
 */
export async function startGuest({ module, metadata, shared, threads, maxMemory }) {
  const { inputs, outputs, kernels } = metadata;
  const limits = maxMemory && (await import("./limits.js"));
  let Kind = LoadError;
  let stderr = "";
  let scratch = 0;

  /** Throw what happened, and what the graph said of it. */
  const failed = (what, text) => {
    text = text.trim();
    what += text && `: ${text}`;
    throw limits?.exceeded(what, maxMemory) ?? new Kind(what);
  };

  /** Throw the error for what was thrown while the graph ran, with the kernel where the stack shows it. */
  const trapped = ({ message = "an exception", stack }) => {
    const words = `${stack}`.split(/[^\w$.]+/);
    const kernel = kernels.find(({ symbol }) => words.includes(symbol));
    const place = kernel ? ` in kernel ${kernel.symbol} (${kernel.description})` : "";
    // Every engine has its own words for it.
    failed(`the graph trapped${place}: ${/call stack|recursion/.test(message) ? "stack overflow" : message}`, stderr);
  };

  /** Call an export whose result is an address, a size or a code: as an unsigned number. */
  const call = (name, ...values) => {
    try {
      return exports[name](...values) >>> 0;
    } catch (error) {
      trapped(Object(error));
    }
  };

  /** Bytes in the graph's memory, good until it runs again. */
  const view = (what, address, length) => {
    const { buffer } = memory;
    const { byteLength } = buffer;
    if (address + length > byteLength) {
      fail(Kind, `the graph's ${what} (${length} bytes at ${address}) lies outside its memory of ${byteLength} bytes`);
    }
    return new Uint8Array(buffer, address, length);
  };

  /** Throw what the graph says of its own failure. */
  const report = (what) => failed(what, decode(view("error text", call("wg_error"), call("wg_error_len"))));
  const allocate = (length) => call("wg_alloc", length) || report("the graph has no memory left");

  /** Room in the graph's memory for the extents of one shape. */
  const dims = () => {
    scratch ||= allocate(8 * MAX_RANK);
    return new DataView(memory.buffer, view("shape", scratch, 8 * MAX_RANK).byteOffset);
  };

  const setInput = (spec, i, { data, shape }) => {
    if (isOpen(spec)) {
      const room = dims();
      shape.forEach((extent, axis) => room.setBigInt64(8 * axis, BigInt(extent), true));
    }
    const what = `input '${spec.name}'`;
    const address =
      call("wg_input", i, scratch, isOpen(spec) ? shape.length : STATIC_SHAPE) || report(`the graph rejects ${what}`);
    view(what, address, data.length).set(data);
  };

  const getOutput = (spec, i) => {
    const { name, dtype } = spec;
    const what = `output '${name}'`;
    const address = call("wg_output", i) || report(`the graph has no ${what}`);
    let { shape } = spec;
    if (isOpen(spec)) {
      dims();
      const rank = call("wg_output_shape", i, scratch);
      if (rank > MAX_RANK) report(`the graph gives ${what} no shape`);
      const room = dims();
      shape = Array.from({ length: rank }, (_, axis) => Number(room.getBigInt64(8 * axis, true)));
      if (!fits(spec.shape, shape) || !shape.every(isCount)) fail(Kind, `the graph gives output ${describe(spec)} the shape [${shape}]`);
    }
    // A copy, in a buffer that is not shared.
    const { buffer } = new Uint8Array(view(what, address, sizeOf(shape, dtype)));
    return { data: new ARRAYS[dtype](buffer), shape: [...shape], dtype };
  };

  const { memory, exports } = await link(module, shared && new WebAssembly.Memory(shared), (bytes) => {
    stderr = (stderr + decode(bytes)).slice(-MAX_STDERR);
  }).catch((error) => failed(`the graph cannot start: ${error?.message}`, stderr));
  if (exports._initialize) call("_initialize");
  const abi = call("wg_abi");
  if (abi !== ABI) fail(LoadError, `the graph has ABI ${abi}, not ${ABI}`, "compile the model again");
  const crew = threads > 1 && (await (await import("./crew.js")).startCrew(threads, module, metadata, memory, call, allocate));
  Kind = InferenceError;

  return {
    memory,
    call,
    async run(tensors) {
      stderr = "";
      inputs.forEach((spec, i) => setInput(spec, i, tensors[i]));
      const code = crew ? await crew.run(trapped) : call("wg_run");
      if (code) report(`the graph failed with code ${code | 0}`);
      return { outputs: outputs.map(getOutput) };
    },
    close: () => crew && crew.close(),
  };
}
