// Runs a translated component on named tensors, for test_jco.py.
//
//   node run_translated.mjs MODULE.js < requests.json > answers.json
//
// Each request is a list of {name, dtype, shape, base64}; its answer {tensors} in the same form, or
// {error: {tag, val}}.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { model } = await import(pathToFileURL(process.argv[2]));

const given = ({ name, dtype, shape, base64 }) => {
  const bytes = new Uint8Array(Buffer.from(base64, "base64"));
  return { name, tensor: { dtype, shape: new Uint32Array(shape), bytes } };
};
const taken = ({ name, tensor: { dtype, shape, bytes } }) => {
  return { name, dtype, shape: [...shape], base64: Buffer.from(bytes).toString("base64") };
};
const answers = JSON.parse(readFileSync(0)).map((tensors) => {
  try {
    return { tensors: model.run(tensors.map(given)).map(taken) };
  } catch (error) {
    if (error.payload === undefined) throw error;
    return { error: error.payload };
  }
});
console.log(JSON.stringify({ answers, describe: model.describe() }));
