"""Compare a graph with the model it came from: the same inputs through an engine and onnxruntime.

A disagreement is a result, not an exception: `verify` returns a report, which can raise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wasmgraph.bundle import WeightFormat
from wasmgraph.conditioning import FACTOR, rounding_response, within_rounding
from wasmgraph.errors import VerificationError
from wasmgraph.metadata import NARROW_DTYPES
from wasmgraph.quantisation_slack import quantisation_slack, quantises
from wasmgraph.reference import made_up_inputs, reference_outputs
from wasmgraph.runtime import Graph, load
from wasmgraph.runtime.base import Array
from wasmgraph.runtime.dtypes import kind, plain, step
from wasmgraph.runtime.inputs import check_inputs
from wasmgraph.runtime.registry import DEFAULT
from wasmgraph.tensors.random import UNIT_RANGE
from wasmgraph.tensors.summary import json_number

if TYPE_CHECKING:
    from onnx import ModelProto

RTOL = 1e-3
ATOL = 1e-4

PART_ELEMENTS = 1 << 18
"""Of an output, compared at a time: the dozen arrays in between then fit into a cache."""

_ULP_INTEGERS: dict[int, type[np.signedinteger[Any]]] = {2: np.int16, 4: np.int32, 8: np.int64}


@dataclass(frozen=True)
class OutputAgreement:
    """How one output of the graph compares with onnxruntime's.

    Attributes:
        name: The ONNX name.
        dtype, shape: Of onnxruntime's output.
        agrees: Whether every element is within the tolerance.
        max_abs: Largest |a - b|.
        max_rel: Largest |a - b| / |b| where b is not zero.
        max_ulp: Largest distance in representable values between a and b; 0 for integers and bools
            means equal, otherwise it is their difference.
        index: The element whose difference is the largest multiple of its tolerance; () for a
            scalar, None for an output without elements or of another dtype or shape.
        value, expected: The graph's and onnxruntime's element there.
        non_finite: How many of onnxruntime's elements are NaN or infinite.
        problem: A difference that numbers cannot tell (another dtype or shape), or None.
        slack: The absolute difference that is allowed in any case, see `quantisation_slack`.
        largest: The largest finite |b|.
        rounding: How far rounding alone moves onnxruntime's own output; measured only where the
            tolerances do not suffice, and then differences of `conditioning.FACTOR` times that are
            allowed.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    agrees: bool
    max_abs: float
    max_rel: float
    max_ulp: int
    index: tuple[int, ...] | None
    value: float | int | bool | None
    expected: float | int | bool | None
    non_finite: int
    problem: str | None = None
    slack: float = 0.0
    largest: float = 0.0
    rounding: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`; what JSON has no number for is text."""
        fields = asdict(self)
        for name in ("max_abs", "max_rel", "value", "expected"):
            fields[name] = json_number(fields[name])
        return fields

    def __str__(self) -> str:
        if self.problem:
            return f"output {self.name!r}: {self.problem}"
        where = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return (
            f"output {self.name!r}{where} is {self.value}, onnxruntime has {self.expected}; "
            f"over the whole output at most {self.max_abs:.3g} absolute, "
            f"{self.max_rel:.3g} relative, {self.max_ulp} ULP"
            + (f"; quantisation allows {self.slack:.3g}" if self.slack else "")
            + (f"; {self.rounding_note}" if self.rounding else "")
        )

    @property
    def rounding_note(self) -> str:
        """What rounding explains of a difference, where that was measured."""
        return f"rounding alone moves onnxruntime's own by up to {self.rounding:.3g}, " + (
            f"and {FACTOR} times that is allowed" if self.agrees else "which does not explain it"
        )


@dataclass(frozen=True)
class VerifyReport:
    """How a graph compares with its model.

    Attributes:
        graph, model: Which were compared.
        rtol, atol: An element agrees if |a - b| <= atol + rtol * |b|.
        seed: Of the random inputs, or None where inputs were given.
        outputs: One per output of the graph.
        rounded: As what the graph's weights were rounded; then `outputs` compares with the model
            with weights rounded likewise.
        cost: Then how far the outputs are from those of the model itself.
    """

    graph: str
    model: str
    rtol: float
    atol: float
    seed: int | None
    outputs: tuple[OutputAgreement, ...]
    rounded: WeightFormat | None = None
    cost: tuple[OutputAgreement, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether every output agrees."""
        return all(output.agrees for output in self.outputs)

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "agrees": self.agrees,
            "graph": self.graph,
            "model": self.model,
            "rtol": self.rtol,
            "atol": self.atol,
            "seed": self.seed,
            "outputs": [output.to_json() for output in self.outputs],
            "rounded": self.rounded,
            "cost": [output.to_json() for output in self.cost],
        }

    def raise_if_disagree(self) -> None:
        """Raise VerificationError naming every output that disagrees, where and how far."""
        if self.agrees:
            return
        wrong = [str(output) for output in self.outputs if not output.agrees]
        raise VerificationError(
            f"{self.graph} disagrees with {self.model} beyond atol {self.atol:g} + rtol "
            f"{self.rtol:g} * |expected| in {len(wrong)} of {len(self.outputs)} outputs\n"
            + "\n".join(wrong),
            hint=None
            if self.seed is None
            else "the inputs were random: if the model expects floats of another range than "
            "[0, 1), rounding alone can be amplified this far; say which with --input-range",
        )


def verify(
    graph: Graph | str | os.PathLike[str],
    model: ModelProto | str | os.PathLike[str],
    inputs: Mapping[str, object] | None = None,
    *,
    seed: int = 0,
    input_range: tuple[float, float] = UNIT_RANGE,
    rtol: float = RTOL,
    atol: float = ATOL,
    timeout: float | str | None = None,
    threads: int = 1,
    runtime: str = DEFAULT,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> VerifyReport:
    """Run a graph and the model it came from on the same inputs, and compare every output.

    Args:
        graph: A loaded graph, or a `.wasm` file.
        model: A model, or its file (external data beside it).
        inputs: An array per input name; None draws random ones (`tensors.random`).
        seed: Of the random inputs.
        input_range: In which random floats lie; a model trained on pixels of 0 to 255, say,
            amplifies rounding on inputs of 0 to 1.
        rtol, atol: Floats agree where |a - b| <= atol + rtol * |b|, or both are NaN, or both the
            same infinity. Of bfloat16 and narrower floats neighbours agree, too. Integers and bools
            agree where they are equal. Outputs of quantised models may be a step apart, or more
            where onnxruntime does not agree with itself, with its optimiser and without: then the
            nearer answer counts; see `quantisation_slack`. Where other outputs of float32 do not
            agree, it is measured how far rounding alone moves onnxruntime's own: a few times that
            counts as agreement, and the report says so; see `conditioning`. Tolerances stricter
            than the default ones are kept to.
        timeout: Wall time for the graph's run, where `graph` is a file.
        threads: How many the run uses, likewise.
        runtime: The engine that it runs on, likewise.
        shapes: Of random inputs with open axes, by name; by default some that suit the model.

    A graph whose weights were rounded (`compile`'s `weights`) must agree with the model with
    weights rounded likewise; the report says besides how far it is from the model itself.

    Raises:
        ToolchainError: onnxruntime is missing.
        ModelError: onnxruntime cannot load or run the model.
        LoadError, InputError, InferenceError, RunTimeout: from loading and running the graph.
    """
    if not isinstance(graph, Graph):
        with load(graph, timeout=timeout, threads=threads, runtime=runtime) as loaded:
            return verify(
                loaded,
                model,
                inputs,
                seed=seed,
                input_range=input_range,
                rtol=rtol,
                atol=atol,
                shapes=shapes,
            )
    operands = make_operands(
        graph, model, inputs, seed=seed, input_range=input_range, shapes=shapes
    )
    found = graph.run(operands.feeds) if operands.found is None else operands.found
    return VerifyReport(
        graph=str(graph.path),
        model=operands.model,
        rtol=rtol,
        atol=atol,
        seed=seed if inputs is None else None,
        outputs=operands.compare(found, rtol=rtol, atol=atol),
        rounded=graph.metadata.rounded,
        cost=operands.cost(found),
    )


@dataclass(frozen=True)
class Operands:
    """What graphs of one model are verified with.

    Attributes:
        model: The model's name.
        feeds: Inputs by name.
        expected: onnxruntime's outputs by name.
        slack: What each output may differ in any case, see `quantisation_slack`.
        own: The model's own outputs, where `expected` are those with rounded weights.
        plain: onnxruntime's outputs without its optimiser, where the model is quantised.
        response: Measures how far rounding moves the outputs, see `rounding_response`.
        found: The graph's outputs, where it ran to find sizes for open axes.
    """

    model: str
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]
    slack: Mapping[str, float]
    own: Mapping[str, Array] | None = None
    plain: Mapping[str, Array] = field(default_factory=dict)
    response: Callable[[], Mapping[str, Array]] = dict
    found: Mapping[str, Array] | None = None

    def cost(self, found: Mapping[str, Array]) -> tuple[OutputAgreement, ...]:
        """How a graph's outputs compare with the model's own, if its weights were rounded."""
        if self.own is None:
            return ()
        return tuple(compare(name, found[name], self.own[name]) for name in found)

    def compare(
        self, found: Mapping[str, Array], *, rtol: float, atol: float
    ) -> tuple[OutputAgreement, ...]:
        """How a graph's outputs compare with onnxruntime's: with the nearer ones of a quantised
        model, where it has two answers."""

        def nearest(name: str, array: Array) -> OutputAgreement:
            answers = [reference[name] for reference in (self.expected, self.plain) if reference]
            slack = self.slack.get(name, 0.0)
            results = [compare(name, array, a, rtol=rtol, atol=atol, slack=slack) for a in answers]
            best = min(results, key=lambda result: (not result.agrees, result.max_abs))
            is_strict = rtol < RTOL or atol < ATOL  # asked for, and kept to
            if best.agrees or best.problem or is_strict or name not in self.response():
                return best
            moved = self.response()[name]
            return compare(
                name, array, self.expected[name], rtol=rtol, atol=atol, slack=slack, response=moved
            )

        return tuple(nearest(name, array) for name, array in found.items())


def make_operands(
    graph: Graph,
    model: ModelProto | str | os.PathLike[str],
    inputs: Mapping[str, object] | None = None,
    *,
    seed: int = 0,
    input_range: tuple[float, float] = UNIT_RANGE,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Operands:
    """Inputs for a graph, given or random, and what onnxruntime makes of them; see `verify`."""
    found = None
    if inputs is None:
        feeds, expected, found = made_up_inputs(model, graph, shapes or {}, seed, input_range)
    else:
        arrays = check_inputs(graph.inputs, inputs, graph.metadata.bounds)
        feeds = {
            spec.name: np.ascontiguousarray(array, dtype=spec.dtype).reshape(array.shape)
            for spec, array in zip(graph.inputs, arrays, strict=True)
        }
        expected = reference_outputs(model, feeds, graph.outputs)
    name = str(model) if isinstance(model, (str, os.PathLike)) else model.graph.name
    own = None
    if graph.metadata.rounded is not None:
        own, model = expected, _rounded(feeds, model, graph.metadata.rounded)
        expected = reference_outputs(model, feeds, graph.outputs)
    if quantises(model):
        plain = reference_outputs(model, feeds, graph.outputs, optimised=False)
        slack = quantisation_slack(model, expected, plain)
        return Operands(name, feeds, expected, slack, own, plain, found=found)

    @cache  # for every engine
    def response() -> Mapping[str, Array]:
        return rounding_response(model, feeds, graph.outputs, expected)

    return Operands(name, feeds, expected, {}, own, response=response, found=found)


def _rounded(
    feeds: Mapping[str, Array], model: ModelProto | str | os.PathLike[str], weights: WeightFormat
) -> ModelProto:
    """The model for inputs of these shapes, with its weights rounded as the graph's were."""
    from wasmgraph.importer import load_model, rounded_model

    shapes = {name: array.shape for name, array in feeds.items()}
    loaded = load_model(Path(model) if isinstance(model, (str, os.PathLike)) else model)
    return rounded_model(loaded, shapes, weights)


def compare(
    name: str,
    found: Array,
    expected: Array,
    *,
    rtol: float = RTOL,
    atol: float = ATOL,
    slack: float = 0.0,
    response: Array | None = None,
) -> OutputAgreement:
    """Compare one output with its reference; see `verify` for what agrees.

    Args:
        found: The graph's output.
        expected: The reference's, of any shape; dtype float, integer or bool.
        slack: The absolute difference that is allowed in any case.
        response: How far rounding moves the reference, see `rounding_response`; None allows
            nothing for it.
    """
    head = (name, expected.dtype.name, expected.shape)
    is_float = kind(expected.dtype) == "f"
    non_finite = int(np.count_nonzero(~np.isfinite(plain(expected)))) if is_float else 0
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        problem = (
            f"is {found.dtype}{list(found.shape)}, onnxruntime has "
            f"{expected.dtype}{list(expected.shape)}"
        )
        return OutputAgreement(*head, False, 0.0, 0.0, 0, None, None, None, non_finite, problem)
    if expected.size == 0:
        return OutputAgreement(*head, True, 0.0, 0.0, 0, None, None, None, non_finite)
    if expected.dtype.name in NARROW_DTYPES:
        rtol = max(rtol, step(expected.dtype))
        found, expected = plain(found), plain(expected)
    flat = found.reshape(-1), expected.reshape(-1)
    parts = [
        _compare_part(first, *flat, rtol, atol, slack)
        for first in range(0, expected.size, PART_ELEMENTS)
    ]
    agrees = not any(np.any(part.wrong) for part in parts)
    if not agrees and response is not None:
        wrong = np.concatenate([part.wrong for part in parts]).reshape(expected.shape)
        agrees = within_rounding(found, expected, wrong, response)
    furthest = max(parts, key=lambda part: part.share)  # the first of equals
    return OutputAgreement(
        *head,
        agrees,
        max(part.max_abs for part in parts),
        max(part.max_rel for part in parts),
        max(part.max_ulp for part in parts),
        tuple(int(i) for i in np.unravel_index(furthest.worst, expected.shape)),
        flat[0][furthest.worst].item(),
        flat[1][furthest.worst].item(),
        non_finite,
        slack=slack,
        largest=max(part.largest for part in parts),
        rounding=0.0 if response is None else float(response[0]),
    )


@dataclass(frozen=True)
class _Part:
    """How some elements of an output compare.

    Attributes:
        wrong: Which are beyond the tolerance.
        share: The largest multiple of its tolerance that a difference is.
        worst: The element that has it, counted over the whole output.
        max_abs, max_rel, max_ulp, largest: As in `OutputAgreement`.
    """

    wrong: npt.NDArray[np.bool_]
    share: float
    worst: int
    max_abs: float
    max_rel: float
    max_ulp: int
    largest: float


def _compare_part(
    first: int, found: Array, expected: Array, rtol: float, atol: float, slack: float
) -> _Part:
    """Compare `PART_ELEMENTS` elements from the `first` on, of arrays of one axis."""
    found, expected = (array[first : first + PART_ELEMENTS] for array in (found, expected))
    difference, relative = _differences(found, expected)
    tolerance = np.zeros(expected.shape)
    if expected.dtype.kind == "f":
        tolerance = atol + rtol * np.abs(expected.astype(np.float64))
        # An infinite or missing expectation must not buy an infinite tolerance.
        tolerance = np.where(np.isfinite(tolerance), tolerance, 0.0)
    tolerance = np.maximum(tolerance, slack)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(difference == 0, 0.0, difference / tolerance)
    worst = int(np.argmax(share))
    return _Part(
        difference > tolerance,
        float(share[worst]),
        first + worst,
        float(difference.max()),
        float(relative.max()),
        int(ulp_distance(found, expected).max()),
        _largest(expected),
    )


def _largest(values: Array) -> float:
    size = np.abs(values.astype(np.float64))
    return float(size.max(initial=0.0, where=np.isfinite(size)))


def _differences(found: Array, expected: Array) -> tuple[Array, Array]:
    """Absolute and relative difference as float64; infinite where only one is NaN or infinite."""
    scale = np.abs(expected.astype(np.float64))
    if expected.dtype.kind != "f":
        difference = ulp_distance(found, expected).astype(np.float64)
    else:
        with np.errstate(invalid="ignore"):
            difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        difference = np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where((scale > 0) & (difference > 0), difference / scale, 0.0)
    # inf / inf, where the reference is infinite and the graph is not
    return difference, np.where(np.isnan(relative), np.inf, relative)


def ulp_distance(a: Array, b: Array) -> npt.NDArray[np.uint64]:
    """How many representable values lie between a and b, element by element.

    For IEEE floats of 16, 32 or 64 bits the bit patterns, read as sign and magnitude, are in the
    order of the values (B. Dawson, "Comparing floating point numbers", 2012); zeros of either sign
    are the same value, and so are NaNs. A NaN against a number is further than any two numbers. For
    integers and bools it is the difference.

    Args:
        a, b: Arrays of one dtype and shape.
    """
    if a.dtype.kind == "f":
        distance = _distance(_ordered(a), _ordered(b))
        distance[np.isnan(a) != np.isnan(b)] = 2 ** (8 * a.dtype.itemsize) - 1
        distance[np.isnan(a) & np.isnan(b)] = 0
        return distance
    if a.dtype.kind in "ub":
        a, b = a.astype(np.uint64), b.astype(np.uint64)
    return _distance(a, b)


def _ordered(values: Array) -> Array:
    """Signed integers in the order of the floats, one apart for neighbours."""
    dtype = _ULP_INTEGERS[values.dtype.itemsize]
    bits = np.atleast_1d(np.ascontiguousarray(values)).view(dtype).reshape(values.shape)
    return np.where(bits < 0, np.iinfo(dtype).min - bits, bits)


def _distance(a: Array, b: Array) -> npt.NDArray[np.uint64]:
    """|a - b| of 64-bit or narrower integers, exact in uint64, which wraps."""
    unsigned_a, unsigned_b = (np.asarray(x).astype(np.uint64) for x in (a, b))
    return np.asarray(np.where(a >= b, unsigned_a - unsigned_b, unsigned_b - unsigned_a))
