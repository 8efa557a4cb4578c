// A process that runs one graph for Python, under Node: requests on stdin, one answer each on stdout.
//
// wasmgraph/runtime/host_process.py is the other side. Every instance lives in a worker, so that this thread
// is free to see that stdin has ended: then the process ends, whatever runs.

import { Console } from "node:console";
import { LENGTH_BYTES, answer, headerBytes, hello, parseHeader } from "./requests.mjs";

globalThis.console = new Console(process.stderr, process.stderr); // stdout is for answers

/** Not by writeSync: a worker's stdout is led to this process's, which then does not block. */
async function send(pieces) {
  for (const piece of pieces) await new Promise((resolve) => process.stdout.write(piece, resolve));
}

/** Frames of a stream, one after the other, as `[header, payload]`. At its end the process ends at once. */
async function* frames(stream) {
  const chunks = [];
  let wake;
  // Not the stream's own iterator: it would not see the end while a request is worked on.
  stream.on("end", () => process.exit(0)).on("data", (chunk) => {
    chunks.push(chunk);
    wake?.();
  });
  const take = async (nbytes) => {
    const taken = Buffer.alloc(nbytes);
    for (let at = 0; at < nbytes; ) {
      while (chunks.length === 0) await new Promise((resolve) => (wake = resolve));
      const part = chunks[0].subarray(0, nbytes - at);
      taken.set(part, at);
      at += part.length;
      if (part.length === chunks[0].length) chunks.shift();
      else chunks[0] = chunks[0].subarray(part.length);
    }
    return taken;
  };
  for (;;) {
    const header = parseHeader(await take(headerBytes(await take(LENGTH_BYTES))));
    yield [header, await take(header.payload ?? 0)];
  }
}

process.stdout.on("error", () => process.exit(1)); // nobody listens any more
await send(hello("node", process.version));
for await (const [header, payload] of frames(process.stdin)) await send(await answer(header, payload));
