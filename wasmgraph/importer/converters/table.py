"""Our own converters, by domain and operator.

Each takes the block builder, the inputs (None where left out) and the attributes, and returns
one expression, or a tuple of them where the operator has several outputs, or None where TVM's
converter is to be asked after all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wasmgraph.importer.converters import (
    arithmetic,
    axes,
    elementwise,
    generators,
    indexing,
    linear,
    normalisation,
    recurrent,
    reductions,
    resize,
    scatter,
)

Converter = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]

CONVERTERS: dict[tuple[str, str], Converter] = {
    ("", "BatchNormalization"): normalisation.batch_norm,
    ("", "BitCast"): elementwise.bit_cast,
    ("", "BitShift"): arithmetic.bit_shift,
    ("", "Clip"): elementwise.clip,
    ("", "CumProd"): axes.cumulative_product,
    ("", "CumSum"): axes.cumulative_sum,
    ("", "Det"): linear.determinant,
    ("", "Dropout"): elementwise.dropout,
    ("", "EyeLike"): generators.eye_like,
    ("", "Gather"): indexing.gather,
    ("", "GRU"): recurrent.gru,
    ("", "IsInf"): elementwise.is_inf,
    ("", "LSTM"): recurrent.lstm,
    ("", "LpNormalization"): normalisation.lp_normalization,
    ("", "Max"): elementwise.maximum,
    ("", "Mean"): elementwise.mean,
    ("", "MelWeightMatrix"): generators.only_folded,
    ("", "Min"): elementwise.minimum,
    ("", "Mod"): arithmetic.mod,
    ("", "OneHot"): axes.one_hot,
    ("", "Pow"): arithmetic.power,
    **{("", op): reductions.reduction(op) for op in reductions.REDUCTIONS},
    ("", "RNN"): recurrent.rnn,
    ("", "Resize"): resize.resize,
    ("", "ReverseSequence"): axes.reverse_sequence,
    ("", "ScatterElements"): scatter.scatter_elements,
    ("", "ScatterND"): scatter.scatter_nd,
    ("", "Slice"): indexing.slice_,
    ("", "Sum"): elementwise.total,
    ("", "TensorScatter"): scatter.tensor_scatter,
    ("", "TopK"): axes.top_k,
}

FOR_MORE_OUTPUTS: dict[tuple[str, str], Converter] = {
    ("", "LayerNormalization"): normalisation.layer_norm_with_statistics,
}
"""Of operators whose further outputs TVM lacks; it converts nodes that ask for the first one."""
