// Files, outside browsers.

import { node } from "./spawn.js";

/** The bytes of a path or a file: URL, as source.js gives them. */
export async function read(path, signal) {
  const { readFile } = await node("fs/promises");
  return { bytes: await readFile(/^file:/i.test(path) ? new URL(path) : path, { signal }) };
}
