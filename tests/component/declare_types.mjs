// Prints the TypeScript that jco makes of a WIT file, for test_jco.py.
//
//   node declare_types.mjs PACKAGE_FOLDER INFERENCE.wit
//
// `jco types` 1.35 cannot open any file; this hands it the text.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const jco = createRequire(`${process.argv[2]}/package.json`).resolve("@bytecodealliance/jco");
const inner = createRequire(jco).resolve("@bytecodealliance/jco-transpile/component");
const { $init, generateTypes } = await import(pathToFileURL(inner));
await $init;
const wit = { tag: "source", val: readFileSync(process.argv[3], "utf8") };
const options = { wit, tlaCompat: false, world: "graph", features: null, guest: false };
const files = generateTypes("graph", options);
const [, interface_] = files.find(([name]) => name.includes("model"));
process.stdout.write(interface_);
