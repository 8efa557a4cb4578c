"""Commands that misbehave, in the place of an engine's: what they write is not believed either."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

import wasmgraph
from tests.runtime.test_host_process import is_running
from tests.runtime.wat_graphs import WatGraph
from wasmgraph.errors import (
    InferenceError,
    LoadError,
    MemoryLimitExceeded,
    RunTimeout,
    ToolchainError,
)
from wasmgraph.metadata import TensorInfo
from wasmgraph.runtime.base import TensorSpec
from wasmgraph.runtime.npy_files import read_tensor, write_tensor
from wasmgraph.runtime.registry import examine_engines

X = {"x": np.arange(4, dtype=np.float32)}
Y = TensorSpec("y", "float32", (4,))

# Takes the arguments that wasmtime's command gets, and answers those without sense as it does.
COMMAND = """
import sys, time
from pathlib import Path

if sys.argv[1:] == ["compile"]:
    sys.stderr.write("error: the following required arguments were not provided:\\n  <MODULE>")
    sys.exit(2)
import numpy as np

if sys.argv[1] == "compile":
    Path(sys.argv[3]).write_bytes(Path(sys.argv[4]).read_bytes())
    COMPILE
    sys.exit(0)
opened = next(a for a in sys.argv if a.startswith("--dir="))
folder = Path(opened.removeprefix("--dir=").split("::")[0])
out = folder / "out0.npy"
RUN
"""

Pretend = Callable[..., wasmgraph.Graph]


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretend]:
    """Loads a graph on a "wasmtime" that does this when it is to run it, or to compile it."""
    monkeypatch.setenv("WASMGRAPH_WASMTIME", str(tmp_path / "wasmtime"))
    with ExitStack() as stack:

        def load(
            run: str, compiling: str = "pass", graph: WatGraph | None = None, **limits: float
        ) -> wasmgraph.Graph:
            program = tmp_path / "wasmtime"
            text = COMMAND.replace("COMPILE", compiling).replace("RUN", run)
            program.write_text(f"#!{sys.executable}\n{text}")
            program.chmod(0o755)
            path = (graph or WatGraph()).write(tmp_path)
            loaded = wasmgraph.load(path, runtime="wasmtime-cli", **limits)
            return stack.enter_context(loaded)

        yield load


def test_tensors_go_there_and_back_as_files(pretend: Pretend) -> None:
    graph = pretend("np.save(out, np.load(folder / 'in0.npy') * 2)")
    for _ in range(2):
        np.testing.assert_array_equal(graph.run(X)["y"], 2 * X["x"])
    assert graph.load_ms > 0
    assert graph.run_ms > 0


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ("pass", "wrote no output 'y'"),
        ("out.mkdir()", "not NPY"),
        ("out.write_text('nonsense')", "not NPY"),
        ("np.save(out, np.zeros(4))", "wrote float64"),
        ("np.save(out, np.zeros(5, np.float32))", r"wrote float32\[5\]"),
        ("np.save(out, np.zeros((2, 2), np.float32, order='F'))", "wrote float32"),
        ("np.save(out, np.zeros(4, np.float32)); out.open('ab').write(b'x')", "16 bytes"),
        ("np.save(out, np.zeros(4, np.float32)); out.open('r+b').truncate(140)", "16 bytes"),
        ("np.save(out, np.array([{}]), allow_pickle=True)", "wrote object"),
        ("sys.exit('no luck')", "no luck"),
        ("sys.stderr.write('x' * 10_000_000 + 'the end'); sys.exit(3)", "the end"),
        ("sys.stderr.write('\\x1b[2Jbad'); sys.exit(3)", "bad"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_what_a_command_does_wrong_is_an_inference_error(
    pretend: Pretend, run: str, reason: str
) -> None:
    with pytest.raises(InferenceError, match=reason) as caught:
        pretend(run).run(X)
    assert len(caught.value.message) < 10_000
    assert "\x1b" not in caught.value.message


# Of Wasmtime 48, with exit code 134.
TRAPPED = """thread 'main' has spoken
Error: failed to run main module `/tmp/wasmgraph-hj9qw1a2/graph.cwasm`

Caused by:
    0: failed to invoke command default
    1: error while executing at wasm backtrace:
    0:    0x471 - <unknown>!trap
    1:    0x468 - <unknown>!<wasm function 14>
    2: wasm trap: wasm `unreachable` instruction executed
"""


def test_of_a_trap_only_the_cause_is_told(pretend: Pretend) -> None:
    with pytest.raises(InferenceError) as caught:
        pretend(f"sys.stderr.write({TRAPPED!r}); sys.exit(134)").run(X)
    assert caught.value.message == (
        "the graph failed under wasmtime-cli: thread 'main' has spoken\n"
        "wasm trap: wasm `unreachable` instruction executed"
    )


def test_a_shape_that_lies_is_an_inference_error(pretend: Pretend) -> None:
    any_shape = WatGraph(outputs=(TensorInfo("y", "float32", ("...",)),))
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 0, 8), }"
    run = f"""
text = {header!r}.ljust(117) + chr(10)
out.write_bytes(bytes([147]) + b"NUMPY" + bytes([1, 0, 118, 0]) + text.encode())
"""
    with pytest.raises(InferenceError, match="wrote float32"):
        pretend(run, graph=any_shape).run(X)


def test_a_command_without_end_is_ended(pretend: Pretend) -> None:
    for hangs in ("time.sleep(600)", "import os; os.close(2); time.sleep(600)"):
        with pytest.raises(RunTimeout, match=r"time limit of 0\.5 s"):
            pretend(hangs, timeout=0.5).run(X)


def test_a_failed_allocation_is_the_limits_where_there_is_one(pretend: Pretend) -> None:
    fails = "sys.exit('memory allocation of 99 bytes failed')"
    with pytest.raises(MemoryLimitExceeded, match=r"the limit is 128\.0 KiB"):
        pretend(fails, max_memory=2 * 65536).run(X)
    with pytest.raises(InferenceError):
        pretend(fails).run(X)


def test_what_does_not_compile_is_a_load_error(pretend: Pretend) -> None:
    with pytest.raises(LoadError, match=r"does not compile .*: bad module"):
        pretend("pass", "sys.exit('bad module')")
    with pytest.raises(LoadError, match="does not compile"):
        pretend("pass", "Path(sys.argv[3]).unlink()")


def test_a_wasmtime_that_cannot_compile_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As one built without its feature `compile` does, which the smallest of its releases is.
    program = tmp_path / "wasmtime"
    program.write_text("""#!/bin/sh
if [ "$1" = --version ]; then echo wasmtime 48.0.0; exit; fi
echo 'Error: failed to open wasm module "compile"' >&2
exit 1
""")
    program.chmod(0o755)
    monkeypatch.setenv("WASMGRAPH_WASMTIME", str(program))
    (status,) = examine_engines(["wasmtime-cli"])
    assert not status.available
    assert "has no command 'compile'" in status.detail
    assert status.fix
    with pytest.raises(ToolchainError, match="has no command 'compile'"):
        wasmgraph.load(WatGraph().write(tmp_path), runtime="wasmtime-cli")


def test_a_command_that_is_gone_is_a_toolchain_error(pretend: Pretend, tmp_path: Path) -> None:
    graph = pretend("pass")
    (tmp_path / "wasmtime").unlink()
    with pytest.raises(ToolchainError, match="does not run"):
        graph.run(X)


RUNS_FOREVER = """
import sys
import numpy as np
import wasmgraph
from wasmgraph.cli.background import interruptible

def run():
    with wasmgraph.load(sys.argv[1], runtime="wasmtime-cli") as graph:
        graph.run({"x": np.zeros(4, np.float32)})

try:
    interruptible(run)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_command_does_not_outlive_python(pretend: Pretend, tmp_path: Path, how: str) -> None:
    if how != "SIGINT" and shutil.which("setpriv") is None:
        pytest.skip("setpriv, which ends a process with its parent, is missing")
    started = tmp_path / "started"
    pretend(f"import os; Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(600)")
    parent = subprocess.Popen(
        [sys.executable, "-c", RUNS_FOREVER, tmp_path / "graph.wasm"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(started.read_text())
    parent.send_signal(signal.Signals[how])
    parent.wait(120)
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)
    if how == "SIGINT" and shutil.which("setpriv") is not None:
        assert not list(tmp_path.glob("wasmgraph-*"))


def test_a_command_does_not_see_the_environment(
    pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("WASMER_FORWARD_HOST_ENV", "1")
    graph = pretend("import os; sys.exit(' '.join(os.environ))")
    with pytest.raises(InferenceError) as caught:
        graph.run(X)
    assert "PATH" in caught.value.message
    assert not {"SECRET", "WASMER_FORWARD_HOST_ENV"} & set(caught.value.message.split())


def test_single_steps_are_refused(pretend: Pretend) -> None:
    graph = pretend("pass")
    with pytest.raises(InferenceError, match="single steps"):
        graph._take().run_step(0, 1)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
@pytest.mark.parametrize("dtype", ["bool", "int64", "float16", "bfloat16", "int4", "float8_e5m2"])
def test_every_dtype_and_shape_survives_a_file(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    pytest.importorskip("ml_dtypes", reason="ml_dtypes, which has the narrow dtypes, is missing")
    spec = TensorSpec("x", dtype, shape)
    value = np.ones(shape, dtype)
    write_tensor(tmp_path / "x.npy", value, spec)
    found = read_tensor(tmp_path / "x.npy", spec)
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert found.tobytes() == value.tobytes()


def test_any_bytes_are_a_tensor_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "y.npy"
    write_tensor(path, X["x"], Y)
    good = path.read_bytes()
    random = np.random.default_rng(1)
    for _ in range(300):
        bad = bytearray(good)
        for at in random.integers(0, len(good), 3):
            bad[at] = random.integers(256)
        path.write_bytes(bytes(bad[: random.integers(len(bad) + 1)]))
        with suppress(InferenceError):
            assert read_tensor(path, Y).shape == (4,)
