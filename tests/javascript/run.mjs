// Loads a graph and runs it, for tests in Python: {"file", "options", "runs"} as JSON on stdin, where a run is a
// list of tensors as in tensors.mjs. Prints a list of what each gave: such a list, or an error.

import { readFileSync } from "node:fs";

import { load } from "../../toolchain/javascript/src/index.js";
import { decode, encode } from "./tensors.mjs";

const { file, options, runs } = JSON.parse(readFileSync(0));
const results = [];
const attempt = async (work) => {
  try {
    return await work();
  } catch (error) {
    const { kind, message, hint } = error;
    if (!kind) throw error;
    results.push({ kind, message, hint });
  }
};
const graph = await attempt(() => load(file, options));
for (const inputs of graph ? runs : []) {
  await attempt(async () => results.push(encode(await graph.run(decode(inputs)))));
}
graph?.close();
console.log(JSON.stringify(results));
