"""Transposed convolutions of every kind, against onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.onnx_models import make_model, node
from tests.optimise.test_shared_programs import run
from wasmgraph.importer import import_model, load_model
from wasmgraph.optimise import optimise
from wasmgraph.optimise.program import Program, TirKernel


@dataclass(frozen=True)
class Axis:
    """A spatial axis."""

    inputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    extra: int = 0

    @property
    def outputs(self) -> int:
        reach = (self.kernel - 1) * self.dilation + 1
        return (self.inputs - 1) * self.stride + reach + self.extra - self.before - self.after


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    axis = Axis(
        draw(st.integers(1, 9)),
        draw(st.integers(1, 5)),
        stride,
        dilation,
        draw(st.integers(0, 4)),
        draw(st.integers(0, 4)),
        draw(st.integers(0, stride - 1)),
    )
    assume(axis.outputs > 0)
    return axis


def check(
    space: list[Axis], batch: int, groups: int, channels: int, columns: int, after: str
) -> Program:
    """`channels` and `columns` are per group."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the reference is onnxruntime")
    rng = np.random.default_rng(1)
    scale = np.float32(max(1, channels) ** -0.5)
    weights = {
        "w": rng.standard_normal((groups * channels, columns, *(a.kernel for a in space))),
        "b": rng.standard_normal(groups * columns),
        "r": rng.standard_normal((batch, groups * columns, *(a.outputs for a in space))),
    }
    nodes = [
        node(
            "ConvTranspose",
            "x w b",
            "c",
            strides=[a.stride for a in space],
            dilations=[a.dilation for a in space],
            pads=[*(a.before for a in space), *(a.after for a in space)],
            output_padding=[a.extra for a in space],
            group=groups,
        ),
        {
            "": node("Identity", "c", "y"),
            "relu": node("Relu", "c", "y"),
            "add": node("Add", "c r", "y"),
            "concat": node("Concat", "c r", "y", axis=1),
        }[after],
    ]
    shape = (batch, groups * channels, *(a.inputs for a in space))
    single = {name: (w * scale).astype(np.float32) for name, w in weights.items()}
    model = make_model(nodes, {"x": shape}, "y", single)
    program = optimise(import_model(load_model(model)))
    assert not any(isinstance(call.kernel, TirKernel) for call in program.calls)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (want,) = session.run(None, {"x": x})
    got = np.frombuffer(run(program, 0)[0], np.float32).reshape(want.shape)
    # Sums of at most a few hundred products of order 1, in another order.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    return program


@settings(max_examples=100, deadline=None)
@given(
    st.lists(axes(), min_size=1, max_size=3),
    st.integers(1, 2),
    st.sampled_from([1, 1, 1, 2, 3]),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from(["", "relu", "add", "concat"]),
)
@example([Axis(5, 2, 2), Axis(7, 2, 2)], 1, 1, 4, 6, "relu")
@example([Axis(5, 3, 2, before=1, after=1, extra=1)] * 2, 2, 1, 8, 16, "add")
@example([Axis(5, 2, 2), Axis(7, 3, 3)], 2, 1, 4, 1, "relu")
@example([Axis(5, 2, 2), Axis(7, 2, 2)], 1, 1, 4, 2, "concat")
@example([Axis(5, 4, 2, before=1, after=1)] * 2, 1, 2, 4, 4, "concat")
@example([Axis(1, 4, 4, before=1, after=1)] * 2, 1, 1, 4, 4, "")
def test_results_equal_onnxruntime(
    space: list[Axis], batch: int, groups: int, channels: int, columns: int, after: str
) -> None:
    check(space, batch, groups, channels, columns, after)


@settings(max_examples=60, deadline=None)
@given(axes(), axes(), st.integers(1, 2), st.integers(2, 9), st.sampled_from(["", "add", "concat"]))
@example(Axis(5, 4, 2, before=1, after=1), Axis(6, 4, 2, before=1, after=1), 1, 21, "")
# A phase without any input.
@example(Axis(1, 2, 2, before=1, extra=1), Axis(1, 1, 1), 1, 2, "")
def test_a_filter_per_channel_needs_no_padded_copy(
    height: Axis, width: Axis, batch: int, channels: int, after: str
) -> None:
    program = check([height, width], batch, channels, 1, 1, after)
    assert not any("pad" in call.description.split(" + ") for call in program.calls)


def test_windows_that_do_not_overlap_are_one_product_per_row_of_the_window() -> None:
    program = check([Axis(6, 2, 2), Axis(5, 2, 2)], 1, 1, 8, 16, "")
    found = [call.description for call in program.calls]
    assert found == ["copy", *["conv2d_transpose + bias"] * 2, "copy"]


def test_overlapping_windows_do_no_more_multiplications_than_they_need() -> None:
    program = check([Axis(6, 3, 2, before=1, after=1, extra=1)] * 2, 1, 1, 8, 16, "")
    flops = sum(getattr(call.kernel, "flops", 0) for call in program.calls)
    assert flops == 2 * 6 * 6 * 9 * 8 * 16
