// Load a graph and run it: the package's face.

import { Guest } from "./guest.js";
import { prepare } from "./program.js";
import { Remote } from "./remote.js";
import { canWait } from "./spawn.js";
import { checkInputs } from "./tensor.js";

/** See index.d.ts. */
export async function load(source, options = {}) {
  const program = await prepare(source, options);
  const { timeout, worker = Boolean(timeout) || (program.threads > 1 && !canWait()) } = options;
  const graph = new Graph(program, worker, timeout);
  await graph.start(); // what is wrong with the graph shows while it is loaded
  return graph;
}

class Graph {
  #program;
  #isRemote;
  #timeout;
  #instance;
  #last = Promise.resolve();
  #isClosed = false;

  constructor(program, isRemote, timeout) {
    this.#program = program;
    this.#isRemote = isRemote;
    this.#timeout = timeout;
  }

  get metadata() {
    return this.#program.metadata;
  }

  get inputs() {
    return this.metadata.inputs;
  }

  get outputs() {
    return this.metadata.outputs;
  }

  get memoryBytes() {
    return this.#instance?.memoryBytes;
  }

  async start(timeout = this.#timeout) {
    const program = this.#program;
    this.#instance ??= this.#isRemote ? await Remote.start(program, timeout) : await Guest.start(program);
  }

  /** One run after the other, in the order of the calls. */
  async run(inputs, { timeout = this.#timeout } = {}) {
    if (this.#isClosed) throw new Error(`${this.#program.name} is closed`);
    const tensors = checkInputs(this.inputs, inputs);
    const outputs = await this.#queue(() => this.#run(tensors, timeout));
    return Object.fromEntries(this.outputs.map(({ name }, i) => [name, outputs[i]]));
  }

  close() {
    this.#isClosed = true;
    this.#queue(() => this.#drop());
  }

  #queue(work) {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  async #run(tensors, timeout) {
    if (timeout && !this.#isRemote) {
      // Only another thread can be stopped; the graph stays there.
      this.#drop();
      this.#isRemote = true;
    }
    try {
      await this.start(timeout);
      if (!this.#isRemote) return this.#instance.run(tensors);
      return (await this.#instance.run(tensors, timeout)).outputs;
    } catch (error) {
      // The graph stopped anywhere: nothing can be said of the state of its memory.
      this.#drop();
      throw error;
    }
  }

  #drop() {
    this.#instance?.close();
    this.#instance = undefined;
  }
}
