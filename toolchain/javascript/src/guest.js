// One instantiated graph in this thread: tensors in, run, tensors out, and what went wrong.
//
// Nothing that the graph says is believed: every address, length, rank and text is checked against its memory
// before it is touched. wasmgraph/runtime/wasmtime_instance.py is the same under Wasmtime.

import { startCrew } from "./crew.js";
import { InferenceError, LoadError, MemoryLimitExceeded, printable } from "./errors.js";
import { ABI } from "./metadata.js";
import { ARRAYS, count, describe, fits, isKnown, isSmall } from "./tensor.js";
import { link } from "./wasi.js";

/** As the rank in `wg_input`: the shape is the one compiled in. */
const STATIC_SHAPE = -1;
/** Axes of a tensor whose shape the graph tells. */
const MAX_RANK = 32;
/** Of what the graph says; more is cut off. */
const MAX_TEXT_BYTES = 65536;
const MAX_STDERR_BYTES = 4096;
const STACK_BYTES = 256 * 1024;

const decode = (bytes) => new TextDecoder().decode(new Uint8Array(bytes)).trim();
const isFixed = ({ shape }) => shape.every(isKnown);

/**
 * Instantiate a program (see program.js). After an error it is of no further use.
 *
 * `run(tensors)` takes what `checkInputs` gives, and gives `{outputs, ms}`: tensors that are the caller's, and how
 * long it took. `call(name, ...)` is a function of the ABI.
 */
export async function startGuest({ module, metadata, shared, threads, maxMemory }) {
  const { inputs, outputs, kernels, steps } = metadata;
  let Kind = LoadError;
  let stderr = [];
  let scratch = 0;
  let crew;

  /** The error for a failure, and for what the graph said of it. */
  const failure = (what, text) => {
    const message = printable(text ? `${what}: ${text}` : what);
    // The executor's texts, or Rust's allocator's.
    return maxMemory && /out of memory|no memory left|memory allocation of/.test(text)
      ? new MemoryLimitExceeded(`${message}; the limit is ${maxMemory} bytes`, "allow more memory")
      : new Kind(message);
  };

  /** The error for what was thrown while the graph ran, with the kernel where the stack shows it. */
  const trapped = ({ message = "an exception", stack }) => {
    const words = `${stack}`.split(/[^\w$.]+/);
    const { symbol, description } = kernels.find((kernel) => words.includes(kernel.symbol)) ?? {};
    // Every engine has its own words for it.
    const reason = /call stack|recursion/.test(message) ? "stack overflow" : message;
    return failure(`the graph trapped${symbol ? ` in kernel ${symbol} (${description})` : ""}: ${reason}`, decode(stderr));
  };

  /** Call an export whose result is an address, a size or a code: as an unsigned number. */
  const call = (name, ...values) => {
    try {
      return functions[name](...values) >>> 0;
    } catch (error) {
      throw trapped(Object(error));
    }
  };

  /** Bytes in the graph's memory, good until it runs again. */
  const view = (what, address, length) => {
    const size = memory.buffer.byteLength;
    if (address + length > size) {
      throw new Kind(`the graph says that ${printable(what)} (${length} bytes) lies at ${address}, outside its memory of ${size} bytes`);
    }
    return new Uint8Array(memory.buffer, address, length);
  };
  const tensorView = ({ name, dtype }, address, shape) =>
    view(`'${name}'`, address, isSmall(shape, dtype) ? count(shape, ARRAYS[dtype].BYTES_PER_ELEMENT) : Infinity);

  /** Throw what the graph says of its own failure. */
  const report = (what) => {
    const text = view("its error", call("wg_error"), call("wg_error_len"));
    throw failure(what, decode(text.slice(0, MAX_TEXT_BYTES)));
  };
  const allocate = (length) => call("wg_alloc", length) || report("the graph has no memory left");

  /** Room in the graph's memory for the extents of one shape. */
  const dims = () => {
    scratch ||= allocate(8 * MAX_RANK);
    const { buffer, byteOffset } = view("a shape", scratch, 8 * MAX_RANK);
    return new DataView(buffer, byteOffset);
  };

  const setInput = (spec, i, { data, shape }) => {
    if (!isFixed(spec)) {
      const room = dims();
      shape.forEach((extent, axis) => room.setBigInt64(8 * axis, BigInt(extent), true));
    }
    const address = call("wg_input", i, scratch, isFixed(spec) ? STATIC_SHAPE : shape.length);
    if (!address) report(`the graph rejects input '${spec.name}'`);
    tensorView(spec, address, shape).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  };

  const getOutput = (spec, i) => {
    const address = call("wg_output", i) || report(`the graph has no output '${spec.name}'`);
    let { shape } = spec;
    if (!isFixed(spec)) {
      const rank = call("wg_output_shape", i, 0);
      dims();
      if (rank > MAX_RANK) report(`the graph gives output '${spec.name}' no shape`);
      call("wg_output_shape", i, scratch);
      const room = dims();
      shape = Array.from({ length: rank }, (_, axis) => Number(room.getBigInt64(8 * axis, true)));
      if (!fits(spec.shape, shape) || shape.some((extent) => extent < 0)) {
        throw new Kind(printable(`the graph says that output ${describe(spec)} has the shape [${shape}]`));
      }
    }
    // A copy, in a buffer that is not shared.
    const { buffer } = new Uint8Array(tensorView(spec, address, shape));
    return { data: new ARRAYS[spec.dtype](buffer), shape: [...shape], dtype: spec.dtype };
  };

  const { memory, functions } = await link(module, shared && new WebAssembly.Memory(shared), (bytes) => {
    stderr = [...stderr, ...bytes].slice(-MAX_STDERR_BYTES);
  }).catch((error) => {
    throw failure(`the graph cannot start: ${error?.message}`, decode(stderr));
  });
  if (functions._initialize) call("_initialize");
  const abi = call("wg_abi");
  if (abi !== ABI) throw new LoadError(`the graph has ABI ${abi}, this wasmgraph runs ABI ${ABI}`, "compile the model again");
  // A graph without shares has nothing to give to another thread.
  if (threads > 1 && steps.some(({ shares }) => shares > 1)) {
    crew = await startCrew(threads - 1, module, memory, () => allocate(STACK_BYTES) + STACK_BYTES);
  }
  Kind = InferenceError;

  return {
    memory,
    call,
    async run(tensors) {
      const began = performance.now();
      stderr = [];
      inputs.forEach((spec, i) => setInput(spec, i, tensors[i]));
      const code = crew
        ? await crew.run(() => call("wg_run"), () => call("wg_stop"), trapped)
        : call("wg_run");
      if (code) report(`the graph failed with code ${code | 0}`);
      const found = outputs.map(getOutput);
      return { outputs: found, ms: performance.now() - began };
    },
    close: () => crew?.close(),
  };
}
