// A worker's side of the protocol that benchmarks/worker.py speaks: one JSON object per line, requests
// on stdin, replies on the file descriptor that the first argument names (stdout is for libraries).

import fs from "node:fs";
import path from "node:path";
import readline from "node:readline";

const replies = Number(process.argv[2]);
const now = () => performance.now();
const reply = (value) => fs.writeSync(replies, `${JSON.stringify(value)}\n`);

/**
 * Answer requests until stdin ends.
 *
 * `imports()` imports the runtime and returns `create(model, threads)`, which makes a system:
 * `prepare(tensors)` turns `{name, dtype, shape, bytes}` into what `run(inputs)` takes, `tensors`
 * turns its outputs into a list of the same kind, `details()` is whatever else there is to tell.
 */
export async function serve({ imports }) {
  let system;
  let inputs;
  let lastRun = Infinity;
  const timed = async () => {
    const began = now();
    const outputs = await system.run(inputs);
    lastRun = now() - began;
    return outputs;
  };
  const answers = {
    async load({ model, threads }) {
      const imported = now();
      const create = await imports();
      const began = now();
      system = await create(model, threads);
      return { import_ms: began - imported, load_ms: now() - began };
    },
    async first({ inputs: folder, outputs: target }) {
      inputs = system.prepare(readTensors(folder));
      const outputs = await timed();
      writeTensors(target, system.tensors(outputs));
      return { first_ms: lastRun };
    },
    async measure({ seconds, settle }) {
      const ready = now() + 1e3 * settle;
      while (lastRun < 1e3 * settle && now() < ready) await timed();
      const times = [];
      const began = now();
      const cpu = process.cpuUsage();
      do {
        await timed();
        times.push(lastRun);
      } while (now() < began + 1e3 * seconds);
      const { user, system: kernel } = process.cpuUsage(cpu);
      return { times_ms: times, seconds: { cpu: (user + kernel) / 1e6, wall: (now() - began) / 1e3 } };
    },
    async details() {
      return system.details?.() ?? {};
    },
  };
  reply({ ready: true });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { request, ...parameters } = JSON.parse(line);
    try {
      reply(await answers[request](parameters));
    } catch (error) {
      reply({ error: String(error?.message ?? error) });
    }
  }
  process.exit(0); // a system's threads would keep the process alive
}

function readTensors(folder) {
  const tensors = JSON.parse(fs.readFileSync(path.join(folder, "tensors.json"), "utf8"));
  return tensors.map((tensor) => ({ ...tensor, bytes: read(path.join(folder, tensor.file)) }));
}

function writeTensors(folder, tensors) {
  fs.mkdirSync(folder, { recursive: true });
  const described = tensors.map(({ bytes, ...tensor }, index) => {
    fs.writeFileSync(path.join(folder, `${index}.bin`), bytes);
    return { ...tensor, file: `${index}.bin` };
  });
  fs.writeFileSync(path.join(folder, "tensors.json"), JSON.stringify(described));
}

/** A file's bytes in a buffer of their own, aligned for every typed array. */
export function read(file) {
  const bytes = fs.readFileSync(file);
  return new Uint8Array(new Uint8Array(bytes).buffer);
}
