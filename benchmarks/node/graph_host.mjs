// The least host that a graph needs outside Python: the ABI of version 1 for static shapes, and WASI
// with nothing behind it. One thread. No checks beyond the ABI's own: it runs what was just compiled.

const STATIC_SHAPE = -1;
const ERRNO_SUCCESS = 0;
const ERRNO_BADF = 8;
const ERRNO_NOTCAPABLE = 76;

/** WASI functions as on a machine without arguments, environment, files or clock. */
function wasiImports(memory) {
  const zeros = (...pointers) => {
    const view = new DataView(memory().buffer);
    for (const pointer of pointers) view.setUint32(pointer, 0, true);
    return ERRNO_SUCCESS;
  };
  const answers = {
    args_sizes_get: zeros,
    environ_sizes_get: zeros,
    args_get: () => ERRNO_SUCCESS,
    environ_get: () => ERRNO_SUCCESS,
    fd_prestat_get: () => ERRNO_BADF,
    fd_write(descriptor, vectors, count, written) {
      const view = new DataView(memory().buffer);
      let total = 0;
      for (let index = 0; index < count; index++) {
        const start = view.getUint32(vectors + 8 * index, true);
        const length = view.getUint32(vectors + 8 * index + 4, true);
        process.stderr.write(new Uint8Array(memory().buffer, start, length));
        total += length;
      }
      view.setUint32(written, total, true);
      return ERRNO_SUCCESS;
    },
    proc_exit(code) {
      throw new Error(`the graph left with exit code ${code}`);
    },
  };
  return new Proxy(answers, { get: (known, name) => known[name] ?? (() => ERRNO_NOTCAPABLE) });
}

export class Graph {
  #exports;

  /** Compile and instantiate the bytes of a `.wasm`. */
  static async load(bytes) {
    const graph = new Graph();
    const imports = { wasi_snapshot_preview1: wasiImports(() => graph.#exports.memory) };
    const { instance, module } = await WebAssembly.instantiate(bytes, imports);
    const [section] = WebAssembly.Module.customSections(module, "wasmgraph");
    graph.metadata = JSON.parse(new TextDecoder().decode(section));
    graph.#exports = instance.exports;
    instance.exports._initialize?.();
    return graph;
  }

  /** Run once: one Uint8Array per input, in the graph's order; one (a copy) per output. */
  run(inputs) {
    const wasm = this.#exports;
    inputs.forEach((bytes, index) => {
      const pointer = wasm.wg_input(index, 0, STATIC_SHAPE) >>> 0;
      if (pointer === 0) throw this.#error(`input ${index}`);
      new Uint8Array(wasm.memory.buffer, pointer, bytes.length).set(bytes);
    });
    if (wasm.wg_run() !== 0) throw this.#error("run");
    return this.metadata.outputs.map((tensor, index) => {
      const pointer = wasm.wg_output(index) >>> 0;
      const nbytes = tensor.shape.reduce((a, b) => a * b, ITEM_BYTES[tensor.dtype]);
      return new Uint8Array(wasm.memory.buffer, pointer, nbytes).slice();
    });
  }

  /** Bytes of linear memory now. */
  get memoryBytes() {
    return this.#exports.memory.buffer.byteLength;
  }

  #error(what) {
    const wasm = this.#exports;
    const text = new Uint8Array(wasm.memory.buffer, wasm.wg_error() >>> 0, wasm.wg_error_len());
    return new Error(`${what}: ${new TextDecoder().decode(text)}`);
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
