// Tensors as the tests' JSON files have them: "name", "dtype", "shape", and their bytes as base64.

import { ARRAYS } from "../../toolchain/javascript/src/tensor.js";

/** A list of such tensors as what `run` takes. */
export function decode(tensors) {
  return Object.fromEntries(
    tensors.map(({ name, dtype, shape, data }) => {
      const bytes = new Uint8Array(Buffer.from(data, "base64"));
      return [name, { data: new ARRAYS[dtype](bytes.buffer), shape, dtype }];
    }),
  );
}

/** What `run` gave as such a list. */
export function encode(tensors) {
  return Object.entries(tensors).map(([name, { data, shape, dtype }]) => {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    return { name, dtype, shape, data: bytes.toString("base64") };
  });
}
