// The sample's graph, DIGITS, on an image and what Wasmtime makes of it, both in GIVEN.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";

import { load, tensor } from "../../toolchain/javascript/src/index.js";

const { DIGITS } = process.env;
const given = JSON.parse(readFileSync(process.env.GIVEN));
const image = Float32Array.from(given.image);
const probabilities = { data: Float32Array.from(given.probabilities), shape: [1, 10], dtype: "float32" };

let graph;
before(async () => {
  graph = await load(DIGITS);
});
after(() => graph.close());

const isRight = async (of) => assert.deepEqual(await of.run({ image }), { probabilities });

test("it says what it takes and gives", () => {
  assert.deepEqual(graph.inputs, [{ name: "image", dtype: "float32", shape: [1, 1, 8, 8] }]);
  assert.deepEqual(graph.outputs, [{ name: "probabilities", dtype: "float32", shape: [1, 10] }]);
  assert.equal(graph.metadata.model.opset, 17);
});

test("it gives Wasmtime's bits", () => isRight(graph));

test("an array, a tensor and numbers are the same input", async () => {
  for (const same of [tensor(image, [1, 1, 8, 8]), given.image, { data: given.image, shape: [1, 1, 8, 8] }]) {
    assert.deepEqual(await graph.run({ image: same }), { probabilities });
  }
});

test("a view on a larger buffer is its own part only", async () => {
  const larger = new Float32Array(100).fill(7);
  larger.set(image, 10);
  assert.deepEqual(await graph.run({ image: larger.subarray(10, 74) }), { probabilities });
});

test("runs that overlap do not mix", async () => {
  const zeros = new Float32Array(64);
  const alone = await graph.run({ image: zeros });
  const both = await Promise.all([graph.run({ image }), graph.run({ image: zeros })]);
  assert.deepEqual(both, [{ probabilities }, alone]);
});

const wrong = [
  ["a missing input", {}, /input image: float32\[1, 1, 8, 8\] is missing/],
  ["an input too many", { image, imago: image }, /no input named 'imago'/],
  ["another dtype", { image: tensor(image, [1, 1, 8, 8], "float32"), x: 1 }, /no input named 'x'/],
  ["an array of another class", { image: new Float64Array(64) }, /expected float32\[1, 1, 8, 8\] in a Float32Array of 64, found .* in a Float64Array of 64/],
  ["another length", { image: new Float32Array(63) }, /in a Float32Array of 64, found .* in a Float32Array of 63/],
  ["another shape", { image: tensor(image, [64]) }, /expected float32\[1, 1, 8, 8\] .* found float32\[64\]/],
  ["a tensor of another dtype", { image: { ...tensor(image, [1, 1, 8, 8]), dtype: "int8" } }, /expected float32\[1, 1, 8, 8\] .* found int8\[1, 1, 8, 8\]/],
  ["numbers that do not fit", { image: new Array(64).fill(1e300) }, /1e\+300 does not fit into float32/],
  ["texts", { image: new Array(64).fill("1") }, /the value 1 does not fit into float32/],
  ["nothing", undefined, /is missing/],
  ["null instead of inputs", null, /is missing/],
  ["null", { image: null }, /the value null does not fit into float32/],
];
for (const [name, inputs, message] of wrong) {
  test(`${name} is an InputError`, async () => {
    await assert.rejects(graph.run(inputs), { name: "InputError", kind: "InputError", message });
    await isRight(graph); // and no harm done
  });
}

test("all problems are told at once, and what the graph takes", async () => {
  await assert.rejects(graph.run({ imago: image, imagine: image }), {
    message: "there is no input named 'imago'\nthere is no input named 'imagine'\ninput image: float32[1, 1, 8, 8] is missing",
    hint: "the graph takes image: float32[1, 1, 8, 8]",
  });
});

test("bytes, a buffer, URLs and a Response are sources", async () => {
  const bytes = readFileSync(DIGITS);
  const copy = new Uint8Array(bytes);
  const url = pathToFileURL(DIGITS);
  for (const source of [bytes, copy.buffer, url, url.href, new Response(copy)]) {
    const loaded = await load(source);
    await isRight(loaded);
    loaded.close();
  }
});

test("a server's MIME type does not matter, and its errors are told", async () => {
  const server = createServer((request, answer) => {
    if (request.url !== "/digits") return answer.writeHead(404).end("<html>");
    answer.writeHead(200, { "content-type": "text/html" }).end(readFileSync(DIGITS));
  }).listen(0);
  await new Promise((resolve) => server.once("listening", resolve));
  const base = `http://localhost:${server.address().port}`;
  const loaded = await load(`${base}/digits`);
  await isRight(loaded);
  loaded.close();
  await assert.rejects(load(`${base}/else`), { kind: "LoadError", message: `${base}/else: the server answered 404 Not Found` });
  server.closeAllConnections();
  server.close();
  await assert.rejects(load(`${base}/digits`, { cache: false }), { kind: "LoadError", message: /cannot be read/ });
});

test("what is no graph is a LoadError", async () => {
  await assert.rejects(load("/nowhere/digits.wasm"), { kind: "LoadError", message: /ENOENT/ });
  await assert.rejects(load(new TextEncoder().encode("<!doctype html>")), { kind: "LoadError", message: /magic word/ });
  await assert.rejects(load(new Response("<!doctype html>")), { kind: "LoadError", message: /magic word/ });
});

test("a damaged byte of code is a LoadError", async () => {
  const bytes = new Uint8Array(readFileSync(DIGITS));
  await assert.rejects(load(bytes.subarray(0, bytes.length >> 1)), { kind: "LoadError", message: /not a valid WebAssembly module/ });
});

test("loading can be given up", async () => {
  await assert.rejects(load(DIGITS, { signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("what makes no sense is a RangeError", async () => {
  for (const options of [{ threads: 0 }, { threads: 1.5 }, { maxMemory: -1 }]) {
    await assert.rejects(load(DIGITS, options), RangeError);
  }
});

test("in a worker it gives the same", async () => {
  const away = await load(DIGITS, { worker: true });
  await isRight(away);
  await isRight(away);
  away.close();
});

test("a time limit takes a graph to a worker, where it goes on", async () => {
  const loaded = await load(DIGITS);
  assert.deepEqual(await loaded.run({ image }, { timeout: 60_000 }), { probabilities });
  await isRight(loaded);
  loaded.close();
});

test("more threads than it was compiled for are refused", async () => {
  await assert.rejects(load(DIGITS, { threads: 2 }), { kind: "LoadError", message: /compiled for one thread, not for 2/ });
});

test("memory that is too little to start with is refused", async () => {
  await assert.rejects(load(DIGITS, { maxMemory: 65536 }), { kind: "MemoryLimitExceeded", message: /to start with/ });
});

test("a closed graph does not run", async () => {
  const loaded = await load(DIGITS);
  loaded.close();
  loaded.close();
  await assert.rejects(loaded.run({ image }), /is closed/);
});

test("a graph in a worker that nobody closed keeps no process alive", () => {
  const index = new URL("../../toolchain/javascript/src/index.js", import.meta.url);
  const script = `
    import { load } from ${JSON.stringify(index.href)};
    const graph = await load(${JSON.stringify(DIGITS)}, { worker: true });
    console.log(Object.keys(await graph.run({ image: new Float32Array(64) })).join());`;
  const said = execFileSync(process.execPath, ["--input-type=module", "-e", script], { timeout: 60_000 });
  assert.equal(said.toString().trim(), "probabilities");
});
