"""Recurrent layers agree with numpy, in every form that the kernel has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import recurrent_reference as reference
from tests.kernels.runner import run_kernel_with_outputs
from tests.onnx_models import Array
from wasmgraph.assembler.function import Function, load
from wasmgraph.kernels.activations import ACTIVATIONS, Activation, emit_activation
from wasmgraph.kernels.recurrence import Direction, Recurrence, pack_recurrent
from wasmgraph.kernels.recurrent_cells import CELLS

SIGMOID, TANH = Activation("sigmoid"), Activation("tanh")
DEFAULT = {"lstm": (SIGMOID, TANH, TANH), "gru": (SIGMOID, TANH), "rnn": (TANH,)}

BOUNDED = [
    SIGMOID,
    TANH,
    Activation("hardsigmoid", 0.3, 0.4),
    Activation("scaledtanh", 0.9, 0.7),
    Activation("softsign"),
]
"""With these a state cannot grow from step to step."""

OPERANDS = ("recurrent_bias", "initial_h", "initial_c", "peepholes", "lengths")


def fits(operand: str, cell: str, *, reset_after: bool) -> bool:
    """Whether a layer may have an operand."""
    if operand == "recurrent_bias":
        return cell == "gru" and reset_after
    return cell == "lstm" or operand in ("initial_h", "lengths")


@st.composite
def layers(draw: st.DrawFn) -> Recurrence:
    cell = draw(st.sampled_from(sorted(CELLS)))
    steps, batch, hidden = (draw(st.integers(1, most)) for most in (4, 5, 21))
    bounded = st.tuples(*[st.sampled_from(BOUNDED)] * len(DEFAULT[cell]))
    direction = st.builds(Direction, st.booleans(), st.just(DEFAULT[cell]) | bounded)
    ways = draw(st.integers(1, 2))
    reset_after = cell == "gru" and draw(st.booleans())
    width = CELLS[cell].gates * hidden
    # Rows with a gap behind them, in x and in y.
    x_row, y_row = (ways * size + draw(st.integers(0, 3)) for size in (width, hidden))
    return Recurrence(
        cell=cell,
        steps=steps,
        batch=batch,
        hidden=hidden,
        directions=tuple(draw(direction) for _ in range(ways)),
        x_step=batch * x_row,
        x_row=x_row,
        y_step=batch * y_row,
        y_row=y_row,
        packed=draw(st.booleans()),
        given=tuple(
            operand
            for operand in OPERANDS
            if fits(operand, cell, reset_after=reset_after) and draw(st.booleans())
        ),
        clip=draw(st.sampled_from([None, 0.4])),
        coupled=cell == "lstm" and draw(st.booleans()),
        reset_after=reset_after,
    )


def operands_of(layer: Recurrence, seed: int) -> dict[str, Array]:
    """Values of all that the layer reads; R is [D, N, hidden]."""
    rng = np.random.default_rng(seed)
    ways, state = len(layer.directions), (len(layer.directions), layer.batch, layer.hidden)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    made = {
        "x": normal(layer.steps, layer.batch, layer.x_row),
        "r": normal(ways, layer.width, layer.hidden),
        "recurrent_bias": normal(ways, layer.hidden),
        "initial_h": normal(*state),
        "initial_c": normal(*state),
        "peepholes": normal(ways, 3 * layer.hidden),
        "lengths": rng.integers(-1, layer.steps + 2, layer.batch).astype(np.int32),
    }
    return {name: made[name] for name in ("x", "r", *layer.given)}


def expected(layer: Recurrence, values: dict[str, Array]) -> list[Array]:
    """y with its gaps as NaN, then the last states."""
    ways, state = len(layer.directions), (layer.batch, layer.hidden)
    y = np.full((layer.steps, layer.batch, layer.y_row), np.nan)
    last = np.zeros((2, ways, *state))
    for index, direction in enumerate(layer.directions):

        def own(name: str, at: int = index) -> Any:
            return values[name][at] if name in values else None

        spec = reference.Layer(
            layer.cell,
            direction.reverse,
            [reference.activation(a.name, a.alpha, a.beta) for a in direction.activations],
            own("r"),
            own("recurrent_bias"),
            own("peepholes"),
            layer.clip,
            layer.coupled,
            layer.reset_after,
        )
        h, c = (own(n) if n in values else np.zeros(state) for n in ("initial_h", "initial_c"))
        x = values["x"][:, :, index * layer.width : (index + 1) * layer.width]
        lengths = values.get("lengths", np.full(layer.batch, layer.steps))
        own_y, last[0, index], last[1, index] = spec.run(x, h, c, lengths)
        y[:, :, index * layer.hidden : (index + 1) * layer.hidden] = own_y
    return [y, *last[: 2 if layer.cell == "lstm" else 1]]


def run(layer: Recurrence, values: dict[str, Array]) -> list[Array]:
    """What the kernel writes, without its scratch memory; the gaps of y are NaN."""
    transposed = np.ascontiguousarray(values["r"].transpose(0, 2, 1))
    r = pack_recurrent(layer.cell, transposed) if layer.packed else transposed
    state = (len(layer.directions), layer.batch, layer.hidden)
    shapes = [(layer.steps, layer.batch, layer.y_row), *[state] * (1 + (layer.cell == "lstm"))]
    nbytes = [4 * int(np.prod(shape)) for shape in shapes]
    inputs = list((values | {"r": r}).values())
    found = run_kernel_with_outputs(layer, inputs, [*nbytes, layer.scratch_nbytes])
    y, *states = (a.reshape(s) for a, s in zip(found, shapes, strict=False))
    used = len(layer.directions) * layer.hidden
    gaps = y[:, :, used:].copy().view(np.uint8)
    assert (gaps == 0xA5).all(), "something between the rows of y was written"
    y[:, :, used:] = np.nan
    return [y, *states]


@given(layer=layers(), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_agrees_with_numpy(layer: Recurrence, seed: int) -> None:
    values = operands_of(layer, seed)
    for found, wanted in zip(run(layer, values), expected(layer, values), strict=True):
        # 21 products of order 1 are rounded to 2**-24 each, then multiplied by a slope of at most
        # 1, and a few steps feed that to the next product: each step may multiply it by about 20.
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@given(layer=layers(), seed=st.integers(0, 2**16), count=st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_shares_write_the_same(layer: Recurrence, seed: int, count: int) -> None:
    """Each share on copies of its part of every operand, put together afterwards."""
    values = operands_of(layer, seed)
    whole = expected(layer, values)
    shares = layer.shares(count)
    assert len(shares) <= max(count, 1)
    rows = layer.batch * len(layer.directions)
    assert sum(share.kernel.batch * len(share.kernel.directions) for share in shares) == rows
    scratch_end = 0
    for share in shares:
        assert share.offsets[-1] >= scratch_end, "two shares have the same scratch memory"
        scratch_end = share.offsets[-1] + getattr(share.kernel, "scratch_nbytes", 0)
        offsets = dict(zip(layer.parameters, share.offsets, strict=True))
        way, first = divmod(offsets["h"] // (4 * layer.hidden), layer.batch)
        ways = slice(way, way + len(share.kernel.directions))
        batch = slice(first, first + share.kernel.batch)
        part = {
            "x": values["x"].reshape(-1)[offsets["x"] // 4 :],
            **{n: values[n][ways] for n in ("r", "recurrent_bias", "peepholes") if n in values},
            **{n: values[n][ways, batch] for n in ("initial_h", "initial_c") if n in values},
            **{n: values[n][batch] for n in ("lengths",) if n in values},
        }
        part = {name: part[name] for name in values}
        assert offsets["y"] // 4 == way * layer.hidden + first * layer.y_row
        found = _run_share(share.kernel, part)
        np.testing.assert_allclose(found[0], whole[1][ways, batch], rtol=1e-4, atol=1e-4)


def _run_share(kernel: Any, values: dict[str, Array]) -> list[Array]:
    """The last states."""
    transposed = np.ascontiguousarray(values["r"].transpose(0, 2, 1))
    r = pack_recurrent(kernel.cell, transposed) if kernel.packed else transposed
    state = (len(kernel.directions), kernel.batch, kernel.hidden)
    nbytes = 4 * int(np.prod(state))
    y_nbytes = 4 * (kernel.steps * kernel.y_step + kernel.batch * kernel.y_row)
    sizes = [y_nbytes, *[nbytes] * (1 + (kernel.cell == "lstm")), kernel.scratch_nbytes]
    found = run_kernel_with_outputs(kernel, list((values | {"r": r}).values()), sizes)
    return [array.reshape(state) for array in found[1:-1]]


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_without_steps_the_last_state_is_zeros(cell: str) -> None:
    """Like that of an empty sequence among others."""
    direction = Direction(False, DEFAULT[cell])
    width = 3 * CELLS[cell].gates
    layer = Recurrence(cell, 0, 2, 3, (direction,), 2 * width, width, 6, 3, given=("initial_h",))
    values = operands_of(layer, 0) | {"x": np.zeros((0, 2, width), np.float32)}
    assert not run(layer, values)[1].any()


def test_a_saturated_update_gate_keeps_the_state() -> None:
    """z = 1 takes nothing from the candidate, not even its rounding."""
    direction = Direction(False, DEFAULT["gru"])
    layer = Recurrence("gru", 4, 1, 5, (direction,), 15, 15, 5, 5, given=("initial_h",))
    values = operands_of(layer, 0)
    values["x"][:, :, :5] = 100
    np.testing.assert_array_equal(run(layer, values)[1], values["initial_h"])


def test_equal_directions_differ_in_nothing_but_where_they_read() -> None:
    """So that two shares are one kernel."""
    direction = Direction(False, DEFAULT["lstm"])
    layer = Recurrence("lstm", 4, 1, 8, (direction, direction), 64, 64, 16, 16)
    first, second = layer.shares(2)
    assert first.kernel == second.kernel == replace(layer, directions=(direction,))


PARAMETERS = {
    "affine": (0.7, -0.3),
    "elu": (1.3, 0.0),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.1, 0.0),
    "scaledtanh": (1.7, 0.6),
    "thresholdedrelu": (0.5, 0.0),
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_agree_with_numpy(name: str) -> None:
    """To 1.2e-7 absolutely, as the module says, or a few units in the last place."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 4, 1000), [0, -0.0, 90, -90, 1e4, -1e4, 1e-6, -1e-6]])
    x = x.astype(np.float32)
    alpha, beta = PARAMETERS.get(name, (0.0, 0.0))
    [found] = run_kernel_with_outputs(_over(x.size, Activation(name, alpha, beta)), [x], [x.nbytes])
    wanted = reference.activation(name, alpha, beta)(x.astype(np.float64))
    np.testing.assert_allclose(found, wanted, rtol=6e-7, atol=2.4e-7)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_keep_nan(name: str) -> None:
    x = np.array([np.nan, 1, np.nan, -1], np.float32)
    alpha, beta = PARAMETERS.get(name, (0.0, 0.0))
    [found] = run_kernel_with_outputs(_over(4, Activation(name, alpha, beta)), [x], [x.nbytes])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))


def _over(count: int, activation: Activation) -> Function:
    """A kernel that applies the activation to `count` elements, a multiple of four."""
    f = Function("activation", 2)
    source, out = f.params
    for offset in range(0, 4 * count, 16):
        value = f.new(load(source, offset))
        emit_activation(f, activation, value)
        f.store(out, value, offset)
        f.release(value)
    return f
