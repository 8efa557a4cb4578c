// A graph as a command under Node's own WASI, with nothing to install:
//
//   node command.mjs GRAPH.wasm < in.npy > out.npy
//   node command.mjs GRAPH.wasm -i NAME=in.npy -o NAME=out.npy
//
// Files are those of the current folder. Exits with the graph's exit code.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [path] = process.argv.slice(2);
if (path === undefined) {
  console.error("usage: node command.mjs GRAPH.wasm [arguments of the graph, such as --help]");
  process.exit(2);
}
const args = process.argv.slice(2); // as everywhere, the first is the program's name
const wasi = new WASI({ version: "preview1", args, preopens: { ".": "." }, returnOnExit: true });
const module = await WebAssembly.compile(await readFile(path));
const { exports } = await WebAssembly.instantiate(module, wasi.getImportObject());
// start() refuses an instance that exports _initialize too, as a graph does for hosts that call it as a
// library. _start calls it by itself, so start() is shown the two exports that a command needs.
const { memory, _start } = exports;
process.exitCode = wasi.start({ exports: { memory, _start } });
