"""A graph that traps does not take the process with it, whenever TVM was loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.runtime.wat_graphs import WatGraph

CHECKOUT = Path(__file__).resolve().parents[1]
READS_BEYOND = "(func $wg_run (result i32) (i32.load (i32.const 0x10000000)))"

PROGRAM = """
import sys
import numpy as np
import wasmgraph

def run(graph):
    try:
        graph.run({"x": np.zeros(4, np.float32)})
    except wasmgraph.errors.InferenceError:
        print("trapped", "tvm_ffi" in sys.modules, flush=True)

with wasmgraph.load(sys.argv[1]) as graph:
    run(graph)
    wasmgraph.compile(sys.argv[2], sys.argv[3], verify=False)
    run(graph)
"""


def test_a_trap_stays_a_trap_after_a_model_was_compiled(digits_onnx: Path, tmp_path: Path) -> None:
    graph = WatGraph(functions={"wg_run": READS_BEYOND}).write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, graph, digits_onnx, tmp_path / "digits.wasm"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "trapped False\ntrapped True\n"), done.stderr
