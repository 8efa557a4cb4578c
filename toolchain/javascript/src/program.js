// A graph's module, compiled and found to be one: what every instance of it needs, and can be sent to a worker.

import { PAGE_BYTES, limitMemory, readHead } from "./binary.js";
import { LoadError, MemoryLimitExceeded, WasmgraphError, printable, quote } from "./errors.js";
import { FOR_THREADS, REQUIRED } from "./guest.js";
import { readMetadata } from "./metadata.js";
import { nameOf, open } from "./source.js";
import { canShare } from "./spawn.js";
import { isWasi } from "./wasi.js";

/**
 * Read and compile a graph: `{name, module, metadata, shared, threads, maxMemory}`, where `shared` is the
 * memory to make for it, if it is for several threads.
 */
export async function prepare(source, options = {}) {
  const { threads = 1, maxMemory, signal, cache = true } = options;
  for (const [key, value] of Object.entries({ threads, maxMemory: maxMemory ?? 1 })) {
    if (!(Number.isSafeInteger(value) && value > 0)) throw new RangeError(`${key} should be a whole number from 1 on, not ${value}`);
  }
  const name = nameOf(source);
  const opened = await open(source, options);
  try {
    const { module, head } = await compile(opened, maxMemory);
    signal?.throwIfAborted();
    const metadata = readMetadata(module);
    const [memory] = check(module, metadata, head);
    await opened.keep?.();
    return {
      name,
      module,
      metadata,
      maxMemory,
      threads: countThreads(threads, metadata, name),
      shared: metadata.threads ? limits(memory, maxMemory) : undefined,
    };
  } catch (error) {
    signal?.throwIfAborted();
    // What an earlier version kept may be of no use to this one.
    if (opened.isKept && cache === true && error instanceof LoadError) return prepare(source, { ...options, cache: "reload" });
    if (error instanceof WasmgraphError) error.message = `${name}: ${error.message}`;
    throw error;
  }
}

async function compile({ bytes, response }, maxMemory) {
  const pages = maxMemory === undefined ? Infinity : Math.floor(maxMemory / PAGE_BYTES);
  if (response && !response.ok) {
    throw new LoadError(`the server answered ${response.status} ${response.statusText}`);
  }
  let head;
  let module;
  try {
    if (response?.body && WebAssembly.compileStreaming) {
      const begun = streamHead(response.body, pages, (found) => (head = found));
      // Under a type of our own, since not every server knows that of WebAssembly.
      module = await WebAssembly.compileStreaming(new Response(begun, { headers: { "content-type": "application/wasm" } }));
    } else {
      const all = bytes ?? new Uint8Array(await response.arrayBuffer());
      head = readHead(all, true);
      module = await WebAssembly.compile(limitMemory(all, head, pages));
    }
  } catch (error) {
    if (!(error instanceof WebAssembly.CompileError)) throw new LoadError(`it cannot be read: ${error.message}`);
    if (!head?.isWasm) throw new LoadError("not a wasm file: it does not begin with '\\0asm'");
    throw new LoadError(
      `not a valid WebAssembly module: ${printable(error.message)}`,
      "the file may be damaged, or this engine lacks what it was compiled for: compile the model with another --simd",
    );
  }
  const [memory] = head.memories;
  if (memory?.minimum > pages) {
    throw new MemoryLimitExceeded(
      `it needs ${memory.minimum * PAGE_BYTES} bytes of memory to start with, the limit is ${maxMemory}`,
      `allow at least ${memory.minimum * PAGE_BYTES} bytes`,
    );
  }
  return { module, head };
}

/** The stream with its memory limited; `found` gets what its head says, before the end of the stream. */
function streamHead(stream, pages, found) {
  let begun = new Uint8Array(0);
  const look = (out, complete) => {
    const head = begun && readHead(begun, complete);
    if (!head) return;
    found(head);
    out.enqueue(limitMemory(begun, head, pages));
    begun = undefined;
  };
  return stream.pipeThrough(
    new TransformStream({
      transform(chunk, out) {
        if (!begun) return out.enqueue(chunk);
        const both = new Uint8Array(begun.length + chunk.length);
        both.set(begun);
        both.set(chunk, begun.length);
        begun = both;
        look(out, false);
      },
      flush: (out) => look(out, true),
    }),
  );
}

/** Check that a module is a graph of this ABI; its memories. */
function check(module, { threads }, { memories }) {
  for (const found of WebAssembly.Module.imports(module)) {
    const isMemory = threads && found.kind === "memory" && found.module === "env" && found.name === "memory";
    if (isMemory || isWasi(found)) continue;
    throw new LoadError(
      `the graph imports the ${found.kind} ${quote(found.name)} of ${quote(found.module)}; ` +
        `only functions of WASI preview 1${threads ? " and the memory" : ""} are allowed`,
    );
  }
  const kinds = new Map(WebAssembly.Module.exports(module).map(({ name, kind }) => [name, kind]));
  const required = ["_start", ...Object.keys(REQUIRED), ...(threads ? Object.keys(FOR_THREADS) : ["memory"])];
  for (const name of [...required, ...["_initialize", "wg_step"].filter((name) => kinds.has(name))]) {
    const kind = name === "memory" ? name : "function";
    if (kinds.get(name) === kind) continue;
    const found = kinds.has(name) ? `a ${kinds.get(name)}` : "nothing";
    throw new LoadError(`the graph should export the ${kind} '${name}', it exports ${found}`);
  }
  const [memory, another] = memories;
  if (!memory || another || memory.is64 || memory.isShared !== threads) {
    const should = threads ? "imported, 32-bit and shared" : "its own, 32-bit and not shared";
    throw new LoadError(`the graph's memory should be ${should}`);
  }
  return memories;
}

function limits({ minimum, maximum }, maxMemory = Infinity) {
  return { initial: minimum, maximum: Math.min(maximum, Math.floor(maxMemory / PAGE_BYTES)) };
}

function countThreads(wanted, metadata) {
  if (wanted > 1 && !metadata.threads) {
    throw new LoadError(`it was compiled for one thread, not for ${wanted}`, "compile the model with --threads");
  }
  if (wanted === 1 || canShare()) return wanted;
  console.info(
    "wasmgraph: one thread instead of several, since this page is not cross-origin isolated " +
      "(it takes the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp)",
  );
  return 1;
}
