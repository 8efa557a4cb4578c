// The errors a caller can act on. Their kinds are those of wasmgraph/errors.py.
//
// Inside the package what goes wrong is thrown as a problem, `{code, facts}`: data that travel between threads, too. Which
// kind of error it is, the place says where it is caught, if the problem itself does not (`kind`). Its words are in
// words.js, a chunk that comes with the first problem: a program without any does not need them.

/** What every error on purpose is: `kind` says which, `hint` is the way out where there is one. */
export class WasmgraphError extends Error {
  hint = null;
}

const KINDS = {};

// A minifier renames classes, so each is told its kind.
const define = (kind) =>
  (KINDS[kind] = class extends WasmgraphError {
    static name = kind;
    name = kind;
    kind = kind;
  });

export const LoadError = define("LoadError");
export const InputError = define("InputError");
export const InferenceError = define("InferenceError");
export const MemoryLimitExceeded = define("MemoryLimitExceeded");
export const RunTimeout = define("RunTimeout");

/** Stop with a problem. Where words.js cannot be loaded its code is the message, and it the error's cause. */
export const fail = (code, ...facts) => {
  throw { code, facts };
};

/** What `work()` gives; its problems become errors, of the class `Kind` unless they say another. */
export const explained = (Kind, work) =>
  work().catch(async (problem) => {
    throw problem?.facts
      ? await import("./words.js").then(
          (words) => words.word(problem, Kind, KINDS),
          () => new Kind(problem.code, { cause: problem }),
        )
      : problem;
  });
