"""A bounded run of `make fuzz`, and what it relies on: cases that repeat, endings that are seen."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.fuzz import trial
from tests.fuzz.cases import KINDS, MODEL, Case, Kind, Originals, make_case
from tests.fuzz.originals import originals
from tests.fuzz.trial import Ending, Limits, try_case
from wasmgraph.errors import ModelError
from wasmgraph.importer import load_model

CHECKOUT = Path(__file__).resolve().parents[2]
CASES = 100
SECONDS = 8
"""Which of both comes first: the cases take four seconds where nothing else runs. As much again, or
three times as much on a loaded machine, go into starting and into compiling what is damaged."""

GIVEN_UP = 300
"""Seconds. Whatever the machine does besides, the run is over by then."""


def test_a_hundred_cases_end_in_documented_errors() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", f"--cases={CASES}", f"--seconds={SECONDS}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=GIVEN_UP,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert "ModelError" in done.stdout, "something was damaged"


@pytest.mark.parametrize("name", sorted(originals()))
def test_the_originals_are_sound(name: str) -> None:
    load_model(onnx.load_model_from_string(originals()[name]))


class TestCases:
    def sound(self) -> Originals:
        return Originals(originals(), {"graph.json": b'{"a": [1, "b"]}', "graph.o": b"code"}, b"w")

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_number_always_gives_the_same(self, kind: Kind) -> None:
        for number in range(20):
            first = make_case(7, number, self.sound(), kind)
            assert first == make_case(7, number, self.sound(), kind)

    def test_another_number_or_seed_gives_another(self) -> None:
        cases = [make_case(seed, number, self.sound()) for seed in (1, 2) for number in range(20)]
        assert len({tuple(sorted(case.files.items())) for case in cases}) > 30


class TestEndings:
    """What the process of a case does is seen from outside."""

    @pytest.fixture
    def ending(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ending]:
        def find(does: Callable[[Path], None], limits: Limits | None = None) -> Ending:
            trials = {"model": lambda folder, number: does(folder)}
            monkeypatch.setattr(trial, "_TRIALS", trials)
            return try_case(Case(0, 0, "model", "test", {MODEL: b""}), limits or Limits())

        return find

    def test_a_success_and_a_documented_error(self, ending: Callable[..., Ending]) -> None:
        def refuse(folder: Path) -> None:
            raise ModelError("it is bad", hint="mend it")

        assert ending(lambda folder: None).verdict == "accepted"
        found = ending(refuse)
        assert (found.verdict, found.text, found.is_finding) == (
            "ModelError",
            "it is bad\nmend it",
            False,
        )

    def test_another_exception(self, ending: Callable[..., Ending]) -> None:
        found = ending(lambda folder: {}["key"])
        assert (found.verdict, found.is_finding) == ("KeyError", True)
        assert "Traceback" in found.text

    def test_an_error_without_words(self, ending: Callable[..., Ending]) -> None:
        def refuse(folder: Path) -> None:
            raise ModelError(" ")

        assert ending(refuse).verdict == "message"

    def test_a_crash(self, ending: Callable[..., Ending]) -> None:
        found = ending(lambda folder: os.kill(os.getpid(), signal.SIGKILL))
        assert (found.verdict, found.is_finding) == ("crash", True)
        assert "SIGKILL" in found.text
        assert ending(lambda folder: os._exit(0)).verdict == "crash"

    def test_a_hang(self, ending: Callable[..., Ending]) -> None:
        found = ending(lambda folder: time.sleep(600), Limits(seconds=1))
        assert (found.verdict, found.is_finding) == ("timeout", True)

    def test_memory(self, ending: Callable[..., Ending]) -> None:
        limits = Limits(resident=2**26, address_space=2**29)
        assert ending(lambda folder: bytearray(2**30), limits).verdict == "MemoryError"
        found = ending(lambda folder: memoryview(b"x" * 2**28).release(), limits)
        assert (found.verdict, found.is_finding) == ("memory", True)

    def test_memory_beside_files_that_are_mapped(
        self, ending: Callable[..., Ending], tmp_path: Path
    ) -> None:
        path = tmp_path / "sparse"
        path.touch()
        os.truncate(path, 2**28)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert not any(mapped[:: mmap.PAGESIZE]), "read, hence in memory"
            found = ending(
                lambda folder: memoryview(b"x" * 2**28).release(), Limits(resident=2**26)
            )
        assert found.verdict == "memory"

    def test_a_file_that_is_left(self, ending: Callable[..., Ending]) -> None:
        found = ending(lambda folder: (folder / "half.wasm").touch())
        assert (found.verdict, found.is_finding) == ("files", True)
        assert "half.wasm" in found.text
