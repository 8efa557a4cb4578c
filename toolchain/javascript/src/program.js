// A graph's module, compiled and found to be one: what every instance of it needs, and can be sent to a worker.

import { readMetadata } from "./metadata.js";
import { open } from "./source.js";

/**
 * Read and compile a graph: `{name, module, metadata, maxMemory}`, and for a graph with threads what threads.js plans.
 */
export const prepare = async (source, options) => {
  const { CompileError, compile, compileStreaming } = WebAssembly;
  const { threads, maxMemory, signal } = options;
  const compileWithin = (threads ?? maxMemory) != null && (await import("./limits.js")).check(options);
  const isBytes = source.byteLength >= 0;
  const name = source.url ?? (isBytes ? "" : `${source}`);
  let opened;
  try {
    opened = isBytes
      ? { bytes: new Uint8Array(source) }
      : source instanceof Response
        ? { response: source }
        : await open(name, options);
    let { bytes, response, keep } = opened;
    const copy = response?.clone();
    const read = async () => (bytes ??= await copy.arrayBuffer());
    const module = await (compileWithin
      ? compileWithin(await read())
      : response && compileStreaming
        ? // Under a type of our own, since not every server knows that of WebAssembly.
          compileStreaming(new Response(response.body, { headers: { "content-type": "application/wasm" } }))
        : compile(await read()));
    const metadata = readMetadata(module);
    const plan =
      (threads > 1 || metadata.threads) && (await import("./threads.js")).plan(metadata, await read(), options);
    if (keep) await keep(await read());
    return { name, module, metadata, maxMemory, ...plan };
  } catch (error) {
    // What an earlier version kept may be of no use to this one.
    if (opened?.kept && !error.kind) return await prepare(source, { ...options, cache: "reload" });
    throw {
      ...(error.facts
        ? error
        : { code: error instanceof CompileError ? "invalid" : "unreadable", facts: [error.cause?.message || error.message] }),
      name,
    };
  } finally {
    signal?.throwIfAborted(); // its reason, whatever it has led to
  }
};
