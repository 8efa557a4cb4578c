// What a host does with each request of Python, under Node and on a page alike; and how messages are framed.
//
// A frame is the length of a JSON header (u32, little-endian), the header, and `header.payload` bytes.
// wasmgraph/runtime/protocol.py and hosted.py are the other side. A process or page has one graph; every instance
// lives in a worker, so that a run whose time is over can be ended.

import { InferenceError, WasmgraphError } from "./src/errors.js";
import { pack } from "./src/packed.js";
import { prepare } from "./src/program.js";
import { startRemote } from "./src/remote.js";
import { ARRAYS, checkInputs, sizeOf } from "./src/tensor.js";

export const LENGTH_BYTES = 4;
const PROTOCOL = 1;
const MAX_HEADER_BYTES = 1 << 24;

// Smallest modules with an instruction of 128 bits, and with a relaxed one.
const SIMD = "AGFzbQEAAAABBQFgAAF7AwIBAAoKAQgAQQD9D/1iCw==";
const RELAXED = "AGFzbQEAAAABBQFgAAF7AwIBAAoPAQ0AQQD9D0EA/Q/9gAIL";
const validates = (base64) => WebAssembly.validate(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));

const instances = new Map();
let program;
let timeout;
let made = 0;

const answers = {
  async load({ path, threads, memory, seconds, cache }) {
    const began = performance.now();
    timeout = seconds === null ? undefined : 1e3 * seconds;
    program = await prepare(path, { threads, maxMemory: memory ?? undefined, cache });
    return { ok: { load_ms: performance.now() - began } };
  },
  async instantiate() {
    const began = performance.now();
    const instance = ++made;
    instances.set(instance, await startRemote(program, timeout));
    return { ok: { instance, ms: performance.now() - began } };
  },
  async run({ instance, inputs }, payload) {
    const tensors = unpackTensors(inputs, payload);
    const { outputs, ms } = await closing(instance, (guest) => guest.run(tensors, timeout));
    const described = outputs.map(({ dtype, shape }) => ({ dtype, shape }));
    return { ok: { outputs: described, ms }, parts: outputs.map(({ data }) => data) };
  },
  async step({ instance, index, times }) {
    const exports = WebAssembly.Module.exports(program.module);
    if (!exports.some(({ name }) => name === "wg_step")) {
      throw new InferenceError("the graph cannot run its steps one by one", "compile the model again");
    }
    const began = performance.now();
    const { code } = await closing(instance, (guest) => guest.call("wg_step", index, times));
    if (code) throw new InferenceError(`step ${index} failed with code ${code | 0}`);
    return { ok: { ms: performance.now() - began } };
  },
  async close({ instance }) {
    instances.get(instance)?.close();
    instances.delete(instance);
    return { ok: {} };
  },
};

/** The host's first message. */
export function hello(host, version) {
  const capabilities = {
    simd: validates(SIMD),
    relaxed_simd: validates(RELAXED),
    threads: true,
    memory_limit: true,
    time_limit: true,
  };
  return frame({ host, version, protocol: PROTOCOL, capabilities });
}

/** The answer to a request, framed. */
export async function answer(request, payload) {
  try {
    if (!Object.hasOwn(answers, request.do)) throw new Error(`there is no request ${request.do}`);
    const { ok, parts } = await answers[request.do](request, payload);
    return frame({ ok }, parts);
  } catch (error) {
    // What is none of the graph's errors is one of this program's; the console has all of it.
    if (!(error instanceof WasmgraphError)) console.error(error);
    const { kind = "InferenceError", ...rest } = pack(error);
    return frame({ error: { kind, ...rest } });
  }
}

/** A header and its payload as pieces of bytes. */
export function frame(header, parts = []) {
  const payload = parts.map((part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  const nbytes = payload.reduce((sum, part) => sum + part.byteLength, 0);
  const text = new TextEncoder().encode(JSON.stringify(nbytes ? { ...header, payload: nbytes } : header));
  const length = new Uint8Array(LENGTH_BYTES);
  new DataView(length.buffer).setUint32(0, text.length, true);
  return [length, text, ...payload];
}

/** The length of the header that these four bytes announce. */
export function headerBytes(head) {
  const nbytes = new DataView(head.buffer, head.byteOffset).getUint32(0, true);
  if (nbytes > MAX_HEADER_BYTES) throw new Error(`a header of ${nbytes} bytes`);
  return nbytes;
}

/** A header from its bytes. */
export const parseHeader = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

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
    const end = at + sizeOf(shape, dtype);
    const bytes = new Uint8Array(payload.subarray(at, end));
    at = end;
    return { data: new ARRAYS[dtype](bytes.buffer), shape, dtype };
  });
  return checkInputs(specs, Object.fromEntries(specs.map(({ name }, i) => [name, tensors[i]])));
}
