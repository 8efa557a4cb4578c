// A graph as a library in JavaScript, here in Node: the calls are those of the ABI in the README.
//
//   node library.mjs GRAPH.wasm
//
// Runs a graph of one float32 input and one float32 output on zeros and prints its output's values.
import { readFile } from "node:fs/promises";

const STATIC_SHAPE = -1;

// All that a graph imports is WASI. Called as a library it needs nothing of it; some C libraries look for
// open folders at the start, until they are told that there is no such descriptor.
const EBADF = 8;
const nothing = new Proxy({}, { get: () => () => EBADF });
const bytes = await readFile(process.argv[2]);
const { instance, module } = await WebAssembly.instantiate(bytes, { wasi_snapshot_preview1: nothing });
const [section] = WebAssembly.Module.customSections(module, "wasmgraph");
const { inputs, outputs } = JSON.parse(new TextDecoder().decode(section));

const wasm = instance.exports;
const extent = ({ shape }) => shape.reduce((a, b) => a * b, 1);
const failure = () =>
  new TextDecoder().decode(new Uint8Array(wasm.memory.buffer, wasm.wg_error() >>> 0, wasm.wg_error_len()));

wasm._initialize?.();
const input = wasm.wg_input(0, 0, STATIC_SHAPE) >>> 0; // an address is unsigned
if (input === 0) throw new Error(failure());
new Float32Array(wasm.memory.buffer, input, extent(inputs[0])).fill(0);
if (wasm.wg_run() !== 0) throw new Error(failure());
const output = new Float32Array(wasm.memory.buffer, wasm.wg_output(0) >>> 0, extent(outputs[0]));
console.log(`${outputs[0].name}: ${[...output].map((value) => value.toFixed(4)).join(" ")}`);
