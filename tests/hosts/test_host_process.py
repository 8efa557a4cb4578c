"""The host process over wazero, asked in its own protocol: what it answers, and when it ends."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wasmgraph
from tests.hostile_graphs import HOSTILE, STRANGE
from tests.hosts.programs import host_process
from tests.runtime.wat_graphs import LOOPS_FOREVER, WatGraph

IMAGE = np.random.default_rng(0).random((1, 1, 8, 8), dtype=np.float32)
FOUR = np.arange(4, dtype=np.float32)
ENDS_WITHIN = 30
"""Seconds, on a loaded machine."""


class HostProcess:
    """A host, and frames to and from it."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.greeting, _ = self.read()

    def send(self, payload: bytes = b"", **header: object) -> None:
        if payload:
            header["payload"] = len(payload)
        text = json.dumps(header).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(struct.pack("<I", len(text)) + text + payload)
        self.process.stdin.flush()

    def read(self) -> tuple[dict[str, Any], bytes]:
        assert self.process.stdout is not None
        [length] = struct.unpack("<I", self.process.stdout.read(4))
        header = json.loads(self.process.stdout.read(length))
        return header, self.process.stdout.read(header.get("payload", 0))

    def ask(self, payload: bytes = b"", **header: object) -> dict[str, Any]:
        self.send(payload, **header)
        return self.read()[0]

    def load(self, path: Path, **limits: object) -> dict[str, Any]:
        options = {"threads": 1, "memory": None, "seconds": None, "cache": False, **limits}
        return self.ask(do="load", path=str(path), **options)

    def run(
        self, arrays: Sequence[np.ndarray], instance: int = 1
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        forms = [{"dtype": a.dtype.name, "shape": list(a.shape)} for a in arrays]
        payload = b"".join(array.tobytes() for array in arrays)
        self.send(payload, do="run", instance=instance, inputs=forms)
        answer, data = self.read()
        outputs, start = [], 0
        for form in answer.get("ok", {}).get("outputs", []):
            array = np.empty(form["shape"], form["dtype"])
            outputs.append(np.frombuffer(data, array.dtype, array.size, start).reshape(array.shape))
            start += array.nbytes
        assert start == len(data)
        return answer, outputs

    def end(self) -> int:
        """Close its stdin and wait; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None  # else communicate() would flush it
        return self.process.wait(ENDS_WITHIN)


@pytest.fixture
def host() -> Iterator[HostProcess]:
    """A host process, gone after the test."""
    host = HostProcess(host_process())
    yield host
    host.process.kill()
    host.process.communicate()


def error(answer: Mapping[str, Any]) -> str:
    """The kind of the error in an answer, "" where there is none."""
    return str(answer.get("error", {}).get("kind", ""))


def test_it_says_what_it_is_and_can(host: HostProcess) -> None:
    assert host.greeting["host"] == "wazero"
    assert host.greeting["version"].startswith("v1.")
    assert host.greeting["protocol"] == 1
    assert host.greeting["capabilities"] == {
        "simd": True,
        "relaxed_simd": False,
        "threads": False,
        "memory_limit": True,
        "time_limit": True,
    }


def test_the_digits_are_those_of_wasmtime_bit_by_bit(host: HostProcess, digits_wasm: Path) -> None:
    with wasmgraph.load(digits_wasm) as graph:
        expected = graph.run({"image": IMAGE})["probabilities"]
    assert host.load(digits_wasm)["ok"]["load_ms"] > 0
    assert host.ask(do="instantiate")["ok"]["instance"] == 1
    for _ in range(2):
        answer, [found] = host.run([IMAGE])
        assert answer["ok"]["ms"] > 0
        assert found.tobytes() == expected.tobytes()
    assert host.ask(do="step", instance=1, index=0, times=3)["ok"]["ms"] >= 0
    assert host.ask(do="close", instance=1) == {"ok": {}}
    assert host.end() == 0


def test_instances_are_apart_and_an_error_closes_one(host: HostProcess, digits_wasm: Path) -> None:
    host.load(digits_wasm)
    instances = [host.ask(do="instantiate")["ok"]["instance"] for _ in range(2)]
    assert len(set(instances)) == 2
    answer, _ = host.run([IMAGE[0]], instances[0])
    assert error(answer) == "InputError"
    assert "error" in host.run([IMAGE], instances[0])[0]
    assert "ok" in host.run([IMAGE], instances[1])[0]


def test_the_second_process_takes_compiled_code_from_the_cache(
    digits_wasm: Path, isolated_cache: Path
) -> None:
    for _ in range(2):
        host = HostProcess(host_process())
        assert "ok" in host.load(digits_wasm, cache=True)
        host.ask(do="instantiate")
        assert "ok" in host.run([IMAGE])[0]
        assert host.end() == 0
        host.process.communicate()
    folder = isolated_cache / "wasmgraph" / "wazero"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path for path in folder.rglob("*") if path.is_file()] != []


def test_every_hostile_graph_ends_in_its_error(tmp_path: Path) -> None:
    wrong = []
    for graph in HOSTILE:
        path = tmp_path / "hostile.wasm"
        path.write_bytes(graph.binary)
        host = HostProcess(host_process())
        answer = host.load(path, memory=graph.memory, seconds=graph.seconds)
        if "ok" in answer:
            answer = host.ask(do="instantiate")
        if "ok" in answer:
            answer, _ = host.run(list(graph.feeds.values()))
        code = host.end()
        said = host.process.communicate()[1].decode()
        if error(answer) != graph.kind or said or code not in (0, 9):
            wrong.append(f"{graph.name}: {graph.kind}, not {answer}, {code}: {said[:300]}")
    assert wrong == []


def test_every_strange_graph_gives_what_it_should(tmp_path: Path) -> None:
    wrong = []
    for graph in STRANGE:
        path = tmp_path / "strange.wasm"
        path.write_bytes(graph.binary)
        host = HostProcess(host_process())
        host.load(path)
        host.ask(do="instantiate")
        answer, outputs = host.run(list(graph.feeds.values()))
        host.end()
        host.process.communicate()
        expected = [(a.dtype.name, a.shape, a.tobytes()) for a in graph.outputs.values()]
        if [(a.dtype.name, a.shape, a.tobytes()) for a in outputs] != expected:
            wrong.append(f"{graph.name}: {answer}, {outputs}")
    assert wrong == []


def test_after_a_timeout_it_answers_and_ends(host: HostProcess, tmp_path: Path) -> None:
    host.load(WatGraph({"wg_run": LOOPS_FOREVER}).write(tmp_path), seconds=0.2)
    host.ask(do="instantiate")
    answer, _ = host.run([FOUR])
    assert error(answer) == "RunTimeout"
    assert "0.2" in answer["error"]["message"]
    assert host.process.wait(ENDS_WITHIN) == 9


def test_a_limit_of_a_thousand_years_is_none(host: HostProcess, tmp_path: Path) -> None:
    host.load(WatGraph().write(tmp_path), seconds=1000 * 366 * 86400.0)
    host.ask(do="instantiate")
    _, [found] = host.run([FOUR])
    np.testing.assert_array_equal(found, 2 * FOUR)


def test_it_ends_with_its_parent_even_in_an_endless_run(host: HostProcess, tmp_path: Path) -> None:
    host.load(WatGraph({"wg_run": LOOPS_FOREVER}).write(tmp_path))
    host.ask(do="instantiate")
    forms = [{"dtype": "float32", "shape": [4]}]
    host.send(FOUR.tobytes(), do="run", instance=1, inputs=forms)
    assert host.end() != 0


def test_requests_before_the_end_are_answered(host: HostProcess, digits_wasm: Path) -> None:
    host.send(do="load", path=str(digits_wasm), threads=1, cache=False)
    host.send(do="instantiate")
    assert host.end() == 0
    assert "ok" in host.read()[0]
    assert "ok" in host.read()[0]


def test_several_threads_are_refused(host: HostProcess, digits_wasm: Path) -> None:
    assert error(host.load(digits_wasm, threads=2)) == "LoadError"


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "dance"},
        {},
        {"do": "instantiate"},
        {"do": "run", "instance": 7, "inputs": []},
        {"do": "step", "instance": 7, "index": 0, "times": 1},
    ],
)
def test_a_request_that_cannot_be_is_an_error(
    host: HostProcess, request_: dict[str, object]
) -> None:
    assert host.ask(**request_)["error"]["message"]
    assert error(host.load(Path("none.wasm"))) == "LoadError"


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [{"dtype": "float32", "shape": [5]}],
        [{"dtype": "float32", "shape": [3]}],
        [{"dtype": "float32", "shape": [-4]}],
        [{"dtype": "float32", "shape": [2**62, 4]}],
        [{"dtype": "floot32", "shape": [4]}],
        [{"dtype": "float32", "shape": [4]}, {"dtype": "float32", "shape": [4]}],
    ],
)
def test_tensors_that_are_not_as_said_are_input_errors(
    host: HostProcess, tmp_path: Path, inputs: list[object]
) -> None:
    host.load(WatGraph().write(tmp_path))
    host.ask(do="instantiate")
    answer = host.ask(FOUR.tobytes(), do="run", instance=1, inputs=inputs)
    assert error(answer) == "InputError"


@pytest.mark.parametrize(
    "frame", [b"\xff\xff\xff\xff", b"\2\0\0\0[]", b"\2\0\0\0{", b"\1\0", b"\3\0\0\0{x}"]
)
def test_rubbish_ends_it_with_a_message(host: HostProcess, frame: bytes) -> None:
    _, said = host.process.communicate(frame, timeout=ENDS_WITHIN)
    assert host.process.returncode == 1
    assert said.startswith(b"wasmgraph-host: ")
    assert b"goroutine" not in said
