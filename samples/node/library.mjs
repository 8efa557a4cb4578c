// A graph as a library in JavaScript, here in Node: the calls are those of the ABI in the README.
//
//   node library.mjs GRAPH.wasm
//
// Runs a graph of one float32 input and one float32 output on zeros and prints its output's values.
import { readFile } from "node:fs/promises";

const STATIC_SHAPE = -1;

// All that a graph imports is WASI. Called as a library it opens nothing, but the C library of an older
// Rust looks around at the start: it finds an empty environment, and no such descriptor.
const SUCCESS = 0;
const EBADF = 8;
const world = {
  environ_sizes_get(count, nbytes) {
    new Uint32Array(wasm.memory.buffer, count, 1)[0] = 0;
    new Uint32Array(wasm.memory.buffer, nbytes, 1)[0] = 0;
    return SUCCESS;
  },
  environ_get: () => SUCCESS,
};
const wasi = new Proxy(world, { get: (known, name) => known[name] ?? (() => EBADF) });

const bytes = await readFile(process.argv[2]);
const imports = { wasi_snapshot_preview1: wasi };
const { instance, module } = await WebAssembly.instantiate(bytes, imports);
const wasm = instance.exports;
const [section] = WebAssembly.Module.customSections(module, "wasmgraph");
const { inputs, outputs } = JSON.parse(new TextDecoder().decode(section));

// Addresses are unsigned, which JavaScript is told by >>> 0.
const floats = (address, { shape }) =>
  new Float32Array(wasm.memory.buffer, address >>> 0, shape.reduce((a, b) => a * b, 1));
const failure = () => {
  const text = new Uint8Array(wasm.memory.buffer, wasm.wg_error() >>> 0, wasm.wg_error_len());
  return new Error(new TextDecoder().decode(text));
};

wasm._initialize?.();
const input = wasm.wg_input(0, 0, STATIC_SHAPE);
if (input === 0) throw failure();
floats(input, inputs[0]).fill(0);
if (wasm.wg_run() !== 0) throw failure();
const values = [...floats(wasm.wg_output(0), outputs[0])].map((value) => value.toFixed(4));
console.log(`${outputs[0].name}: ${values.join(" ")}`);
