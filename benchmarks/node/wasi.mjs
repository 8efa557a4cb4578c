// WASI with nothing behind it: as on a machine without arguments, environment, files or clock.

const ERRNO_SUCCESS = 0;
const ERRNO_BADF = 8;
const ERRNO_NOTCAPABLE = 76;

/** The functions of `wasi_snapshot_preview1` for a graph whose memory `memory()` gives. */
export function wasiImports(memory) {
  const zeros = (...pointers) => {
    const view = new DataView(memory().buffer);
    for (const pointer of pointers) view.setUint32(pointer, 0, true);
    return ERRNO_SUCCESS;
  };
  const answers = {
    args_sizes_get: zeros,
    environ_sizes_get: zeros,
    args_get: () => ERRNO_SUCCESS,
    environ_get: () => ERRNO_SUCCESS,
    fd_prestat_get: () => ERRNO_BADF,
    fd_write(descriptor, vectors, count, written) {
      const view = new DataView(memory().buffer);
      let total = 0;
      for (let index = 0; index < count; index++) {
        const start = view.getUint32(vectors + 8 * index, true);
        const length = view.getUint32(vectors + 8 * index + 4, true);
        process.stderr.write(new Uint8Array(memory().buffer, start, length).slice());
        total += length;
      }
      view.setUint32(written, total, true);
      return ERRNO_SUCCESS;
    },
    proc_exit(code) {
      throw new Error(`the graph left with exit code ${code}`);
    },
  };
  return new Proxy(answers, { get: (known, name) => known[name] ?? (() => ERRNO_NOTCAPABLE) });
}
