"""The pool: every item gets an answer, whatever becomes of the process that works on it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.conformance.pool import Lost, WorkersDoNotStart, run_all


def obey(item: str) -> str:
    """What a worker does in these tests."""
    if item == "die":
        print("out of luck", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "leave":
        os._exit(3)
    if item == "raise":
        raise ValueError("not like this")
    if item == "hang":
        time.sleep(600)
    if item.startswith("hang once"):
        mark = Path(item.removeprefix("hang once "))
        if not mark.exists():
            mark.touch()
            time.sleep(600)
    return f"{item} {os.getpid()}"


class Undeliverable:
    """A function that no process can take over."""

    def __call__(self, item: str) -> str:
        return item

    def __setstate__(self, state: object) -> None:
        os._exit(4)

    def __getstate__(self) -> dict[str, int]:
        return {"something": 1}


def run(items: list[str], workers: int = 2, seconds: float = 30) -> dict[str, str | Lost]:
    return dict(run_all(obey, items, workers=workers, seconds=seconds))


def test_every_item_has_its_result_and_processes_are_kept() -> None:
    items = [f"item{number}" for number in range(20)]
    results = run(items)
    assert sorted(results) == sorted(items)
    processes = set()
    for item, result in results.items():
        assert isinstance(result, str)
        name, pid = result.split()
        assert name == item
        processes.add(pid)
    assert len(processes) <= 2
    assert str(os.getpid()) not in processes


def test_nothing_to_do_starts_nothing() -> None:
    assert run([]) == {}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("die", "killed by SIGSEGV: out of luck"),
        ("leave", "exit status 3"),
        ("raise", "exit status 1: ValueError: not like this"),
    ],
)
def test_a_process_that_dies_costs_one_item(item: str, reason: str) -> None:
    results = run(["a", item, "b", "c"], workers=1)
    assert results[item] == Lost("crash", reason)
    assert all(isinstance(results[other], str) for other in "abc")


def test_a_process_that_hangs_is_killed_and_costs_one_item() -> None:
    results = run(["a", "hang", "b"], workers=1, seconds=0.5)
    assert results["hang"] == Lost("timeout", "took more than 0.5 s")
    assert isinstance(results["b"], str)


def test_a_process_that_hangs_once_costs_nothing(tmp_path: Path) -> None:
    item = f"hang once {tmp_path / 'mark'}"
    results = run([item, "a"], workers=1, seconds=0.5)
    assert isinstance(results[item], str)
    assert isinstance(results["a"], str)


def test_what_cannot_start_is_said_at_once() -> None:
    with pytest.raises(WorkersDoNotStart, match="exit status 4"):
        list(run_all(Undeliverable(), ["a"], workers=1, seconds=5))


def test_leaving_early_ends_the_processes_and_removes_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with closing(run_all(obey, ["a", "hang"], workers=1, seconds=60)) as results:
        _, result = next(results)
        assert isinstance(result, str)
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(result.split()[1]), 0)
