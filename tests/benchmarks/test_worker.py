"""Workers answer, and a system that fails, ends or hangs is an error that says so."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.compiling import CHECKOUT
from benchmarks.systems import python_worker
from benchmarks.worker import Worker, WorkerError

Start = Callable[[str], Worker]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a worker whose requests are the methods of a class body."""

    def run(body: str) -> Worker:
        program = f"from benchmarks.workers.serve import serve\nclass W:\n{body}\nserve(W())\n"
        file = tmp_path / "program.py"
        file.write_text(program, encoding="utf-8")
        env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        return Worker([sys.executable, str(file)], cores(), env)

    return run


def cores() -> list[int]:
    """One of those that this process may use."""
    return sorted(os.sched_getaffinity(0))[-1:]


def test_a_worker_runs_on_its_core_only(start: Start) -> None:
    body = " def cores(self):\n  import os\n  return {'cores': list(os.sched_getaffinity(0))}"
    with start(body) as worker:
        assert worker.ask("cores", 10)["cores"] == cores()


def test_what_a_library_prints_is_no_answer(start: Start) -> None:
    with start(" def add(self, a, b):\n  print('noise'); return {'sum': a + b}") as worker:
        assert worker.ask("add", 10, a=1, b=2) == {"sum": 3}


def test_a_failure_is_told_and_the_worker_lives_on(start: Start) -> None:
    body = " def fail(self):\n  raise ValueError('no such model')\n def well(self):\n  return {}"
    with start(body) as worker:
        with pytest.raises(WorkerError, match="ValueError: no such model"):
            worker.ask("fail", 10)
        assert worker.ask("well", 10) == {}


def test_a_process_that_ends_leaves_its_last_words(start: Start) -> None:
    body = " def die(self):\n  import sys; sys.stderr.write('out of ideas\\n'); sys.exit(7)"
    with start(body) as worker, pytest.raises(WorkerError, match="code 7: out of ideas"):
        worker.ask("die", 10)


def test_a_worker_that_hangs_is_given_up_and_ended(start: Start) -> None:
    began = time.monotonic()
    body = " def hang(self):\n  import time; time.sleep(600)"
    with pytest.raises(WorkerError, match=r"no answer within 0\.1 s"), start(body) as worker:
        worker.ask("hang", 0.1)
    assert time.monotonic() - began < 60


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(WorkerError):
        Worker(["no-such-program"], cores(), dict(os.environ))


def test_the_limit_s_worker_tells_a_rate() -> None:
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with Worker(python_worker("limit"), cores(), env) as worker:
        assert worker.ask("measure", 60, seconds=0.02)["flops_per_second"] > 1e8
