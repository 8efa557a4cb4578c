"""The Node host process, spoken to byte by byte: the protocol itself, and that it always ends."""

from __future__ import annotations

import json
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wasmgraph
from tests.runtime.wat_graphs import LOOPS_FOREVER, WatGraph

HOST = Path(__file__).resolve().parents[2] / "toolchain" / "javascript" / "host.mjs"
FOUR = np.arange(4, dtype=np.float32)


class Host:
    """A host process."""

    def __init__(self, node: str) -> None:
        self.process = subprocess.Popen(
            [node, HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.hello, _ = self.receive()

    def ask(self, request: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> dict[str, Any]:
        """Send a request; the answer, with its bytes under "bytes"."""
        payload = b"".join(array.tobytes() for array in arrays)
        header = json.dumps({**request, "payload": len(payload)}).encode()
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(struct.pack("<I", len(header)) + header + payload)
        stdin.flush()
        answer, found = self.receive()
        return {**answer, "bytes": found}

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame."""
        stdout = self.process.stdout
        assert stdout is not None
        header = json.loads(stdout.read(struct.unpack("<I", stdout.read(4))[0]))
        return header, stdout.read(header.get("payload", 0))

    def load(self, path: Path, **limits: Any) -> dict[str, Any]:
        """Load a graph."""
        defaults = {"threads": 1, "memory": None, "seconds": None, "cache": True}
        return self.ask({"do": "load", "path": str(path), **defaults, **limits})

    def run(self, instance: int, *arrays: np.ndarray) -> dict[str, Any]:
        """Run an instance."""
        inputs = [{"dtype": x.dtype.name, "shape": list(x.shape)} for x in arrays]
        return self.ask({"do": "run", "instance": instance, "inputs": inputs}, arrays)

    def close(self) -> None:
        """End it whatever it does."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def start(node: str) -> Iterator[Callable[[], Host]]:
    """Starts hosts."""
    with ExitStack() as stack:

        def begin() -> Host:
            host = Host(node)
            stack.callback(host.close)
            return host

        yield begin


@pytest.fixture
def host(start: Callable[[], Host]) -> Host:
    """A host."""
    return start()


def test_it_says_what_it_is_and_can(host: Host) -> None:
    assert host.hello["host"] == "node"
    assert host.hello["version"].startswith("v")
    assert host.hello["protocol"] == 1
    can = host.hello["capabilities"]
    assert can.pop("relaxed_simd") in (False, True)
    assert can == dict.fromkeys(("simd", "threads", "memory_limit", "time_limit"), True)


def test_it_gives_wasmtimes_bits(host: Host, digits_wasm: Path) -> None:
    image = np.random.default_rng(1).random((1, 1, 8, 8), dtype=np.float32)
    assert host.load(digits_wasm)["ok"]["load_ms"] > 0
    first = host.ask({"do": "instantiate"})["ok"]
    second = host.ask({"do": "instantiate"})["ok"]
    assert first["instance"] != second["instance"]
    with wasmgraph.load(digits_wasm) as graph:
        expected = graph.run({"image": image})["probabilities"]
    for instance in (first["instance"], second["instance"], first["instance"]):
        answer = host.run(instance, image)
        assert answer["ok"]["outputs"] == [{"dtype": "float32", "shape": [1, 10]}]
        assert answer["ok"]["ms"] > 0
        assert answer["bytes"] == expected.tobytes()
    assert host.ask({"do": "step", "instance": 1, "index": 0, "times": 3})["ok"]["ms"] >= 0
    assert host.ask({"do": "close", "instance": first["instance"]})["ok"] == {}
    assert host.run(second["instance"], image)["bytes"] == expected.tobytes()


def test_errors_have_kinds(host: Host, digits_wasm: Path, tmp_path: Path) -> None:
    missing = host.load(tmp_path / "none.wasm")["error"]
    assert (missing["kind"], missing["hint"]) == ("LoadError", None)
    beyond = host.load(digits_wasm, memory=65536)["error"]
    assert beyond["kind"] == "MemoryLimitExceeded"
    assert host.load(digits_wasm, threads=2)["error"]["kind"] == "LoadError"
    host.load(digits_wasm)
    instance = host.ask({"do": "instantiate"})["ok"]["instance"]
    wrong = host.run(instance, np.zeros(3, np.float32))["error"]
    assert wrong["kind"] == "InputError"
    assert "[1, 1, 8, 8]" in wrong["message"]


def test_an_error_of_a_run_closes_the_instance(host: Host, tmp_path: Path) -> None:
    fails = WatGraph({"wg_run": "(func $wg_run (result i32) unreachable)"}).write(tmp_path)
    host.load(fails)
    instance = host.ask({"do": "instantiate"})["ok"]["instance"]
    assert host.run(instance, FOUR)["error"]["kind"] == "InferenceError"
    assert "no instance" in host.run(instance, FOUR)["error"]["message"]
    assert host.ask({"do": "nothing"})["error"]["kind"] == "InferenceError"


def test_a_run_without_end_is_stopped_and_the_next_one_works(host: Host, tmp_path: Path) -> None:
    loops = """(func $wg_run (result i32)
        (if (f32.eq (f32.load (i32.const 1024)) (f32.const 7)) (then (loop $again (br $again))))
        i32.const 0)"""
    host.load(WatGraph({"wg_run": loops}).write(tmp_path), seconds=5)
    first = host.ask({"do": "instantiate"})["ok"]["instance"]
    stopped = host.run(first, FOUR + 7)["error"]
    assert stopped["kind"] == "RunTimeout"
    assert "5 s" in stopped["message"]
    second = host.ask({"do": "instantiate"})["ok"]["instance"]
    assert host.run(second, FOUR)["bytes"] == bytes(16)


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_when_stdin_does(host: Host, tmp_path: Path, busy: bool) -> None:
    host.load(WatGraph({"wg_run": LOOPS_FOREVER}).write(tmp_path))
    instance = host.ask({"do": "instantiate"})["ok"]["instance"]
    stdin = host.process.stdin
    assert stdin is not None
    if busy:
        inputs = [{"dtype": "float32", "shape": [4]}]
        header = {"do": "run", "instance": instance, "inputs": inputs, "payload": 16}
        text = json.dumps(header).encode()
        stdin.write(struct.pack("<I", len(text)) + text + FOUR.tobytes())
        stdin.flush()
        time.sleep(0.3)
    stdin.close()
    assert host.process.wait(timeout=60) == 0


def test_large_tensors_arrive_whole(host: Host, tmp_path: Path) -> None:
    from wasmgraph.metadata import TensorInfo

    large = (1 << 22,)
    places = {
        "wg_input": "(func $wg_input (param i32 i32 i32) (result i32) i32.const 65536)",
        "wg_output": "(func $wg_output (param i32) (result i32) i32.const 65536)",
        "wg_run": "(func $wg_run (result i32) i32.const 0)",
    }
    same = WatGraph(
        places,
        memory='(memory (export "memory") 258)',
        inputs=(TensorInfo("x", "float32", large),),
        outputs=(TensorInfo("y", "float32", large),),
    )
    host.load(same.write(tmp_path))
    values = np.random.default_rng(0).random(large, dtype=np.float32)
    instance = host.ask({"do": "instantiate"})["ok"]["instance"]
    assert host.run(instance, values)["bytes"] == values.tobytes()
