"""LSTM, GRU and RNN: one matrix product of all steps' inputs, then an opaque call that loops.

Source: ONNX's specification of the operators. Defaults of alpha and beta are those of ONNX's
operators of the same names; ScaledTanh, whose operator had none, scales by 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax

from wasmgraph.importer.converters.static import (
    as_dtype,
    constant,
    constant_value,
    dtype_of,
    operand,
    shape_of,
)
from wasmgraph.importer.opaque import opaque_call

_DEFAULT_ACTIVATIONS = {
    "lstm": ("sigmoid", "tanh", "tanh"),
    "gru": ("sigmoid", "tanh"),
    "rnn": ("tanh",),
}
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}

_DIRECTIONS = {
    "forward": (False,),
    "reverse": (True,),
    "bidirectional": (False, True),
}
"""For every direction whether it goes backwards."""

# (alpha, beta), None where the function has no such parameter.
_PARAMETERS: dict[str, tuple[float | None, float | None]] = {
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "relu": (None, None),
    "scaledtanh": (1.0, 1.0),
    "sigmoid": (None, None),
    "softplus": (None, None),
    "softsign": (None, None),
    "tanh": (None, None),
    "thresholdedrelu": (1.0, None),
}

_SWAP = (1, 0, 2)
"""From [batch, sequence, ...] to [sequence, batch, ...] and back; states likewise."""


def recurrent(cell: str) -> Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]:
    """The converter of "lstm", "gru" or "rnn"."""

    def convert(bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        return _Layer(cell, bb, inputs, attrs).convert()

    return convert


class _Layer:
    """One node on its way.

    N is the hidden size times the number of gates, D the number of directions.
    """

    def __init__(self, cell: str, bb: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> None:
        self.cell = cell
        self.bb = bb
        self.attrs = attrs
        if dtype_of(inputs[0]) != "float32":
            raise NotImplementedError(f"elements of {dtype_of(inputs[0])} are not supported")
        self.batch_first = int(attrs.get("layout", 0)) == 1
        self.x = self._time_first(inputs[0])
        self.w, self.r = inputs[1:3]
        self.bias, lengths, h, c, self.peepholes = (operand(inputs, i) for i in range(3, 8))
        self.initial_h, self.initial_c = self._time_first(h), self._time_first(c)
        self.steps, self.batch, self.input_size = shape_of(self.x)
        self.hidden = shape_of(self.r)[-1]
        self.width = _GATES[cell] * self.hidden
        self.reverse = _DIRECTIONS[_text(attrs.get("direction", b"forward"))]
        self.lengths = self._needed_lengths(lengths)
        self.reset_after = bool(attrs.get("linear_before_reset", 0))
        self._check_shapes()

    def _time_first(self, expr: Any) -> Any:
        if expr is None or not self.batch_first:
            return expr
        return self.bb.normalize(relax.op.permute_dims(expr, _SWAP))

    def _needed_lengths(self, lengths: Any) -> Any:
        """None also where all sequences are known to be of full length."""
        if lengths is None:
            return None
        value = constant_value(lengths)
        if value is not None and value.shape == (self.batch,) and (value >= self.steps).all():
            return None
        return as_dtype(self.bb, lengths, "int32")

    def _check_shapes(self) -> None:
        """ONNX's shape inference leaves most of them unchecked, and kernels trust them."""
        ways = len(self.reverse)
        state = (ways, self.batch, self.hidden)
        expected = {
            "W": (self.w, (ways, self.width, self.input_size)),
            "R": (self.r, (ways, self.width, self.hidden)),
            "B": (self.bias, (ways, 2 * self.width)),
            "sequence_lens": (self.lengths, (self.batch,)),
            "initial_h": (self.initial_h, state),
            "initial_c": (self.initial_c, state),
            "P": (self.peepholes, (ways, 3 * self.hidden)),
        }
        for name, (expr, shape) in expected.items():
            if expr is not None and shape_of(expr) != shape:
                raise ValueError(f"{name} has the shape {shape_of(expr)}, it should be {shape}")

    def convert(self) -> Any:
        bias, recurrent_bias = self._biases()
        given = {
            "recurrent_bias": recurrent_bias,
            "initial_h": self.initial_h,
            "initial_c": self.initial_c,
            "peepholes": self.peepholes,
            "lengths": self.lengths,
        }
        given = {name: expr for name, expr in given.items() if expr is not None}
        parameters = {
            "directions": [
                {"reverse": reverse, "activations": activations}
                for reverse, activations in zip(self.reverse, self._activations(), strict=True)
            ],
            "given": list(given),
            "clip": self._clip(),
            "coupled": bool(self.attrs.get("input_forget", 0)),
            "reset_after": self.reset_after,
        }
        ways = len(self.reverse)
        state = ("float32", (ways, self.batch, self.hidden))
        outputs = [("float32", (self.steps, ways, self.batch, self.hidden)), state]
        if self.cell == "lstm":
            outputs.append(state)
        inputs = [self._projected(bias), self.r, *given.values()]
        found = self.bb.emit(opaque_call(self.cell, parameters, inputs, outputs))
        return self._as_laid_out([relax.TupleGetItem(found, i) for i in range(len(outputs))])

    def _as_laid_out(self, outputs: list[Any]) -> relax.Tuple:
        if self.batch_first:
            y, *states = outputs
            y = relax.op.permute_dims(y, (2, 0, 1, 3))
            outputs = [y, *(relax.op.permute_dims(state, _SWAP) for state in states)]
        return relax.Tuple([self.bb.normalize(output) for output in outputs])

    def _projected(self, bias: Any) -> Any:
        """x * W^T + bias: [sequence, batch, D * N]."""
        rows = len(self.reverse) * self.width
        if bias is not None:
            bias = self.bb.normalize(relax.op.reshape(bias, (rows,)))
        if not self.input_size:
            # Relax would read the 0 in the shapes below as an extent that stays.
            alone = constant(np.zeros(rows, np.float32)) if bias is None else bias
            shape = (self.steps, self.batch, rows)
            return self.bb.normalize(relax.op.broadcast_to(alone, shape))
        flat = self.bb.normalize(relax.op.reshape(self.w, (rows, self.input_size)))
        transposed = self.bb.normalize(relax.op.permute_dims(flat, (1, 0)))
        product = self.bb.normalize(relax.op.matmul(self.x, transposed))
        return product if bias is None else self._added(product, bias)

    def _biases(self) -> tuple[Any, Any]:
        """What is added to x * W^T, [D, N], and a GRU's that is reset, [D, hidden], or None.

        B has the columns of W's biases, then those of R's.
        """
        if self.bias is None:
            return None, None
        summed = self._added(self._columns(0, self.width), self._columns(self.width, self.width))
        if self.cell != "gru" or not self.reset_after:
            return summed, None
        candidate = 2 * self.hidden
        own = self._columns(candidate, self.hidden)
        gates = self._added(self._columns(0, candidate), self._columns(self.width, candidate))
        return self._beside(gates, own), self._columns(self.width + candidate, self.hidden)

    def _columns(self, begin: int, count: int) -> Any:
        value = constant_value(self.bias)
        if value is not None:
            return constant(value[:, begin : begin + count])
        return self.bb.normalize(
            relax.op.strided_slice(self.bias, [1], [begin], [begin + count], assume_inbound=True)
        )

    def _added(self, a: Any, b: Any) -> Any:
        return self.bb.normalize(relax.op.add(a, b))

    def _beside(self, a: Any, b: Any) -> Any:
        return self.bb.normalize(relax.op.concat([a, b], 1))

    def _clip(self) -> float | None:
        clip = self.attrs.get("clip")
        if clip is not None and clip <= 0:
            raise ValueError(f"clip is {clip:g}, it should be positive")
        return clip

    def _activations(self) -> list[list[tuple[str, float, float]]]:
        """Per direction (name, alpha, beta) of each of its functions."""
        default = _DEFAULT_ACTIVATIONS[self.cell] * len(self.reverse)
        names = [_text(name).lower() for name in self.attrs.get("activations", ())] or default
        # There may be more: of an RNN with one direction the schema's default lists two.
        if len(names) < len(default):
            raise ValueError(f"there are {len(names)} activations, there should be {len(default)}")
        alphas = iter(self.attrs.get("activation_alpha", ()))
        betas = iter(self.attrs.get("activation_beta", ()))
        found = [_with_parameters(name, alphas, betas) for name in names[: len(default)]]
        each = len(_DEFAULT_ACTIVATIONS[self.cell])
        return [found[i : i + each] for i in range(0, len(found), each)]


def _with_parameters(
    name: str, alphas: Iterator[float], betas: Iterator[float]
) -> tuple[str, float, float]:
    """A function takes the next alpha and beta if it has such parameters."""
    if name not in _PARAMETERS:
        raise NotImplementedError(f"the activation {name!r} is not known")
    alpha, beta = _PARAMETERS[name]
    if alpha is not None:
        alpha = next(alphas, alpha)
    if beta is not None:
        beta = next(betas, beta)
    return name, alpha or 0.0, beta or 0.0


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


lstm = recurrent("lstm")
gru = recurrent("gru")
rnn = recurrent("rnn")
