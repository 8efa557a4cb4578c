"""What people want to know of a tensor at a glance, and what a classifier's output means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wasmgraph.errors import InputError
from wasmgraph.runtime.base import Array
from wasmgraph.runtime.dtypes import kind, plain

FIRST_VALUES = 6


@dataclass(frozen=True)
class TensorSummary:
    """A tensor at a glance.

    Attributes:
        name: The output's ONNX name.
        dtype: A numpy dtype name.
        shape: The extent of every axis.
        minimum, maximum, mean: Over the finite elements; None where there are none. A bool counts
            as 0 or 1.
        non_finite: How many elements are NaN or infinite.
        first: The first few elements in C order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    minimum: float | int | None
    maximum: float | int | None
    mean: float | None
    non_finite: int
    first: tuple[float | int | bool, ...]

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`; what JSON has no number for is text."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "min": self.minimum,
            "max": self.maximum,
            "mean": self.mean,
            "non_finite": self.non_finite,
            "first": [json_number(value) for value in self.first],
        }


def json_number(value: float | int | bool | None) -> float | int | bool | str | None:
    """The value, or "nan", "inf" or "-inf": JSON has no number for these."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def summarise(name: str, array: Array) -> TensorSummary:
    """Summarise an array of numbers or bools, of any shape."""
    flat = plain(array).reshape(-1)
    finite = flat[np.isfinite(flat)]
    numbers = finite.astype(np.uint8) if array.dtype.kind == "b" else finite
    return TensorSummary(
        name,
        array.dtype.name,
        array.shape,
        numbers.min().item() if numbers.size else None,
        numbers.max().item() if numbers.size else None,
        float(numbers.mean(dtype=np.float64)) if numbers.size else None,
        flat.size - finite.size,
        tuple(flat[:FIRST_VALUES].tolist()),
    )


@dataclass(frozen=True)
class ClassScore:
    """One class of a classifier's output.

    Attributes:
        index: Its place along the class axis.
        label: Its name, or the index as text where there are no names.
        probability: From 0 to 1.
    """

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Classes:
    """The most probable classes.

    Attributes:
        output: The output's name.
        softmax_applied: Whether the output held scores which softmax turned into probabilities;
            false where it already was a distribution.
        top: Most probable first; of equals, the lower index first.
    """

    output: str
    softmax_applied: bool
    top: tuple[ClassScore, ...]

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return asdict(self)


def top_classes(name: str, array: Array, labels: Sequence[str] | None, k: int) -> Classes:
    """The `k` most probable classes of one classified example.

    Args:
        name: The output's name, for errors and the result.
        array: Floats with one axis longer than 1, e.g. (1, 1000) or (1, 1000, 1, 1).
        labels: One name per class, or None.
        k: How many.

    Raises:
        InputError: the output is no list of class scores, or has another number of classes than
            there are labels.
    """
    if kind(array.dtype) != "f" or sum(extent > 1 for extent in array.shape) != 1:
        raise InputError(
            f"output {name!r}, {array.dtype}{list(array.shape)}, is not one score per class",
            hint="leave out --labels and --top",
        )
    scores = array.reshape(-1).astype(np.float64)
    if not np.all(np.isfinite(scores)):
        raise InputError(f"output {name!r} holds values that are not finite: no class is on top")
    if labels is not None and len(labels) != scores.size:
        raise InputError(
            f"output {name!r} has {scores.size} classes, there are {len(labels)} labels"
        )
    # Half precision sums a thousand probabilities to within a few thousandths.
    is_distribution = bool(np.all(scores >= 0)) and abs(scores.sum() - 1) < 1e-2
    if not is_distribution:
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    order = np.argsort(-scores, kind="stable")[:k]
    top = tuple(
        ClassScore(int(i), labels[i] if labels is not None else str(i), float(scores[i]))
        for i in order
    )
    return Classes(name, not is_distribution, top)


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names, one per line; empty lines at the end do not count.

    Raises:
        InputError: the file cannot be read as UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"the labels {path} cannot be read: {reason}") from error
    labels = tuple(line.strip() for line in text.rstrip().splitlines())
    if not labels:
        raise InputError(f"the labels {path} are empty")
    return labels
