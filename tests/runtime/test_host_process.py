"""Hosts that die, babble, lie and hang: a documented error each, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.wat_graphs import WatGraph
from wasmgraph.errors import (
    InferenceError,
    InputError,
    LoadError,
    MemoryLimitExceeded,
    RunTimeout,
    ToolchainError,
)
from wasmgraph.metadata import TensorInfo
from wasmgraph.runtime.base import Limits
from wasmgraph.runtime.graph import Graph, read_graph
from wasmgraph.runtime.host_process import HostProcess
from wasmgraph.runtime.hosted_engine import HostedEngine
from wasmgraph.runtime.source import Source

FOUR = {"x": np.arange(4, dtype=np.float32)}

# Keeps to the protocol but for what a test puts in the place of one of its answers.
HOST = """
import json, os, struct, sys, time

def send(header, payload=b"", raw=None):
    text = json.dumps({**header, "payload": len(payload)}).encode() if raw is None else raw
    sys.stdout.buffer.write(struct.pack("<I", len(text)) + text + payload)
    sys.stdout.buffer.flush()

def receive():
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        sys.exit(0)
    header = json.loads(sys.stdin.buffer.read(struct.unpack("<I", head)[0]))
    return header, sys.stdin.buffer.read(header.get("payload", 0))

CAN = {"simd": True, "relaxed_simd": False, "threads": False, "memory_limit": 1, "time_limit": 0}
HELLO = {"host": "python", "version": "0.1", "protocol": 1, "capabilities": CAN}
GOOD = {"load": ({"load_ms": 1.5}, b""), "instantiate": ({"instance": 0, "ms": 2}, b""),
        "run": ({"ms": 0.5, "outputs": [{"dtype": "float32", "shape": [4]}]}, bytes(16)),
        "step": ({"ms": 0.5}, b"")}

def greet():
    send(HELLO)

def answer(request, payload):
    done, data = GOOD[request["do"]]
    send({"ok": done}, data)

MISBEHAVIOUR

greet()
while True:
    request, payload = receive()
    answer(request, payload)
"""

Start = Callable[..., Graph]


def script(folder: Path, misbehaviour: str) -> Path:
    """A host's program."""
    path = folder / "host.py"
    path.write_text(HOST.replace("MISBEHAVIOUR", textwrap.dedent(misbehaviour)))
    return path


def on_run(statement: str) -> str:
    """A host that does this in the place of a run; it may call `honest(request, payload)`."""
    return f"""
honest = answer
def answer(request, payload):
    if request["do"] != "run":
        return honest(request, payload)
    {statement}
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Loads a graph into a host that misbehaves; checks afterwards that no host is left."""
    hosts: list[HostProcess] = []

    def open_host() -> HostProcess:
        host = HostProcess("python", [sys.executable, tmp_path / "host.py"])
        hosts.append(host)
        return host

    with ExitStack() as stack:

        def load(misbehaviour: str, graph: WatGraph | None = None, **limits: float) -> Graph:
            script(tmp_path, misbehaviour)
            path = (graph or WatGraph()).write(tmp_path)
            with Source(path) as source:
                engine = HostedEngine("python", open_host)
                stack.callback(engine.close)
                file = read_graph(source)
                program = engine.load(file, Limits(**limits), cache=False)
                return stack.enter_context(Graph(file, program))

        yield load
    assert not [host.pid for host in hosts if is_running(host.pid)]


def is_running(pid: int) -> bool:
    """Whether there is such a process that is not merely waiting to be noticed as ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_an_honest_host_serves(start: Start) -> None:
    graph = start("")
    np.testing.assert_array_equal(graph.run(FOUR)["y"], np.zeros(4, np.float32))
    assert (graph.load_ms, graph.run_ms) == (1.5, 0.5)


@pytest.mark.parametrize(
    ("misbehaviour", "reason"),
    [
        ("sys.exit('no such module')", "exit code 1\nno such module"),
        ("os.kill(os.getpid(), 9)", "signal SIGKILL"),
        ("def greet(): os.close(1); time.sleep(60)", "closed its stdout"),
        ("def greet(): sys.stdout.write('Hello, I am a host'); sys.stdout.flush()", "begins"),
        ("def greet(): send({}, raw=b'\\xff\\xfe')", "not JSON"),
        ("def greet(): send({}, raw=b'[' * 100000)", "not JSON"),
        ("def greet(): send({}, raw=b'[1]')", "no JSON object"),
        ("HELLO['protocol'] = 2", "protocol 2"),
        ("HELLO['version'] = 7", "greeting"),
        ("HELLO['capabilities'] = None", "greeting"),
        ("def greet(): send(HELLO, b'more')", "announced 4 bytes"),
    ],
)
def test_a_host_that_does_not_greet_is_a_toolchain_error(
    tmp_path: Path, misbehaviour: str, reason: str
) -> None:
    path = script(tmp_path, misbehaviour)
    with pytest.raises(ToolchainError) as caught:
        HostProcess("python", [sys.executable, path])
    assert "python's host does not start" in caught.value.message
    assert reason in caught.value.message


def test_a_program_that_is_not_there_is_a_toolchain_error(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="does not run"):
        HostProcess("python", [tmp_path / "absent"])


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("print('out of luck', file=sys.stderr); os.abort()", "SIGABRT\nout of luck"),
        ("os.close(1); time.sleep(60)", "closed its stdout"),
        ("print('debugging here', flush=True)", "begins"),
        ("send({}, raw=b'{')", "not JSON"),
        ("send({'ok': {'ms': 1}, 'error': {}})", "it answered"),
        ("send({})", "it answered"),
        ("send({'ok': [1]})", "it answered"),
        ("send({'error': 'bad luck'})", "it answered"),
        ("send({'error': {'kind': 'Oops', 'message': 'x'}})", "it reported"),
        ("send({'error': {'kind': ['LoadError'], 'message': 'x'}})", "it reported"),
        ("send({'error': {'kind': 'LoadError', 'message': 7}})", "it reported"),
        ("send({'ok': {'ms': 1}})", "did not send 1 outputs"),
        ("send({'ok': {'outputs': []}})", "ms is None"),
        ("send({'ok': {'ms': -1, 'outputs': []}})", "ms is -1"),
        ("send({'ok': {'ms': float('nan'), 'outputs': []}})", "ms is nan"),
        ("send({'ok': {'ms': True, 'outputs': []}})", "ms is True"),
        ("send({'ok': GOOD['run'][0]}, bytes(15))", "too few bytes"),
        ("send({'ok': GOOD['run'][0]}, bytes(17))", "1 bytes too many"),
        ("send({}, raw=b'{\"payload\": 1e3}')", "announced 1000.0 bytes"),
        ("send({}, raw=b'{\"payload\": -1}')", "announced -1 bytes"),
        ("send({}, raw=b'{\"payload\": 1099511627776}')", "announced 1099511627776 bytes"),
        ("sys.stdout.buffer.write(b'\\xff' * 4); sys.stdout.flush()", "begins"),
    ],
)
def test_a_host_that_fails_in_a_run_is_an_inference_error(
    start: Start, statement: str, reason: str
) -> None:
    graph = start(on_run(statement))
    with pytest.raises(InferenceError) as caught:
        graph.run(FOUR)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "output",
    [
        {"dtype": "float32", "shape": [2, 2]},
        {"dtype": "float32", "shape": [-4]},
        {"dtype": "float32", "shape": [4.0]},
        {"dtype": "float32", "shape": [True]},
        {"dtype": "float32", "shape": 4},
        {"dtype": "float64", "shape": [4]},
        {"dtype": ["float32"], "shape": [4]},
        {"shape": [4]},
        "float32",
    ],
)
def test_an_output_of_another_kind_is_an_inference_error(start: Start, output: object) -> None:
    graph = start(on_run(f"send({{'ok': {{'ms': 1, 'outputs': [{output!r}]}}}}, bytes(16))"))
    with pytest.raises(InferenceError, match=r"output '?y"):
        graph.run(FOUR)


@pytest.mark.parametrize("shape", [[0, 2**62, 2**62], [2**40, 2**40], [4, 4]])
def test_a_shape_that_lies_is_an_inference_error(start: Start, shape: list[int]) -> None:
    output = {"dtype": "float32", "shape": shape}
    open_axes = WatGraph(outputs=(TensorInfo("y", "float32", ("...",)),))
    lie = on_run(f"send({{'ok': {{'ms': 1, 'outputs': [{output!r}]}}}}, bytes(16))")
    with pytest.raises(InferenceError, match=r"output '?y"):
        start(lie, open_axes).run(FOUR)


@pytest.mark.parametrize(
    "kind", [InferenceError, InputError, LoadError, MemoryLimitExceeded, RunTimeout]
)
def test_an_error_keeps_its_kind_and_loses_what_a_terminal_obeys(
    start: Start, kind: type[Exception]
) -> None:
    error = {"kind": kind.__name__, "message": "it \x1b[2J failed", "hint": "try\x07again"}
    graph = start(on_run(f"send({{'error': {error!r}}})"))
    with pytest.raises(kind) as caught:
        graph.run(FOUR)
    assert "failed" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert getattr(caught.value, "hint", "") == "try\N{REPLACEMENT CHARACTER}again"


def test_after_an_error_the_next_run_has_a_host_of_its_own(start: Start, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    graph = start(
        on_run(f"""
    if os.path.exists({str(mark)!r}):
        return honest(request, payload)
    open({str(mark)!r}, "w").close()
    sys.exit(1)""")
    )
    with pytest.raises(InferenceError):
        graph.run(FOUR)
    assert graph.run(FOUR)["y"].shape == (4,)


def test_a_host_that_does_not_answer_is_ended_after_the_time_limit(start: Start) -> None:
    graph = start(on_run("time.sleep(600)"), seconds=0.1)
    began = time.monotonic()
    with pytest.raises(RunTimeout, match=r"time limit of 0\.1 s"):
        graph.run(FOUR)
    assert time.monotonic() - began < 300  # it did not wait for the host


def test_a_host_that_was_ready_too_late_is_a_timeout_too(start: Start) -> None:
    late = "send({'ok': {**GOOD['run'][0], 'ms': 101}}, bytes(16))"
    with pytest.raises(RunTimeout):
        start(on_run(late), seconds=0.1).run(FOUR)


def test_a_host_that_reads_nothing_does_not_hold_up_a_large_input(start: Start) -> None:
    large = WatGraph(inputs=(TensorInfo("x", "float32", (1 << 20,)),))
    deaf = """
honest = answer
def answer(request, payload):
    honest(request, payload)
    if request["do"] == "instantiate":
        time.sleep(600)
"""
    graph = start(deaf, large, seconds=0.1)
    with pytest.raises(RunTimeout):
        graph.run({"x": np.zeros(1 << 20, np.float32)})


def test_a_host_that_answers_unasked_is_not_believed(start: Start) -> None:
    eager = """
honest = answer
def answer(request, payload):
    honest(request, payload)
    if request["do"] == "instantiate":
        send({"ok": GOOD["run"][0]}, bytes(16))
        time.sleep(600)
"""
    graph = start(eager)
    time.sleep(0.3)  # for the answer to be there; where it is not, the run takes it for its own
    with pytest.raises(InferenceError, match="before it was asked"):
        graph.run(FOUR)


def test_a_host_that_fails_to_load_is_a_load_error(start: Start) -> None:
    with pytest.raises(LoadError, match="exit code 5"):
        start("def answer(request, payload): sys.exit(5)")
    with pytest.raises(LoadError, match="not a graph at all"):
        start(
            "def answer(request, payload): "
            "send({'error': {'kind': 'LoadError', 'message': 'not a graph at all'}})"
        )


def test_an_instance_without_a_number_is_a_load_error(start: Start) -> None:
    with pytest.raises(LoadError, match="named the instance"):
        start("GOOD['instantiate'] = ({'ms': 1, 'instance': '0'}, b'')")


def test_much_on_stderr_holds_nothing_up_and_its_end_is_kept(start: Start) -> None:
    chatty = on_run("sys.stderr.write('x' * 10_000_000 + 'the reason'); sys.exit(1)")
    with pytest.raises(InferenceError) as caught:
        start(chatty).run(FOUR)
    assert caught.value.message.endswith("the reason")
    assert len(caught.value.message) < 10_000


def test_a_forked_child_does_not_end_its_parents_host(start: Start) -> None:
    graph = start("")
    graph.run(FOUR)
    child = os.fork()
    if child == 0:
        failed = 1
        try:
            with pytest.raises(InferenceError, match="forked"):
                graph.run(FOUR)
            graph.run(FOUR)  # on a host of its own
            graph.close()
            failed = 0
        finally:
            os._exit(failed)
    assert os.waitpid(child, 0)[1] == 0
    graph.run(FOUR)


PARENT = """
import sys
import numpy as np
from wasmgraph.runtime.base import Limits
from wasmgraph.runtime.graph import Graph, read_graph
from wasmgraph.runtime.host_process import HostProcess
from wasmgraph.runtime.hosted_engine import HostedEngine
from wasmgraph.runtime.source import Source
from pathlib import Path

def start():
    host = HostProcess("python", [sys.executable, sys.argv[1]])
    print(host.pid, flush=True)
    return host

source = Source(Path(sys.argv[2]))
file = read_graph(source)
graph = Graph(file, HostedEngine("python", start).load(file, Limits(), cache=False))
if sys.argv[3] != "leaves":
    graph.run({"x": np.zeros(4, np.float32)})
"""


@pytest.mark.parametrize("how", ["leaves", "SIGINT", "SIGKILL"])
def test_no_host_outlives_python(tmp_path: Path, how: str) -> None:
    # A host that is in a run does not look at its stdin, unless it has a thread for that.
    watching = """
import threading
def watch():
    while os.read(0, 1):
        pass
    os._exit(0)
honest = answer
def answer(request, payload):
    if request["do"] == "run":
        threading.Thread(target=watch, daemon=True).start()
        print("running", file=sys.stderr, flush=True)
        time.sleep(600)
    honest(request, payload)
"""
    graph = WatGraph().write(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, script(tmp_path, watching), graph, how],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    assert parent.stdout is not None
    host = int(parent.stdout.readline())
    if how != "leaves":
        time.sleep(1)  # most of the time enough to be in the run; it must do at any time
        parent.send_signal(signal.Signals[how])
    parent.wait(120)
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while is_running(host) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(host)
