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
    encoders,
    generators,
    indexing,
    linear,
    narrow,
    normalisation,
    padding,
    quantised,
    recurrent,
    reductions,
    resize,
    scatter,
    spectra,
    svm,
    trees,
    windows,
)
from wasmgraph.importer.quantisation import DOMAIN

Converter = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]

CONVERTERS: dict[tuple[str, str], Converter] = {
    ("", "BatchNormalization"): normalisation.batch_norm,
    ("", "BitCast"): elementwise.bit_cast,
    ("", "BitShift"): arithmetic.bit_shift,
    ("", "Clip"): elementwise.clip,
    ("", "Col2Im"): windows.col2im,
    ("", "CumProd"): axes.cumulative_product,
    ("", "CumSum"): axes.cumulative_sum,
    ("", "DFT"): spectra.dft,
    ("", "DeformConv"): windows.deform_conv,
    ("", "Det"): linear.determinant,
    ("", "Dropout"): elementwise.dropout,
    ("", "Equal"): elementwise.equal,
    ("", "EyeLike"): generators.eye_like,
    ("", "Gather"): indexing.gather,
    ("", "GRU"): recurrent.gru,
    ("", "IsInf"): elementwise.is_inf,
    ("", "GroupNormalization"): normalisation.group_norm,
    ("", "InstanceNormalization"): normalisation.instance_norm,
    ("", "LSTM"): recurrent.lstm,
    ("", "LpNormalization"): normalisation.lp_normalization,
    ("", "Max"): elementwise.maximum,
    ("", "MaxUnpool"): windows.max_unpool,
    ("", "Mean"): elementwise.mean,
    ("", "MelWeightMatrix"): generators.only_folded,
    ("", "Min"): elementwise.minimum,
    ("", "Mod"): arithmetic.mod,
    ("", "OneHot"): axes.one_hot,
    ("", "Pad"): padding.pad,
    ("", "Pow"): arithmetic.power,
    **{("", op): reductions.reduction(op) for op in reductions.REDUCTIONS},
    ("", "RNN"): recurrent.rnn,
    ("", "Resize"): resize.resize,
    ("", "ReverseSequence"): axes.reverse_sequence,
    ("", "RoiAlign"): windows.roi_align,
    ("", "STFT"): spectra.stft,
    ("", "ScatterElements"): scatter.scatter_elements,
    ("", "ScatterND"): scatter.scatter_nd,
    ("", "Sign"): elementwise.sign,
    ("", "Slice"): indexing.slice_,
    ("", "Sum"): elementwise.total,
    ("", "TensorScatter"): scatter.tensor_scatter,
    ("", "TopK"): axes.top_k,
    (DOMAIN, "Encode"): narrow.encode,
    (DOMAIN, "FromBfloat16"): narrow.from_bfloat16,
    (DOMAIN, "Lookup"): narrow.lookup,
}

CONVERTERS |= quantised.CONVERTERS

CONVERTERS |= {
    ("ai.onnx.ml", "ArrayFeatureExtractor"): encoders.array_feature_extractor,
    ("ai.onnx.ml", "LabelEncoder"): encoders.label_encoder,
    ("ai.onnx.ml", "OneHotEncoder"): encoders.one_hot_encoder,
    ("ai.onnx.ml", "SVMClassifier"): svm.svm_classifier,
    ("ai.onnx.ml", "SVMRegressor"): svm.svm_regressor,
    ("ai.onnx.ml", "TreeEnsemble"): trees.tree_ensemble,
    ("ai.onnx.ml", "TreeEnsembleClassifier"): trees.tree_classifier,
    ("ai.onnx.ml", "TreeEnsembleRegressor"): trees.tree_regressor,
}

FOR_MORE_OUTPUTS: dict[tuple[str, str], Converter] = {
    ("", "LayerNormalization"): normalisation.layer_norm_with_statistics,
    ("", "MaxPool"): windows.max_pool_with_indices,
}
"""Of operators whose further outputs TVM lacks; where only the first is read, it converts them."""
