// onnxruntime-web, its wasm backend, in Node.

import { read, serve } from "./serve.mjs";

const ARRAYS = {
  bool: Uint8Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  float16: globalThis.Float16Array ?? Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  float32: Float32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  float64: Float64Array,
};

await serve({
  async imports() {
    const ort = await import("onnxruntime-web");
    ort.env.logLevel = "error";
    return async (model, threads) => {
      ort.env.wasm.numThreads = threads;
      const session = await ort.InferenceSession.create(read(model), {
        executionProviders: ["wasm"],
        logSeverityLevel: 3,
      });
      const tensor = ({ name, dtype, shape, bytes }) => [
        name,
        new ort.Tensor(dtype, new ARRAYS[dtype](bytes.buffer), shape),
      ];
      return {
        prepare: (tensors) => Object.fromEntries(tensors.map(tensor)),
        run: (feeds) => session.run(feeds),
        tensors: (outputs) =>
          session.outputNames.map((name) => {
            const { type, dims, data } = outputs[name];
            const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
            return { name, dtype: type, shape: dims, bytes };
          }),
      };
    };
  },
});
