"""LSTM, GRU and RNN in plain numpy and float64, as ONNX's specification has them.

Where it leaves something open this does as onnxruntime: an empty sequence ends in a state of zeros,
and `clip` does not bound what an LSTM's h is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.onnx_models import Array

Function = Callable[[Array], Array]


def activation(name: str, alpha: float = 0.0, beta: float = 0.0) -> Function:
    """A function by its name in lower case."""
    return {
        "affine": lambda x: alpha * x + beta,
        "elu": lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x),
        "hardsigmoid": lambda x: np.clip(alpha * x + beta, 0, 1),
        "leakyrelu": lambda x: np.where(x < 0, alpha * x, x),
        "relu": lambda x: np.maximum(x, 0),
        "scaledtanh": lambda x: alpha * np.tanh(beta * x),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "softplus": lambda x: np.logaddexp(0, x),
        "softsign": lambda x: x / (1 + np.abs(x)),
        "tanh": np.tanh,
        "thresholdedrelu": lambda x: np.where(x >= alpha, x, 0),
    }[name]


@dataclass(frozen=True)
class Layer:
    """One direction of a layer, which gets x * W^T + bias.

    Attributes:
        cell: "lstm", "gru" or "rnn".
        reverse: Whether backwards.
        activations: In ONNX's order.
        r: [N, hidden], not transposed.
        recurrent_bias: [hidden], of a GRU's candidate where it is reset after the product.
        peepholes: [3 * hidden].
        clip, coupled, reset_after: ONNX's clip, input_forget and linear_before_reset.
    """

    cell: str
    reverse: bool
    activations: Sequence[Function]
    r: Array
    recurrent_bias: Array | None = None
    peepholes: Array | None = None
    clip: float | None = None
    coupled: bool = False
    reset_after: bool = False

    def run(
        self, x: Array, h: Array, c: Array, lengths: Sequence[int]
    ) -> tuple[Array, Array, Array]:
        """From x [steps, batch, N] and states [batch, hidden] to y and the last states."""
        steps, batch, _ = x.shape
        x, h, c = (np.array(array, np.float64) for array in (x, h, c))
        y = np.zeros((steps, batch, h.shape[1]))
        for row in range(batch):
            if lengths[row] <= 0:
                h[row], c[row] = 0, 0
            times = range(min(max(lengths[row], 0), steps))
            for t in reversed(times) if self.reverse else times:
                h[row], c[row] = self._step(x[t, row], h[row], c[row])
                y[t, row] = h[row]
        return y, h, c

    def _step(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        r = self.r.astype(np.float64)
        if self.cell == "rnn":
            return self._activated(0, x + r @ h), c
        if self.cell == "gru":
            return self._gru(x, h, r), c
        i, o, f, g = np.split(x + r @ h, 4)
        peep_i, peep_o, peep_f = (
            np.zeros((3, h.size)) if self.peepholes is None else np.split(self.peepholes, 3)
        )
        i = self._activated(0, i + peep_i * c)
        f = 1 - i if self.coupled else self._activated(0, f + peep_f * c)
        c = f * c + i * self._activated(1, g)
        return self._activated(0, o + peep_o * c) * self.activations[2](c), c

    def _gru(self, x: Array, h: Array, r: Array) -> Array:
        gates, candidate = np.split(r, [2 * h.size])
        gates = self._activated(0, x[: 2 * h.size] + gates @ h)
        update, reset = np.split(gates, 2)
        own = 0 if self.recurrent_bias is None else self.recurrent_bias
        recurrent = (
            reset * (candidate @ h + own) if self.reset_after else candidate @ (reset * h) + own
        )
        return (1 - update) * self._activated(1, x[2 * h.size :] + recurrent) + update * h

    def _activated(self, index: int, x: Array) -> Array:
        if self.clip is not None:
            x = np.clip(x, -self.clip, self.clip)
        return self.activations[index](x)
