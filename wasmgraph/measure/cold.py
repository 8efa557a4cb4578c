"""Load a graph where nothing of it is cached: `python -m wasmgraph.measure.cold GRAPH.wasm`.

In a process of its own, since compiling native code takes memory that must not count as the
graph's. It prints the milliseconds, and leaves the native code in the user's cache.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from wasmgraph.errors import LoadError, WasmgraphError
from wasmgraph.runtime import load


def cold_load(path: Path) -> float:
    """Milliseconds of loading `path` in a new process without the cache, which it then fills.

    Raises:
        LoadError: it cannot be loaded.
    """
    done = subprocess.run(
        [sys.executable, "-m", "wasmgraph.measure.cold", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LoadError(done.stderr.strip() or f"{path} cannot be loaded")
    return float(done.stdout)


def main(path: Path) -> float:
    """Milliseconds of loading without the cache."""
    began = time.perf_counter()
    load(path, cache=False).close()
    took = time.perf_counter() - began
    load(path).close()
    return 1e3 * took


if __name__ == "__main__":
    try:
        print(main(Path(sys.argv[1])))
    except WasmgraphError as error:
        sys.exit(error.message)
