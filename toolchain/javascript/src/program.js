// A graph's module, compiled and found to be one: what every instance of it needs, and can be sent to a worker.

import { LoadError, MemoryLimitExceeded } from "./errors.js";
import { readMetadata } from "./metadata.js";
import { open } from "./source.js";

/**
 * Read and compile a graph: `{name, module, metadata, maxMemory}`, and for a graph with threads what threads.js plans.
 */
export async function prepare(source, options = {}) {
  const { threads, maxMemory, signal } = options;
  const limits = (threads ?? maxMemory) !== undefined && (await import("./limits.js"));
  if (limits) limits.checkLimits(options);
  const isAddress = typeof source === "string" || source instanceof URL;
  const name = isAddress ? `${source}` : source.url || "the graph";
  let opened;
  try {
    opened = isAddress ? await open(name, options) : source instanceof Response ? { response: source } : { bytes: source };
    let { bytes, response, keep } = opened;
    const copy = response?.clone();
    const read = async () => (bytes ??= await copy.arrayBuffer());
    const module = maxMemory
      ? await limits.compileWithin(await read(), maxMemory)
      : response && WebAssembly.compileStreaming
        ? // Under a type of our own, since not every server knows that of WebAssembly.
          await WebAssembly.compileStreaming(new Response(response.body, { headers: { "content-type": "application/wasm" } }))
        : await WebAssembly.compile(await read());
    const metadata = readMetadata(module);
    const plan =
      (threads > 1 || metadata.threads) && (await import("./threads.js")).planThreads(metadata, await read(), options);
    if (keep) await keep(await read());
    return { name, module, metadata, maxMemory, ...plan };
  } catch (error) {
    // What an earlier version kept may be of no use to this one.
    if (opened?.isKept && !(error instanceof MemoryLimitExceeded)) return await prepare(source, { ...options, cache: "reload" });
    if (error.kind) throw new error.constructor(`${name}: ${error.message}`, error.hint);
    const reason = error.cause?.message || error.message;
    throw error instanceof WebAssembly.CompileError
      ? new LoadError(
          `${name} is not a valid WebAssembly module: ${reason}`,
          "it may be damaged, or this engine lacks what it was compiled for: compile the model with another --simd",
        )
      : new LoadError(`${name} cannot be read: ${reason}`);
  } finally {
    signal?.throwIfAborted(); // its reason, whatever it has led to
  }
}
