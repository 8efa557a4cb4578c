// Files, outside browsers.

import { node } from "./spawn.js";

/** The bytes of a path or a file: URL. */
export async function readBytes(path, signal) {
  const { readFile } = await node("fs/promises");
  return readFile(/^file:/i.test(path) ? new URL(path) : path, { signal });
}
