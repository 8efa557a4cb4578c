// One instantiated graph in this thread: tensors in, run, tensors out, and what went wrong.
//
// Nothing that the graph says is believed: every address, length, rank and text is checked against its memory
// before it is touched. wasmgraph/runtime/wasmtime_instance.py is the same under Wasmtime.

import { fail } from "./errors.js";
import { ABI } from "./metadata.js";
import { ARRAYS, isKnown, sizeOf } from "./tensor.js";
import { link } from "./wasi.js";

/** What the graph says, 64 KiB at most. Of a copy: shared memory cannot be decoded. */
const decode = (bytes) => new TextDecoder().decode(bytes.slice(0, 65536));

/**
 * Instantiate a program (see program.js). After an error it is of no further use.
 *
 * `run(tensors)` takes what `takeInputs` gives, and gives `{outputs}`: tensors that are the caller's. Whatever these throw is
 * a problem. `call(name, ...)` is a function of the ABI, and throws what the engine does.
 */
export const startGuest = async (program) => {
  const { module, metadata, shared, threads } = program;
  const { inputs, outputs } = metadata;
  let stderr = "";

  /** What `work()` gives. What the engine throws while the graph runs is a problem, too; all of them tell what is known. */
  const watched = async (work) => {
    try {
      return await work();
    } catch (error) {
      throw { code: "trapped", facts: [error.message, error.stack], ...error, stderr, program };
    }
  };

  return watched(async () => {
    const { memory, exports } = await link(module, shared && new WebAssembly.Memory(shared), (bytes) => {
      stderr = (stderr + decode(bytes)).slice(-4096);
    });
    /** Call an export whose result is an address, a size or a code: as an unsigned number. */
    const call = (name, ...values) => exports[name](...values) >>> 0;
    /** Bytes in the graph's memory, good until it runs again: those of its i-th input, say. */
    const view = (what, i, address, length) => {
      try {
        return new Uint8Array(memory.buffer, address, length);
      } catch {
        fail("outside", what, i, address, length, memory.buffer.byteLength);
      }
    };
    /** Stop with what the graph says of its own failure in a function. */
    const report = (name, i) => fail("failed", decode(view("error", 0, call("wg_error"), call("wg_error_len"))), name, i);
    /** As `call`, of a function that gives an address, or 0 where it fails. */
    const need = (name, ...values) => call(name, ...values) || report(name, ...values);

    exports._initialize?.();
    if (call("wg_abi") !== ABI) fail("ABI");
    const isOpen = [...inputs, ...outputs].some(({ shape }) => !shape.every(isKnown));
    const open = isOpen && (await import("./open.js")).shapes(need, call, view, report);
    const crew = threads > 1 && (await (await import("./crew.js")).start(threads, module, metadata, memory, call, need));
    return {
      memory,
      call,
      run: (tensors) =>
        watched(async () => {
          stderr = "";
          inputs.forEach((spec, i) => {
            const { data, shape } = tensors[i];
            // -1: the shape is the one compiled in.
            const address = need("wg_input", i, ...(open ? open.put(spec, shape) : [0, -1]));
            view("input", i, address, data.length).set(data);
          });
          const code = crew ? await crew.work() : call("wg_run");
          if (code) report("wg_run", code);
          return {
            outputs: outputs.map((spec, i) => {
              const { dtype } = spec;
              const address = need("wg_output", i);
              const shape = open ? open.get(spec, i) : [...spec.shape];
              // A copy, in a buffer that is not shared.
              const { buffer } = view("output", i, address, sizeOf(shape, dtype)).slice();
              return { data: new ARRAYS[dtype](buffer), shape, dtype };
            }),
          };
        }),
      ...crew, // its `close`, if there is one
    };
  });
};
