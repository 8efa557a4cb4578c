// The errors a caller can act on. Their kinds are those of wasmgraph/errors.py.

/** What every error on purpose is: `kind` says which, `hint` is the way out where there is one. */
export class WasmgraphError extends Error {
  constructor(message, hint = null) {
    super(message);
    this.hint = hint;
  }
}

const KINDS = {};

// A minifier renames classes, so each is told its kind.
export const [LoadError, InputError, InferenceError, MemoryLimitExceeded, RunTimeout] = [
  "LoadError",
  "InputError",
  "InferenceError",
  "MemoryLimitExceeded",
  "RunTimeout",
].map((kind) => {
  KINDS[kind] = class extends WasmgraphError {
    static name = kind;
  };
  Object.assign(KINDS[kind].prototype, { name: kind, kind });
  return KINDS[kind];
});

/** An error as it travels between threads and processes. */
export const pack = ({ kind, message, hint = null }) => ({ kind, message, hint });

/** The error that was packed; one of no kind of ours stays a plain one. */
export const unpack = ({ kind, message, hint }) => new (KINDS[kind] ?? Error)(message, hint);

/** Text from a graph without what a terminal would obey; line ends stay. */
export const printable = (text) => text.replace(/[^\P{C}\n]|\p{Zl}|\p{Zp}/gu, "\ufffd");
