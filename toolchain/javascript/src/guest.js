// One instantiated graph in this thread: tensors in, run, tensors out, and what went wrong.
//
// Nothing that the graph says is believed: every address, length, rank and text is checked against its memory
// before it is touched. wasmgraph/runtime/wasmtime_instance.py is the same under Wasmtime.

import { Crew } from "./crew.js";
import { InferenceError, LoadError, MemoryLimitExceeded, printable, quote } from "./errors.js";
import { ABI } from "./metadata.js";
import { ARRAYS, count, describe, fits, isFixed, isSmall, itemBytes } from "./tensor.js";
import { Console, typed, wasiImports } from "./wasi.js";

/** The ABI's functions by their parameters, all i32. */
export const REQUIRED = {
  wg_abi: "",
  wg_input: "iii",
  wg_run: "",
  wg_output: "i",
  wg_output_shape: "ii",
  wg_alloc: "i",
  wg_free: "ii",
  wg_error: "",
  wg_error_len: "",
};
export const FOR_THREADS = { wg_work: "iii", wg_stop: "" };
const SIGNATURES = { ...REQUIRED, ...FOR_THREADS, _initialize: "", wg_step: "ii" };

/** As the rank in `wg_input`: the shape is the one compiled in. */
const STATIC_SHAPE = -1;
/** Axes of a tensor whose shape the graph tells. */
const MAX_RANK = 32;
const SHAPE_BYTES = 8 * MAX_RANK;
/** Of the graph's error text; more is cut off. */
const MAX_ERROR_BYTES = 65536;

/** A new instance of a program's module over `memory`, where it imports one: its memory and functions. */
export async function link({ module }, memory, console) {
  let exports;
  const imports = wasiImports(WebAssembly.Module.imports(module), () => memory ?? exports?.memory, console);
  if (memory) imports.env = { memory };
  ({ exports } = await WebAssembly.instantiate(module, imports));
  const known = Object.keys(SIGNATURES).filter((name) => name in exports);
  const functions = typed(Object.fromEntries(known.map((name) => [name, exports[name]])), SIGNATURES);
  return { functions, memory: memory ?? exports.memory };
}

const decode = (bytes) => printable(new TextDecoder().decode(bytes).trim());

/** Whether an error is a failed allocation: the executor's texts, or Rust's allocator's. */
const speaksOfMemory = (text) => /out of memory|no memory left|memory allocation of/.test(text);

/** A graph that is ready to run; after an error it is of no further use. */
export class Guest {
  #program;
  #functions;
  #memory;
  #crew;
  #console = new Console();
  #dims = 0;
  #kind = LoadError;

  /** Instantiate a program (see `compile` in program.js). */
  static async start(program) {
    const guest = new Guest();
    await guest.#start(program);
    return guest;
  }

  async #start(program) {
    const { name, threads, metadata, shared } = program;
    this.#program = program;
    let memory;
    try {
      if (shared) memory = new WebAssembly.Memory({ ...shared, shared: true });
      const linked = await link(program, memory, this.#console);
      this.#functions = linked.functions;
      this.#memory = linked.memory;
    } catch (error) {
      throw this.#trapped(error, `${name} cannot be started`);
    }
    if ("_initialize" in this.#functions) this.#call("_initialize");
    const abi = this.#call("wg_abi");
    if (abi !== ABI) {
      throw new LoadError(`${name} has ABI ${abi}, this wasmgraph runs ABI ${ABI}`, "compile the model again");
    }
    // A graph without shares has nothing to give to another thread.
    if (threads > 1 && metadata.steps.some(({ shares }) => shares > 1)) {
      const stack = (bytes) => this.#call("wg_alloc", bytes) || this.#report("the graph has no memory left for a thread's stack");
      this.#crew = await Crew.start(threads - 1, program, this.#memory, stack);
    }
    this.#kind = InferenceError;
  }

  /** Bytes of memory now. */
  get memoryBytes() {
    return this.#memory.buffer.byteLength;
  }

  /** Run once on tensors that `checkInputs` has seen; a list of tensors that are the caller's. */
  run(tensors) {
    const { inputs, outputs } = this.#program.metadata;
    this.#console.clear();
    inputs.forEach((spec, i) => {
      const { data, shape } = tensors[i];
      const address = this.#declare(i, spec, shape) || this.#report(`the graph rejects input ${quote(spec.name)}`);
      this.#bytes(address, spec, shape).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    });
    const code = this.#together();
    if (code) this.#report(`the graph failed with code ${code | 0}`);
    return outputs.map((spec, i) => {
      const address = this.#call("wg_output", i) || this.#report(`the graph has no output ${quote(spec.name)}`);
      const shape = isFixed(spec) ? spec.shape : this.#outputShape(i, spec);
      // A copy, in a buffer that is not shared.
      const bytes = new Uint8Array(this.#bytes(address, spec, shape));
      return { data: new ARRAYS[spec.dtype](bytes.buffer), shape: [...shape], dtype: spec.dtype };
    });
  }

  /** Run kernel call `index` alone, so many times, on whatever its buffers hold. */
  step(index, times) {
    if (!("wg_step" in this.#functions)) throw new InferenceError("the graph cannot run its steps one by one", "compile the model again");
    const code = this.#call("wg_step", index, times);
    if (code) throw new InferenceError(`step ${index} failed with code ${code | 0}`);
  }

  /** End its threads. */
  close() {
    this.#crew?.close();
  }

  /** The address for an input's bytes, 0 where the graph refuses the shape. */
  #declare(i, spec, shape) {
    if (isFixed(spec)) return this.#call("wg_input", i, 0, STATIC_SHAPE);
    const { address, dims } = this.#scratch();
    shape.forEach((extent, axis) => dims.setBigInt64(8 * axis, BigInt(extent), true));
    return this.#call("wg_input", i, address, shape.length);
  }

  /** The shape of an output after a run, which fits what the graph says of it. */
  #outputShape(i, spec) {
    const rank = this.#call("wg_output_shape", i, 0);
    if (rank > MAX_RANK) this.#report(`the graph gives output ${quote(spec.name)} no shape`);
    this.#call("wg_output_shape", i, this.#scratch().address);
    const { dims } = this.#scratch();
    const shape = Array.from({ length: rank }, (_, axis) => Number(dims.getBigInt64(8 * axis, true)));
    if (!fits(spec.shape, shape) || shape.some((extent) => extent < 0)) {
      throw new InferenceError(`the graph says that output ${describe(spec)} has the shape [${shape.join(", ")}]`);
    }
    return shape;
  }

  /** Room in the graph's memory for one shape; the view is good until the graph runs again. */
  #scratch() {
    this.#dims ||= this.#call("wg_alloc", SHAPE_BYTES);
    if (!this.#dims || this.#dims + SHAPE_BYTES > this.memoryBytes) this.#report("the graph has no memory left for a shape");
    return { address: this.#dims, dims: new DataView(this.#memory.buffer, this.#dims, SHAPE_BYTES) };
  }

  /** A tensor's bytes in the graph's memory, good until the graph runs again. */
  #bytes(address, { name, dtype }, shape) {
    const length = count(shape) * itemBytes(dtype);
    const size = this.memoryBytes;
    if (!isSmall(shape, dtype) || address + length > size) {
      throw new InferenceError(
        `the graph says that tensor ${quote(name)} ([${shape.join(", ")}] of ${dtype}) lies at 0x${address.toString(16)}, ` +
          `which is outside its memory of ${size} bytes`,
      );
    }
    return new Uint8Array(this.#memory.buffer, address, length);
  }

  /** The result of `wg_run`, with the help of the other threads. */
  #together() {
    if (!this.#crew) return this.#call("wg_run");
    const { code, failure } = this.#crew.run(
      () => this.#call("wg_run"),
      () => this.#call("wg_stop"),
    );
    if (failure) throw this.#trapped(new Error(failure));
    return code;
  }

  /** Call an export whose result is an address, a size or a code: as an unsigned number. */
  #call(name, ...values) {
    try {
      return this.#functions[name](...values) >>> 0;
    } catch (error) {
      throw this.#trapped(error);
    }
  }

  /** Throw what the graph says of its own failure. */
  #report(what) {
    const text = this.#errorText();
    throw this.#failure(text ? `${what}: ${text}` : what, text);
  }

  #errorText() {
    const address = this.#call("wg_error");
    const length = this.#call("wg_error_len");
    const size = this.memoryBytes;
    if (address + length > size) {
      throw new InferenceError(
        `the graph says that its error text of ${length} bytes lies at 0x${address.toString(16)}, ` +
          `which is outside its memory of ${size} bytes`,
      );
    }
    const kept = Math.min(length, MAX_ERROR_BYTES);
    // Text is not decoded from shared memory.
    return decode(new Uint8Array(this.#memory.buffer, address, kept).slice());
  }

  /** The error for what was thrown while the graph ran. */
  #trapped(error, what = `the graph trapped${this.#kernel(error)}`) {
    const said = decode(new Uint8Array(this.#console.stderr));
    // Too deep a recursion is a RangeError in some engines, an InternalError in others.
    const isDeep = /call stack|recursion/.test(error?.message);
    const reason = isDeep ? "stack overflow" : printable(String(error?.message ?? error));
    return this.#failure(`${what}: ${reason}${said && `\n${said}`}`, said);
  }

  #failure(message, text) {
    const { maxMemory } = this.#program;
    if (!maxMemory || !speaksOfMemory(text)) return new this.#kind(message);
    return new MemoryLimitExceeded(`${message}; the limit is ${maxMemory} bytes`, "allow more memory");
  }

  /** " in kernel NAME (OPERATORS)" of the innermost kernel on the stack, where the engine names functions. */
  #kernel(error) {
    const symbols = new Map(this.#program.metadata.kernels.map((kernel) => [kernel.symbol, kernel]));
    const words = String(error?.stack).match(/[\w$.]+/g) ?? [];
    const kernel = symbols.get(words.find((word) => symbols.has(word)));
    return kernel ? printable(` in kernel ${kernel.symbol} (${kernel.description})`) : "";
  }
}
