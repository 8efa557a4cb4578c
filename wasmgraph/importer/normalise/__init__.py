"""Normalise at the ONNX level, where it is quick, so that Relax sees one dialect.

After it: one opset, no functions, static shapes, and nothing left that can be computed now.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import onnx

from wasmgraph.bundle import WeightFormat
from wasmgraph.errors import ModelError
from wasmgraph.importer.network import Network, subgraphs
from wasmgraph.importer.normalise.auto_pad import write_out_padding
from wasmgraph.importer.normalise.bodies import change_bodies
from wasmgraph.importer.normalise.contrib import expand_contrib
from wasmgraph.importer.normalise.ensembles import check_ensembles
from wasmgraph.importer.normalise.expand_quantised import expand_quantised
from wasmgraph.importer.normalise.fold import fold_constants
from wasmgraph.importer.normalise.inline import inline_schema_functions
from wasmgraph.importer.normalise.integer_products import multiply_integers
from wasmgraph.importer.normalise.legacy import replace_legacy
from wasmgraph.importer.normalise.machine_learning import drop_zip_maps, expand_machine_learning
from wasmgraph.importer.normalise.move_quantised import move_quantised
from wasmgraph.importer.normalise.narrow import store_narrow
from wasmgraph.importer.normalise.narrow_tables import narrow_tables
from wasmgraph.importer.normalise.narrow_weights import mentions_narrow, widen_narrow_weights
from wasmgraph.importer.normalise.older import separate_axes, write_opset_7
from wasmgraph.importer.normalise.operands import check_operands
from wasmgraph.importer.normalise.round_weights import round_weights
from wasmgraph.importer.normalise.simplify import (
    drop_empty_operands,
    remove_dead_nodes,
    remove_no_ops,
)
from wasmgraph.importer.normalise.transposed import pad_transposed_convolutions
from wasmgraph.importer.normalise.unflatten import unflatten_products
from wasmgraph.importer.normalise.upgrade import upgrade_opset, write_older_axes
from wasmgraph.importer.normalise.widen import widen_halves

FORMING = (
    check_ensembles,
    drop_zip_maps,
    replace_legacy,
    write_opset_7,
    separate_axes,
    upgrade_opset,
    check_operands,
    expand_quantised,
    expand_contrib,
    expand_machine_learning,
    inline_schema_functions,
    remove_no_ops,
)
"""The passes that bring a network into one dialect."""

_TO_FLOAT32 = (
    *FORMING,
    fold_constants,
    unflatten_products,
    check_operands,
    pad_transposed_convolutions,
    write_out_padding,
    widen_halves,
    remove_no_ops,
)

_TO_KERNELS = (
    store_narrow,
    drop_empty_operands,
    move_quantised,
    multiply_integers,
    remove_dead_nodes,
)


def normalise_dynamic(network: Network, has_converter: Callable[[onnx.NodeProto], bool]) -> None:
    """Normalise a network some of whose shapes stay open.

    Branches and bodies keep their opset, as ONNX's converter does not reach into them; so does the
    whole model where it has any, or where it cannot be upgraded.

    Args:
        network: Changed in place.
        has_converter: Whether a node stays as it is; others are replaced by their definitions.

    Raises:
        ModelError: shapes contradict each other.
    """
    for step in (drop_zip_maps, replace_legacy, write_opset_7, separate_axes):
        step(network)
    if not any(any(subgraphs(node)) for node in network.nodes):
        with suppress(ModelError):
            upgrade_opset(network)

    def write_out(part: Network) -> None:
        expand_contrib(part)
        expand_machine_learning(part)
        write_older_axes(part)
        inline_schema_functions(part, has_converter)

    def write_out_body(part: Network) -> None:
        replace_legacy(part)
        separate_axes(part)
        write_out(part)

    write_out(network)
    change_bodies(network, lambda node: not has_converter(node), write_out_body)
    remove_no_ops(network)
    fold_constants(network)
    widen_narrow_weights(network)
    change_bodies(network, mentions_narrow, fold_and_widen)
    for step in (widen_halves, remove_no_ops, drop_empty_operands):
        step(network)
    remove_dead_nodes(network)


def fold_and_widen(network: Network) -> None:
    """Compute what depends on constants alone, and leave no weight that is narrow."""
    fold_constants(network)
    widen_narrow_weights(network)


def form(network: Network) -> None:
    """Only what comes before constants are folded: the nodes still say how shapes are computed.

    Raises:
        ModelError: the shapes contradict each other, or a node has what it cannot have.
    """
    for step in FORMING:
        step(network)


def normalise(network: Network, weights: WeightFormat | None = None) -> None:
    """Run the passes in order, on a network whose input shapes are fixed.

    Args:
        network: Changed in place.
        weights: As what large weights are stored; None: as small as they are without rounding.

    Raises:
        ModelError: the shapes contradict each other, or a node has what it cannot have.
    """
    normalise_to_rounded(network, weights)
    if weights != "f32":
        narrow_tables(network)
    for step in _TO_KERNELS:
        step(network)


def normalise_to_rounded(network: Network, weights: WeightFormat | None) -> None:
    """The first part of it, after which the network is still one of ONNX's own operators.

    Raises:
        ModelError: as `normalise` does.
    """
    for step in _TO_FLOAT32:
        step(network)
    if weights is not None:
        round_weights(network, weights)
