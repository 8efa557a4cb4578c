// A page that runs one graph for Python: wasmgraph/runtime/browser_server.py serves it and is the other side.
//
// Each POST to `channel` carries the last answer and is answered with the next request, or with nothing for now.

import { LENGTH_BYTES, answer, headerBytes, hello, parseHeader } from "./requests.mjs";

const NOTHING_YET = 204;

// The connection ends with the page, whatever ends that. It stays open as long as something refers to it.
globalThis.alive = (await fetch("alive")).body.getReader();

const [, version = "unknown"] = navigator.userAgent.match(/Chrom\w*\/([\d.]+)/) ?? [];
let message = hello("browser", version);
for (;;) {
  const response = await fetch("channel", { method: "POST", body: new Blob(message) });
  message = [];
  if (response.status === NOTHING_YET) continue;
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const frame = new Uint8Array(await response.arrayBuffer());
  const start = LENGTH_BYTES + headerBytes(frame);
  message = await answer(parseHeader(frame.subarray(LENGTH_BYTES, start)), frame.subarray(start));
}
