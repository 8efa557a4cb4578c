// The least host that a graph needs outside Python: the ABI of version 1 for static shapes, on one thread
// or several. No checks beyond the ABI's own: it runs what was just compiled.

import { Helpers, sharedMemory } from "./threads.mjs";
import { wasiImports } from "./wasi.mjs";

const STATIC_SHAPE = -1;

export class Graph {
  #wasm;
  #memory;
  #helpers;

  /** Compile and instantiate the bytes of a `.wasm`; more than one thread takes a graph made for several. */
  static async load(bytes, threads = 1) {
    const graph = new Graph();
    const module = await WebAssembly.compile(bytes);
    const shared = sharedMemory(module, bytes);
    if (threads > 1 && !shared) throw new Error("the graph was compiled for one thread");
    const imports = { wasi_snapshot_preview1: wasiImports(() => graph.#memory) };
    if (shared) imports.env = { memory: shared };
    const [section] = WebAssembly.Module.customSections(module, "wasmgraph");
    graph.metadata = JSON.parse(new TextDecoder().decode(section));
    const { exports: wasm } = await WebAssembly.instantiate(module, imports);
    graph.#wasm = wasm;
    graph.#memory = shared ?? wasm.memory;
    wasm._initialize?.();
    if (threads > 1) graph.#helpers = await Helpers.start(threads - 1, module, shared, wasm);
    return graph;
  }

  /** Run once: one Uint8Array per input, in the graph's order; one (a copy) per output. */
  run(inputs) {
    const wasm = this.#wasm;
    inputs.forEach((bytes, index) => {
      const pointer = wasm.wg_input(index, 0, STATIC_SHAPE) >>> 0;
      if (pointer === 0) throw this.#error(`input ${index}`);
      new Uint8Array(this.#memory.buffer, pointer, bytes.length).set(bytes);
    });
    const code = this.#helpers ? this.#helpers.run() : wasm.wg_run();
    if (code !== 0) throw this.#error("run");
    return this.metadata.outputs.map((tensor, index) => {
      const pointer = wasm.wg_output(index) >>> 0;
      const nbytes = tensor.shape.reduce((a, b) => a * b, ITEM_BYTES[tensor.dtype]);
      return new Uint8Array(this.#memory.buffer, pointer, nbytes).slice();
    });
  }

  /** Bytes of linear memory now. */
  get memoryBytes() {
    return this.#memory.buffer.byteLength;
  }

  #error(what) {
    const wasm = this.#wasm;
    const text = new Uint8Array(this.#memory.buffer, wasm.wg_error() >>> 0, wasm.wg_error_len());
    // A copy: text is not decoded from shared memory.
    return new Error(`${what}: ${new TextDecoder().decode(text.slice())}`);
  }
}

const ITEM_BYTES = {
  bool: 1,
  int8: 1,
  uint8: 1,
  int16: 2,
  uint16: 2,
  float16: 2,
  int32: 4,
  uint32: 4,
  float32: 4,
  int64: 8,
  uint64: 8,
  float64: 8,
};
