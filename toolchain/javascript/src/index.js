// The public interface; index.d.ts describes it.

export { InferenceError, InputError, LoadError, MemoryLimitExceeded, RunTimeout, WasmgraphError } from "./errors.js";
export { load } from "./graph.js";
export { fromImageData } from "./image.js";
export { tensor } from "./tensor.js";
