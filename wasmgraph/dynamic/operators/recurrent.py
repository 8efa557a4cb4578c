"""LSTM, GRU and RNN (toolchain/executor/src/dynamic/ops/recurrent.rs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from wasmgraph.dynamic.view import FLOATS, Converter, NodeView, Unsupported, Value, float_word

_ACTIVATIONS: Mapping[str, tuple[int, float, float]] = {
    "sigmoid": (0, 0.0, 0.0),
    "tanh": (1, 0.0, 0.0),
    "relu": (2, 0.0, 0.0),
    "affine": (3, 1.0, 0.0),
    "leakyrelu": (4, 0.01, 0.0),
    "thresholdedrelu": (5, 1.0, 0.0),
    "scaledtanh": (6, 1.0, 1.0),
    "hardsigmoid": (7, 0.2, 0.5),
    "elu": (8, 1.0, 0.0),
    "softsign": (9, 0.0, 0.0),
    "softplus": (10, 0.0, 0.0),
}
"""Their numbers in the executor, and alpha and beta where they are not given."""

_WITH_ALPHA = (3, 4, 5, 6, 7, 8)
_WITH_BETA = (3, 6, 7)


def _activation_words(view: NodeView, defaults: Sequence[str], directions: int) -> list[int]:
    names = [name.decode() for name in view.attribute("activations", ())]
    names = names or [*defaults] * directions
    alphas, betas = (iter(view.attribute(f"activation_{x}", ())) for x in ("alpha", "beta"))
    words: list[int] = []
    for direction in range(directions):
        for i in range(3):
            known = _ACTIVATIONS["sigmoid"]
            if i < len(defaults):
                name = names[direction * len(defaults) + i].lower()
                if name not in _ACTIVATIONS:
                    raise Unsupported(f"the activation {name!r} is not supported")
                known = _ACTIVATIONS[name]
                number, alpha, beta = known
                known = (
                    number,
                    next(alphas, alpha) if number in _WITH_ALPHA else alpha,
                    next(betas, beta) if number in _WITH_BETA else beta,
                )
            words += [known[0], float_word(known[1]), float_word(known[2])]
    return words


def _recurrent(kind: int, defaults: Sequence[str], view: NodeView) -> list[Value]:
    direction = view.attribute("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    flag = view.attribute("linear_before_reset" if kind == 1 else "input_forget", 0)
    words = [
        kind,
        view.attribute("hidden_size"),
        count,
        direction == "reverse",
        view.attribute("layout", 0),
        flag,
        float_word(view.attribute("clip", 0.0)),
        *_activation_words(view, defaults, count),
    ]
    inputs = [view.input(i) if view.has(i) else None for i in range(8)]
    symbol = f"recurrent_{view.suffix(FLOATS)}"
    return view.emit(symbol, inputs, [view.dtype()] * 3, words)


CONVERTERS: Mapping[tuple[str, str], Converter] = {
    ("", "RNN"): partial(_recurrent, 0, ["tanh"]),
    ("", "GRU"): partial(_recurrent, 1, ["sigmoid", "tanh"]),
    ("", "LSTM"): partial(_recurrent, 2, ["sigmoid", "tanh", "tanh"]),
}
