// The errors a caller can act on. Their kinds are those of wasmgraph/errors.py.

/** Text of any origin without what a terminal would obey; line ends stay. */
const printable = (text) => text.replace(/(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu, "\ufffd");

/** What every error on purpose is: `kind` says which, `hint` is the way out where there is one. */
export class WasmgraphError extends Error {
  constructor(message, hint = null) {
    super(printable(message));
    this.hint = hint && printable(hint);
  }
}

const KINDS = {};

// A minifier renames classes, so each is told its kind.
const define = (kind) =>
  (KINDS[kind] = class extends WasmgraphError {
    static name = kind;
    get name() {
      return kind;
    }
    get kind() {
      return kind;
    }
  });

export const LoadError = define("LoadError");
export const InputError = define("InputError");
export const InferenceError = define("InferenceError");
export const MemoryLimitExceeded = define("MemoryLimitExceeded");
export const RunTimeout = define("RunTimeout");

/** The error of a kind; one that is none of ours is a plain one. */
export const makeError = (kind, message, hint) => new (KINDS[kind] ?? Error)(message, hint);

/** Throw one of them, in an expression too. */
export const fail = (Kind, message, hint) => {
  throw new Kind(message, hint);
};
