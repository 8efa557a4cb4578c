// The errors a caller can act on. Their kinds are those of wasmgraph/errors.py.

/** What every error on purpose is: `kind` says which, `hint` is the way out where there is one. */
export class WasmgraphError extends Error {
  constructor(message, hint = null) {
    super(message);
    this.hint = hint;
  }
}

const KINDS = {};

/** A class by kind. A minifier renames classes, so each is told its kind. */
function define(kind) {
  const Kind = class extends WasmgraphError {
    static name = kind;
  };
  Object.assign(Kind.prototype, { name: kind, kind });
  KINDS[kind] = Kind;
  return Kind;
}

export const LoadError = define("LoadError");
export const InputError = define("InputError");
export const InferenceError = define("InferenceError");
export const MemoryLimitExceeded = define("MemoryLimitExceeded");
export const RunTimeout = define("RunTimeout");

/** An error as it travels between threads and processes. */
export const pack = ({ kind, message, hint }) => ({ kind, message, hint: hint ?? null });

/** The error that was packed; one of no kind of ours stays a plain one. */
export const unpack = ({ kind, message, hint }) => new (KINDS[kind] ?? Error)(message, hint);

/** Text from a graph without what a terminal would obey; line ends stay. */
export const printable = (text) => text.replace(/[^\P{C}\n]|\p{Zl}|\p{Zp}/gu, "\ufffd");

/** A name from a graph, in an error. */
export const quote = (name) => `'${printable(String(name))}'`;
