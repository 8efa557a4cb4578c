// The graphs of tests/hostile_graphs.py, of which HOSTILE names the manifest.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { WasmgraphError, load } from "../../toolchain/javascript/src/index.js";
import { decode, encode } from "./tensors.mjs";

const folder = path.dirname(process.env.HOSTILE);

async function outcome({ file, inputs, memory, seconds }) {
  let graph;
  try {
    graph = await load(path.join(folder, file), {
      maxMemory: memory ?? undefined,
      timeout: seconds === null ? undefined : 1e3 * seconds,
    });
    return { outputs: encode(await graph.run(decode(inputs))) };
  } catch (error) {
    assert.ok(error instanceof WasmgraphError, error);
    assert.ok(error.message.length < 70_000);
    assert.doesNotMatch(error.message, /[\0-\x09\x0b-\x1f\x7f]/);
    return { kind: error.kind };
  } finally {
    graph?.close();
  }
}

for (const { name, kind, outputs, ...graph } of JSON.parse(readFileSync(process.env.HOSTILE))) {
  test(name, async () => assert.deepEqual(await outcome(graph), kind ? { kind } : { outputs }));
}
