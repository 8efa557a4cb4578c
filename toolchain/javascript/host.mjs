// A process that runs one graph for Python, under Node: requests on stdin, one answer each on stdout.
//
// A frame is the length of a JSON header (u32, little-endian), the header, and `header.payload` bytes.
// wasmgraph/runtime/host_process.py is the other side. Every instance lives in a worker, so that this thread
// is free to see that its time is over, or that stdin has ended: then the process ends, whatever runs.

import { Console } from "node:console";
import { WasmgraphError, pack } from "./src/errors.js";
import { prepare } from "./src/program.js";
import { Remote } from "./src/remote.js";
import { ARRAYS, checkInputs, count, itemBytes } from "./src/tensor.js";

const PROTOCOL = 1;
const LENGTH_BYTES = 4;
const MAX_HEADER_BYTES = 1 << 24;

// Smallest modules with an instruction of 128 bits, and with a relaxed one.
const SIMD = "AGFzbQEAAAABBQFgAAF7AwIBAAoKAQgAQQD9D/1iCw==";
const RELAXED = "AGFzbQEAAAABBQFgAAF7AwIBAAoPAQ0AQQD9D0EA/Q/9gAIL";
const validates = (base64) => WebAssembly.validate(Buffer.from(base64, "base64"));

globalThis.console = new Console(process.stderr, process.stderr); // stdout is for answers

const instances = new Map();
let program;
let timeout;
let made = 0;

const answers = {
  async load({ path, threads, memory, seconds }) {
    const began = performance.now();
    timeout = seconds === null ? undefined : 1e3 * seconds;
    program = await prepare(path, { threads, maxMemory: memory ?? undefined });
    return { ok: { load_ms: performance.now() - began } };
  },
  async instantiate() {
    const began = performance.now();
    const instance = ++made;
    instances.set(instance, await Remote.start(program, timeout));
    return { ok: { instance, ms: performance.now() - began } };
  },
  async run({ instance, inputs }, payload) {
    const tensors = unpackTensors(inputs, payload);
    const { outputs, ms } = await closing(instance, (guest) => guest.run(tensors, timeout));
    const described = outputs.map(({ dtype, shape }) => ({ dtype, shape }));
    return { ok: { outputs: described, ms }, payload: outputs.map(({ data }) => data) };
  },
  async step({ instance, index, times }) {
    return { ok: await closing(instance, (guest) => guest.step(index, times, timeout)) };
  },
  async close({ instance }) {
    instances.get(instance)?.close();
    instances.delete(instance);
    return { ok: {} };
  },
};

/** Work with an instance, which an error ends. */
async function closing(instance, work) {
  const guest = instances.get(instance);
  if (!guest) throw new Error(`there is no instance ${instance}`);
  try {
    return await work(guest);
  } catch (error) {
    guest.close();
    instances.delete(instance);
    throw error;
  }
}

/** The tensors of a run, in the graph's order, each in a buffer of its own. */
function unpackTensors(described, payload) {
  const specs = program.metadata.inputs;
  let at = 0;
  const tensors = described.map(({ dtype, shape }) => {
    const end = at + count(shape) * itemBytes(dtype);
    const bytes = new Uint8Array(payload.subarray(at, end));
    at = end;
    return { data: new ARRAYS[dtype](bytes.buffer), shape, dtype };
  });
  return checkInputs(specs, Object.fromEntries(specs.map(({ name }, i) => [name, tensors[i]])));
}

/** Not by writeSync: a worker's stdout is led to this process's, which then does not block. */
async function send(header, parts = []) {
  const nbytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
  const text = Buffer.from(JSON.stringify(nbytes ? { ...header, payload: nbytes } : header));
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32LE(text.length);
  for (const part of [length, text, ...parts]) {
    const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
    await new Promise((resolve) => process.stdout.write(bytes, resolve));
  }
}

async function answer(request, payload) {
  try {
    if (!Object.hasOwn(answers, request.do)) throw new Error(`there is no request ${request.do}`);
    const { ok, payload: parts } = await answers[request.do](request, payload);
    await send({ ok }, parts);
  } catch (error) {
    // What is none of the graph's errors is one of this program's; stderr has all of it.
    if (!(error instanceof WasmgraphError)) console.error(error);
    const { kind = "InferenceError", ...rest } = pack(error);
    await send({ error: { kind, ...rest } });
  }
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
    const nbytes = (await take(LENGTH_BYTES)).readUInt32LE();
    if (nbytes > MAX_HEADER_BYTES) throw new Error(`a header of ${nbytes} bytes`);
    const header = JSON.parse(await take(nbytes));
    yield [header, await take(header.payload ?? 0)];
  }
}

process.stdout.on("error", () => process.exit(1)); // nobody listens any more
await send({
  host: "node",
  version: process.version,
  protocol: PROTOCOL,
  capabilities: {
    simd: validates(SIMD),
    relaxed_simd: validates(RELAXED),
    threads: true,
    memory_limit: true,
    time_limit: true,
  },
});
for await (const [header, payload] of frames(process.stdin)) await answer(header, payload);
