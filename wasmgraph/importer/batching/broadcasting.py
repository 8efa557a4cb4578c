"""Rules of operators that compute every element from those at the same place in their operands."""

from __future__ import annotations

from wasmgraph.importer.batching.states import SAME, Mixed, NodeView, Spread, State

ELEMENTWISE = frozenset(
    [
        *("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift"),
        *("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip"),
        *("Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater"),
        *("GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu"),
        *("Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not"),
        *("Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid"),
        *("Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan"),
        *("Tanh", "ThresholdedRelu", "Where", "Xor"),
    ]
)


def elementwise(view: NodeView) -> list[State]:
    """Operands that broadcast: batches lie on the same axis of the result, and everything else has
    one element there."""
    one, _ = view.result()
    axes = {
        len(one) - view.rank(i) + state.axis
        for i, state in enumerate(view.states)
        if isinstance(state, Spread)
    }
    if len(axes) != 1:
        raise Mixed("it brings together different samples")
    [axis] = axes
    for i, state in enumerate(view.states):
        if state is None:
            continue
        shape = view.shape(i)
        own = axis - len(one) + len(shape)
        extent = shape[own] if own >= 0 else 1
        if isinstance(state, Spread):
            if extent != one[axis]:
                raise Mixed("it brings together different samples")
        elif state != SAME or extent != 1:
            raise Mixed(f"input {i} differs from sample to sample")
    return [Spread(axis)]


def cast_like(view: NodeView) -> list[State]:
    """The second operand only tells the dtype."""
    return [view.states[0] or SAME]


def dropout(view: NodeView) -> list[State]:
    """At inference: nothing is dropped."""
    training = view.value(2)
    if training is not None and training.any():
        raise Mixed("it is in training mode")
    return [Spread(view.spread())] * 2


def quantised(view: NodeView) -> list[State]:
    """QuantizeLinear, DequantizeLinear: scales for the whole tensor, or along another axis."""
    axis = view.spread()
    view.rest_is_same(0)
    scale = view.shape(1)
    if len(scale) > 1:
        raise Mixed("its scales are given in blocks")
    rank = view.rank()
    if scale not in ((), (1,)) and view.attribute("axis", 1) % rank == axis:
        raise Mixed("its scales differ from sample to sample")
    return [Spread(axis)]
