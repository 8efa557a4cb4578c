// What problems say, as errors: see errors.js.

/** A problem in words. Whoever uses this has them at hand, whatever comes. */
export const problem = (kind, message, hint) => ({ kind, code: "said", facts: [message, hint] });

/** Stop with one. */
export const say = (kind, message, hint) => {
  throw problem(kind, message, hint);
};

/** Text of any origin without what a terminal would obey; line ends stay. */
const printable = (text) => text.replace(/(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu, "\ufffd");

/** What happened, and what the graph said of it. */
const said = (what, text) => (text.trim() ? `${what}: ${text.trim()}` : what);

/** What a failure is by the function of the ABI that has told it; the names of inputs and outputs are by their places. */
const FAILURES = {
  wg_input: ({ inputs }, i) => `the graph rejects input '${inputs[i].name}'`,
  wg_output: ({ outputs }, i) => `the graph has no output '${outputs[i].name}'`,
  wg_output_shape: ({ outputs }, i) => `the graph gives output '${outputs[i].name}' no shape`,
  wg_alloc: () => "the graph has no memory left",
  wg_run: (_, code) => `the graph failed with code ${code | 0}`,
};

/** What else lies in a graph's memory. */
const PLACES = { error: "its error text", shape: "a shape" };

/** `{message, hint}` by code, from the facts; the metadata are there where a graph runs. */
const WORDS = {
  said: (message, hint) => ({ message, hint }),
  unreadable: (reason) => ({ message: ` cannot be read: ${reason}` }),
  invalid: (reason) => ({
    message: ` is not a valid WebAssembly module: ${reason}`,
    hint: "it may be damaged, or this engine lacks what it was compiled for: compile the model with another --simd",
  }),
  refused: ({ status, statusText }) => ({ message: `the server answered ${status} ${statusText}` }),
  "other contents": (digest, expected) => ({ message: `it has the SHA-256 ${digest}, not ${expected}` }),
  "no graph": (sections) => ({
    message: `no graph: it has ${sections} custom sections 'wasmgraph'`,
    hint: "a graph is the .wasm that `wasmgraph compile` writes",
  }),
  metadata: (metadata, like, check) => ({ message: `the graph's metadata${wrong(metadata, like, check)}` }),
  ABI: () => ({
    message: "the graph's functions are of another ABI than its metadata say",
    hint: "compile the model again",
  }),
  "no memory": () => ({ message: "the graph has no memory" }),
};

/** The same, with the metadata before the facts. */
const WORDS_OF_A_RUN = {
  failed: (metadata, text, name, i) => ({ message: said(FAILURES[name](metadata, i), text) }),
  outside: (metadata, what, i, address, nbytes, size) => {
    const place = PLACES[what] ?? `${what} '${metadata[`${what}s`][i].name}'`;
    return { message: `the graph says that ${place} (${nbytes} bytes) lies at ${address}, outside its memory of ${size} bytes` };
  },
};

/** What the engine says of a graph that it has ended, with the kernel where the stack shows it. */
function trapped([message = "an exception", stack = ""], { kernels }, stderr, what) {
  const names = stack.split(/[^\w$.]+/);
  const kernel = kernels.find(({ symbol }) => names.includes(symbol));
  const place = kernel ? ` in kernel ${kernel.symbol} (${kernel.description})` : "";
  // Every engine has its own words for it.
  const reason = /call stack|recursion/.test(message) ? "stack overflow" : message;
  return { message: said(`the graph ${what}${place}: ${reason}`, stderr) };
}

/** Where metadata are not as they should be, and what is there. */
function wrong(value, like, check, place = "") {
  if (check(value, like)) return ": a step has no kernel, a tensor is too large, or two have one name";
  for (const key in Object(value) === value ? (like.map ? value : like) : {}) {
    if (!check(value[key], like[key] ?? like[0])) return wrong(value[key], like[key] ?? like[0], check, `${place}.${key}`);
  }
  return `${place} cannot be ${Object(value) === value ? "an object or a list" : `${value}`.slice(0, 99)}`;
}

/** The error for a problem: one of the classes in `kinds`, `Kind` if the problem is of none. */
export function word(problem, Kind, kinds) {
  const { kind = Kind.name, code, facts, name, stderr = "", program = {} } = problem;
  const { metadata = { kernels: [] }, maxMemory } = program;
  const { message, hint } =
    code === "trapped"
      ? trapped(facts, metadata, stderr, kind === "LoadError" ? "cannot start" : "trapped")
      : (WORDS[code]?.(...facts) ?? WORDS_OF_A_RUN[code](metadata, ...facts));
  // The executor's texts, or Rust's allocator's.
  if (maxMemory && /out of memory|no memory left|memory allocation of/.test(message)) {
    return made(kinds.MemoryLimitExceeded, `${message}; the limit is ${maxMemory} bytes`, "allow more memory");
  }
  const colon = message[0] === " " ? "" : ": ";
  return made(kinds[kind], name === undefined ? message : `${name || "the graph"}${colon}${message}`, hint);
}

function made(Kind, message, hint) {
  const error = new Kind(printable(message));
  if (hint) error.hint = printable(hint);
  // An engine wrote its head before the error had its name.
  error.stack = error.stack?.replace(/^Error/, error.name);
  return error;
}
