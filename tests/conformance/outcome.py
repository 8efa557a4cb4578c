"""Run one node test as wasm, and say how it ended."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from onnx.backend.test.runner import Runner

from tests.conformance.cases import Case, Operator
from wasmgraph.backend import PreparedModel, prepare
from wasmgraph.errors import RunTimeout, UnsupportedModelError, WasmgraphError

Kind = Literal["pass", "refused", "wrong", "error", "crash", "timeout"]

RUN_SECONDS = 30.0
"""Of one run under Wasmtime; the tests' tensors are small."""

_SHOWN_OBSTACLES = 3


@dataclass(frozen=True)
class Outcome:
    """How a test ended.

    Attributes:
        name: The test's.
        kind: "pass"; "refused", an `UnsupportedModelError`; "wrong", the outputs disagree; "error",
            any other exception; "crash" and "timeout", the process died or was killed.
        reason: Why it failed, in one line; "" for a pass.
        promoted: The inputs that were compiled in since operators need them then.
        constant: Whether all inputs were, so that nothing was left to compute at run time.
        seconds: Compilation and run.
    """

    name: str
    kind: Kind
    reason: str = ""
    promoted: tuple[str, ...] = ()
    constant: bool = False
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether it is a pass."""
        return self.kind == "pass"

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


def run_case(case: Case) -> Outcome:
    """Compile the test's model, run it and compare; whatever is raised is an outcome too."""
    began = time.perf_counter()
    prepared = prepare(case.model, timeout=RUN_SECONDS)
    kind, reason = _judge(case, prepared)
    promoted = prepared.promoted if kind in ("pass", "wrong") else ()
    constant = bool(promoted) and len(promoted) == len(case.inputs)
    seconds = round(time.perf_counter() - began, 3)
    return Outcome(case.name, kind, reason, promoted, constant, seconds)


def _judge(case: Case, prepared: PreparedModel) -> tuple[Kind, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = prepared.run(case.inputs)
    except UnsupportedModelError as error:
        return "refused", _refusal(error, case.operator)
    except RunTimeout as error:
        return "timeout", error.message
    except WasmgraphError as error:
        return "error", f"{error.kind}: {_first_line(error)}"
    except Exception as error:
        return "error", f"{type(error).__name__}: {_first_line(error)}"
    try:
        Runner.assert_similar_outputs(case.outputs, outputs, case.rtol, case.atol)
    except (AssertionError, TypeError, AttributeError):
        # The last two: a tensor where there is a sequence, or the other way round.
        return "wrong", _difference(case.outputs, outputs)
    return "pass", ""


def _refusal(error: UnsupportedModelError, operator: Operator) -> str:
    """The obstacles in one line, each once; the operator is named where it is another."""
    own = ("", operator.name, str(operator))
    said = dict.fromkeys(
        obstacle.reason if obstacle.op in own else f"{obstacle.op}: {obstacle.reason}"
        for obstacle in error.obstacles
    )
    reasons = list(said) or [_first_line(error)]
    more = len(reasons) - _SHOWN_OBSTACLES
    shown = reasons[:_SHOWN_OBSTACLES] + ([f"and {more} more"] if more > 0 else [])
    return "; ".join(" ".join(reason.split()) for reason in shown)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _difference(expected: Sequence[Any], found: Sequence[Any]) -> str:
    """What is wrong with the outputs: their number, the first type or shape, or the values."""
    if len(found) != len(expected):
        return f"{len(found)} outputs instead of {len(expected)}"
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        if not (
            isinstance(a, (np.ndarray, np.generic)) and isinstance(b, (np.ndarray, np.generic))
        ):
            return f"output {index} is a {type(a).__name__} instead of a {type(b).__name__}"
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"output {index} is {a.dtype}{list(a.shape)} instead of {b.dtype}{list(b.shape)}"
    worst = [_distance(a, b) for a, b in zip(found, expected, strict=True)]
    index = int(np.argmax([share for share, _ in worst]))
    share, by = worst[index]
    return f"output {index} differs: {share:.0%} of its elements{by}"


def _distance(found: Any, expected: Any) -> tuple[float, str]:
    """The share of elements beyond onnx's tolerance, and how far off they are."""
    if expected.dtype.kind in "OUS":
        return float(np.mean(found != expected)), ""
    a, b = (np.asarray(array).astype(np.complex128) for array in (found, expected))
    with np.errstate(all="ignore"):
        differ = ~np.isclose(a, b, rtol=1e-3, atol=1e-7, equal_nan=True)
        by = np.abs(a - b)[differ]
    if not differ.any():
        return 0.0, ""
    far = f"by up to {by.max():.2g}" if np.isfinite(by).all() else "by NaN or infinity"
    return float(np.mean(differ)), f", {far}"


def generalised(reason: str) -> str:
    """A reason without names, shapes and numbers, so that reasons of one kind are equal.

    Types of the same few bits count as one, too.
    """
    reason = re.sub(r"'[^']*'", "'…'", reason)
    reason = re.sub(r"\[[^\]]*\]", "[…]", reason)
    reason = re.sub(r"\bfloat([48])_\w+", r"float\1", reason)
    reason = re.sub(r"\bu?int([24])\b", "int2 or int4", reason)
    return re.sub(r"(?<![\w.])[-+]?\d[\d.]*(e[-+]?\d+)?%?(?!\w)", "N", reason)
