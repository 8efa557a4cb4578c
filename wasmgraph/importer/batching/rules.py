"""Which rule speaks for which operator. What is not here is taken to mix samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from wasmgraph.importer.batching import broadcasting, moving, products, reducing
from wasmgraph.importer.batching.lengths import lengths_of, told
from wasmgraph.importer.batching.states import (
    LENGTHS,
    SAME,
    Mixed,
    NodeView,
    Spread,
    State,
    differing_axis,
)
from wasmgraph.importer.network import subgraphs
from wasmgraph.importer.normalise.fold import RANDOM_OPS

Rule = Callable[[NodeView], list[State]]

_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(broadcasting.ELEMENTWISE, broadcasting.elementwise),
    "CastLike": broadcasting.cast_like,
    "DequantizeLinear": broadcasting.quantised,
    "Dropout": broadcasting.dropout,
    "QuantizeLinear": broadcasting.quantised,
    "Concat": moving.concat,
    "ConstantOfShape": moving.constant_of_shape,
    "DepthToSpace": moving.channels_and_space,
    "Expand": moving.expand,
    "Flatten": moving.flatten,
    "Gather": moving.gather,
    "GatherElements": moving.gather_elements,
    "GatherND": moving.gather_nd,
    "OneHot": moving.one_hot,
    "Pad": moving.pad,
    "Reshape": moving.reshape,
    "ReverseSequence": moving.reverse_sequence,
    "ScatterElements": moving.gather_elements,
    **dict.fromkeys(["Shape", "Size"], lambda _: [LENGTHS]),
    "Slice": moving.slice_,
    "SpaceToDepth": moving.channels_and_space,
    "Split": moving.split,
    "Squeeze": moving.squeeze,
    "Tile": moving.tile,
    "Transpose": moving.transpose,
    "Trilu": moving.trilu,
    "Unsqueeze": moving.unsqueeze,
    **dict.fromkeys(reducing.REDUCTIONS, reducing.reduction),
    "ArgMax": reducing.position,
    "ArgMin": reducing.position,
    "BatchNormalization": reducing.batch_norm,
    "CumProd": reducing.cumulative,
    "CumSum": reducing.cumulative,
    "GroupNormalization": reducing.channel_norm,
    "Hardmax": reducing.along_axis,
    "InstanceNormalization": reducing.channel_norm,
    "LRN": reducing.channel_norm,
    "LayerNormalization": reducing.layer_norm,
    "LogSoftmax": reducing.along_axis,
    "LpNormalization": reducing.along_axis,
    "RMSNormalization": reducing.layer_norm,
    "Softmax": reducing.along_axis,
    "TopK": reducing.along_axis,
    "AveragePool": products.windows,
    "Conv": products.windows,
    "ConvInteger": products.windows,
    "ConvTranspose": products.windows,
    "DeformConv": products.deform_conv,
    "Einsum": products.einsum,
    "GRU": products.recurrent,
    "Gemm": products.gemm,
    "GlobalAveragePool": products.windows,
    "GlobalLpPool": products.windows,
    "GlobalMaxPool": products.windows,
    "GridSample": products.grid_sample,
    "LSTM": products.recurrent,
    "LpPool": products.windows,
    "MatMul": products.matmul,
    "MatMulInteger": products.matmul,
    "MaxPool": products.windows,
    "RNN": products.recurrent,
    "Resize": products.resize,
    "STFT": products.spectrum,
}

_LEARNING_RULES: Mapping[str, Rule] = {
    "ArrayFeatureExtractor": products.extracted,
    "LabelEncoder": products.keeps_axes,
    "OneHotEncoder": products.keeps_axes,
    **dict.fromkeys(
        [
            *("SVMClassifier", "SVMRegressor", "TreeEnsemble", "TreeEnsembleClassifier"),
            "TreeEnsembleRegressor",
        ],
        products.rows,
    ),
}

_BY_DOMAIN: Mapping[str, Mapping[str, Rule]] = {"": _RULES, "ai.onnx.ml": _LEARNING_RULES}

# What these give of constants may be a batch.
_REPEATING = ("ConstantOfShape", "Expand", "Tile")


def states_of(view: NodeView) -> list[State]:
    """The states of a node's outputs, in order.

    Raises:
        Mixed: the node mixes samples, or is not known not to.
    """
    if any(subgraphs(view.node)):
        raise Mixed("control flow is not followed")
    if view.op in RANDOM_OPS:
        raise Mixed("what it gives is random")
    given = {state for state in view.states if state is not None}
    if given <= {SAME}:
        return [SAME] * len(view.node.output)
    is_count = given <= {SAME, LENGTHS}
    if is_count and view.op not in _REPEATING:
        return lengths_of(view)
    if is_count and view.op != "ConstantOfShape" and view.state(0) == LENGTHS:
        return lengths_of(view)
    rule = _BY_DOMAIN.get(view.node.domain, {}).get(view.op)
    if rule is None:
        raise Mixed("it is not known to treat every sample alone")
    states = _applied(rule, view)
    return [
        _checked(view, i, state)
        for i, (name, state) in enumerate(zip(view.node.output, states, strict=False))
        if name
    ]


def _applied(rule: Rule, view: NodeView) -> list[State]:
    try:
        return rule(view)
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        # An attribute or operand that cannot be: others say so, in their words.
        raise Mixed("its attributes are not understood") from error


def _checked(view: NodeView, i: int, state: State) -> State:
    """A state, if the shapes that ONNX's inference finds agree with it."""
    if state == LENGTHS:
        return told(view, view.node.output[i])
    one, many = view.result(i)
    axis = state.axis if isinstance(state, Spread) else None
    if 0 in one or differing_axis(one, many) != axis:
        raise Mixed(f"its shape is {list(one)} for one sample, {list(many)} for several")
    return state
