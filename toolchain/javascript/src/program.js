// A graph's module, compiled and found to be one: what every instance of it needs, and can be sent to a worker.

import { limitMemory } from "./binary.js";
import { LoadError, WasmgraphError, printable } from "./errors.js";
import { readMetadata } from "./metadata.js";
import { open } from "./source.js";

/**
 * Read and compile a graph: `{name, module, metadata, shared, threads, maxMemory}`, where `shared` is the
 * memory to make for it, if it is for several threads.
 */
export async function prepare(source, options = {}) {
  const { threads = 1, maxMemory, signal } = options;
  if (![threads, maxMemory ?? 1].every((value) => Number.isInteger(value) && value > 0)) {
    throw new RangeError("threads and maxMemory should be whole numbers from 1 on");
  }
  const isAddress = typeof source === "string" || source instanceof URL;
  const name = isAddress ? `${source}` : source.url || "the graph";
  let opened = {};
  try {
    opened = isAddress ? await open(name, options) : source instanceof Response ? { response: source } : { bytes: new Uint8Array(source) };
    const program = { name, maxMemory, ...(await compile(opened, options)) };
    signal?.throwIfAborted();
    return { ...program, threads: countThreads(threads, program.metadata) };
  } catch (error) {
    signal?.throwIfAborted();
    // What an earlier version kept may be of no use to this one.
    if (opened.isKept && !(error.kind && error.kind !== "LoadError")) return prepare(source, { ...options, cache: "reload" });
    if (error.kind) throw new error.constructor(`${name}: ${error.message}`, error.hint);
    const reason = printable(error.cause?.message || error.message);
    if (!(error instanceof WebAssembly.CompileError)) throw new LoadError(`${name} cannot be read: ${reason}`);
    throw new LoadError(
      `${name} is not a valid WebAssembly module: ${reason}`,
      "it may be damaged, or this engine lacks what it was compiled for: compile the model with another --simd",
    );
  }
}

async function compile({ bytes, response, keep }, { maxMemory }) {
  const copy = response?.clone();
  const read = async () => (bytes ??= new Uint8Array(await copy.arrayBuffer()));
  let module;
  if (response && !maxMemory && WebAssembly.compileStreaming) {
    // Under a type of our own, since not every server knows that of WebAssembly.
    const headers = { "content-type": "application/wasm" };
    module = await WebAssembly.compileStreaming(new Response(response.body, { headers }));
  } else {
    module = await WebAssembly.compile(limitMemory(await read(), maxMemory).bytes);
  }
  const metadata = readMetadata(module);
  const shared = metadata.threads ? limitMemory(await read(), maxMemory).memory : undefined;
  if (metadata.threads && !shared?.shared) throw new LoadError("a graph for several threads should import a shared memory");
  await keep?.(await read());
  return { module, metadata, shared };
}

function countThreads(threads, metadata) {
  if (threads > 1 && !metadata.threads) {
    throw new LoadError(`it was compiled for one thread, not for ${threads}`, "compile the model with --threads");
  }
  if (threads > 1 && globalThis.crossOriginIsolated === false) {
    console.info("wasmgraph: one thread instead of several, since this page is not cross-origin isolated");
    return 1;
  }
  return threads;
}
