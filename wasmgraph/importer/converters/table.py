"""Our own converters, by domain and operator.

Each takes the block builder, the inputs (None where left out) and the attributes, and returns
one expression, or a tuple of them where the operator has several outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wasmgraph.importer.converters import elementwise, indexing, normalisation, scatter

Converter = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]

CONVERTERS: dict[tuple[str, str], Converter] = {
    ("", "BatchNormalization"): normalisation.batch_norm,
    ("", "Clip"): elementwise.clip,
    ("", "Dropout"): elementwise.dropout,
    ("", "Gather"): indexing.gather,
    ("", "IsInf"): elementwise.is_inf,
    ("", "Max"): elementwise.maximum,
    ("", "Mean"): elementwise.mean,
    ("", "Min"): elementwise.minimum,
    ("", "Pow"): elementwise.power,
    ("", "ScatterElements"): scatter.scatter_elements,
    ("", "ScatterND"): scatter.scatter_nd,
    ("", "Slice"): indexing.slice_,
    ("", "Sum"): elementwise.total,
}
