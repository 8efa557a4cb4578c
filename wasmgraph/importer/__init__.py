"""Stage 1: ONNX to Relax. Upgrade the opset, fix shapes, fold constants, reject with a clear error.

Importing this package imports onnx, but TVM only when `import_model` runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from wasmgraph.bundle import Source, WeightFormat
from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.importer.load import MAX_WEIGHT_BYTES, LoadedModel, load_model
from wasmgraph.progress import SILENT, Reporter

if TYPE_CHECKING:
    import onnx

    from wasmgraph.bundle import Batch
    from wasmgraph.dynamic.build import Converted
    from wasmgraph.importer.network import Network
    from wasmgraph.importer.relax_graph import RelaxGraph

__all__ = [
    "DynamicModel",
    "ImportedModel",
    "LoadedModel",
    "describe_source",
    "import_model",
    "load_model",
    "rounded_model",
    "static_graph",
]


@dataclass(frozen=True)
class ImportedModel:
    """A model, and what it came from.

    Attributes:
        source: What it came from.
        graph: The model as Relax, where every shape is known.
        dynamic: The model as it is, where some shapes are known at run time only.
        batch: That `graph` is for one sample of a batch, where only the batch's axis is open.
        bounds: The largest extents of open axes that have one, by name.
    """

    source: Source
    graph: RelaxGraph | None
    dynamic: DynamicModel | None = None
    batch: Batch | None = None
    bounds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DynamicModel:
    """A normalised network with open shapes; every one of its nodes has a dynamic operator.

    Attributes:
        network: The model.
        converted: Its nodes as operators of the executor.
        outputs: The shapes of its outputs, with names for the axes that are not known.
        reason: Why shapes are not known, for a person.
        whole_batch: Why a batch does not run sample by sample; empty where no axis is open, or
            several are.
    """

    network: Network
    converted: Converted
    outputs: tuple[tuple[int | str, ...], ...]
    reason: str
    whole_batch: str = ""


def import_model(
    loaded: LoadedModel,
    shapes: Mapping[str, Sequence[int]] | None = None,
    reporter: Reporter = SILENT,
    dynamic: Collection[str] | Mapping[str, int | None] = (),
    weights: WeightFormat | None = None,
    *,
    by_sample: bool = True,
    threads: bool = False,
) -> ImportedModel:
    """Turn a loaded model into Relax where its shapes are static, else into a dynamic model.

    A model is dynamic where axes of its inputs stay open, or where it has control flow, sequences
    or sizes that depend on data. If only the axis of a batch is open, and every sample is treated
    alone, the model of one sample does.

    Args:
        loaded: From `load_model`.
        shapes: Extents by input name, for dynamic axes or to replace fixed ones.
        reporter: Told what is going on.
        dynamic: Names of axes that stay open, or of inputs whose axes all do, with the largest
            extents that they can have, where there are such.
        weights: As what large weights are stored (see `normalise`). A dynamic model's are not
            rounded.
        by_sample: Whether a model that leaves only a batch open may be compiled for one sample.
        threads: Whether it is for several threads, which dynamic models have no use for.

    Raises:
        ModelError: shapes contradict each other.
        InputError: `shapes` or `dynamic` names no input, or does not fit.
        UnsupportedModelError: nodes that cannot be compiled, each listed; or a dynamic model whose
            weights are to be rounded.
    """
    from wasmgraph.crash_handlers import import_tvm

    import_tvm()  # before anything else does
    from wasmgraph.importer.network import network_from_proto
    from wasmgraph.importer.normalise.inline import inline_local_functions
    from wasmgraph.importer.shapes import axis_bounds, fix_shapes

    def fresh() -> tuple[Network, bool]:
        network = network_from_proto(loaded.proto, loaded.name)
        inline_local_functions(network)
        return network, fix_shapes(network, shapes or {}, dynamic)

    source = describe_source(loaded)
    network, is_open = fresh()
    reporter.log(f"{len(network.nodes)} nodes, opset {network.opset}")
    if is_open:
        opened = _open_model(loaded, lambda: fresh()[0], reporter, weights, by_sample, threads)
        return replace(opened, bounds=axis_bounds(network, dynamic))
    try:
        return ImportedModel(source, static_graph(network, reporter, weights))
    except UnsupportedModelError as error:
        if not all(map(_needs_dynamic_shapes, error.obstacles)):
            raise
        reporter.log("not with static shapes")
        network, _ = fresh()
        reason = "control flow, sequences or sizes that depend on data"
        _reject_rounding(loaded, reason, weights)
        try:
            return ImportedModel(source, None, _dynamic_model(network, reason, reporter))
        except UnsupportedModelError as other:
            raise (other if _have_converters(error.obstacles) else error) from None


def _open_model(
    loaded: LoadedModel,
    fresh: Callable[[], Network],
    reporter: Reporter,
    weights: WeightFormat | None,
    by_sample: bool,
    threads: bool,
) -> ImportedModel:
    """A model with open axes: that of one sample where a batch can run sample by sample."""
    from wasmgraph.importer.batching import Mixed, batch_axis, for_batch, is_little_work, separate

    source = describe_source(loaded)

    def whole(reason: str) -> ImportedModel:
        _reject_rounding(loaded, "open axes", weights)
        model = _dynamic_model(fresh(), "open axes", reporter)
        return ImportedModel(source, None, replace(model, whole_batch=reason))

    axis = batch_axis(fresh())
    if axis is None or not by_sample:
        return whole("")
    try:
        batch = separate(fresh, axis)
        network = fresh()
        for_batch(network, axis, 1)
        graph = static_graph(network, reporter, weights)
    except (Mixed, UnsupportedModelError) as reason:
        reporter.log(f"not sample by sample: {reason}")
        return whole(str(reason))
    if is_little_work(network) and not threads:
        # Unless it takes what dynamic graphs lack.
        with suppress(UnsupportedModelError):
            return whole("a sample is less work than to change from one to the next")
    reporter.log(f"one sample of batch axis {axis!r}")
    return ImportedModel(source, graph, batch=batch)


def _reject_rounding(loaded: LoadedModel, reason: str, weights: WeightFormat | None) -> None:
    if weights in ("f16", "int8"):
        raise UnsupportedModelError(
            f"{loaded.name} has {reason}: the weights of such a graph are float32, not {weights}",
            hint="leave out --weights, or fix all shapes with --shape",
        )


def rounded_model(
    loaded: LoadedModel, shapes: Mapping[str, Sequence[int]], weights: WeightFormat
) -> onnx.ModelProto:
    """The model with its weights rounded as `import_model` rounds them, of ONNX's own operators.

    Its inputs have the shapes given, its outputs their names.

    Raises:
        ModelError, InputError, UnsupportedModelError: as `import_model` does.
    """
    from wasmgraph.importer.network import network_from_proto, network_to_proto
    from wasmgraph.importer.normalise import normalise_to_rounded
    from wasmgraph.importer.normalise.inline import inline_local_functions
    from wasmgraph.importer.shapes import fix_shapes

    network = network_from_proto(loaded.proto, loaded.name)
    inline_local_functions(network)
    fix_shapes(network, shapes)
    normalise_to_rounded(network, weights)
    proto = network_to_proto(network, small_bytes=MAX_WEIGHT_BYTES)
    for node in proto.graph.node:
        node.ClearField("name")  # those of one node of the model share its name
    return proto


def _needs_dynamic_shapes(obstacle: Obstacle) -> bool:
    """Whether a node is only refused since its shapes are not known when compiling."""
    from wasmgraph.importer.converters import DYNAMIC_OPERATORS

    return obstacle.op in DYNAMIC_OPERATORS or "computed at run time" in obstacle.reason


def _have_converters(obstacles: Iterable[Obstacle]) -> bool:
    """Whether dynamic graphs have all these operators, so that others stand in the way."""
    from wasmgraph.dynamic.operators import CONVERTERS

    return all(("", obstacle.op) in CONVERTERS for obstacle in obstacles)


def static_graph(
    network: Network, reporter: Reporter = SILENT, weights: WeightFormat | None = None
) -> RelaxGraph:
    """A network of fixed input shapes as Relax.

    Args:
        weights: As for `import_model`.

    Raises:
        ModelError: shapes contradict each other.
        UnsupportedModelError: lists every node that cannot be compiled with static shapes.
    """
    from wasmgraph.importer.normalise import normalise
    from wasmgraph.importer.relax_graph import build_relax
    from wasmgraph.importer.support import (
        reject_impossible_tensors,
        reject_unsupported,
        reject_wide_attributes,
    )

    reject_unsupported(network, upgraded=False)
    normalise(network, weights)
    reporter.log(f"{len(network.nodes)} nodes after normalisation, opset {network.opset}")
    reject_unsupported(network, upgraded=True)
    reject_impossible_tensors(network)
    reject_wide_attributes(network)
    return build_relax(network)


def _dynamic_model(network: Network, reason: str, reporter: Reporter) -> DynamicModel:
    from wasmgraph.dynamic.build import MORE_OPERATORS, convert, output_shapes
    from wasmgraph.dynamic.operators import has_converter, why_unsupported
    from wasmgraph.importer.normalise import normalise_dynamic
    from wasmgraph.importer.support import reject_impossible_tensors, reject_unsupported

    reject_unsupported(network, upgraded=False, why=why_unsupported, hint=MORE_OPERATORS)
    normalise_dynamic(network, has_converter)
    reporter.log(f"{len(network.nodes)} nodes with dynamic shapes, opset {network.opset}")
    reject_unsupported(network, upgraded=True, why=why_unsupported, hint=MORE_OPERATORS)
    reject_impossible_tensors(network)
    return DynamicModel(network, convert(network), tuple(output_shapes(network)), reason)


def describe_source(loaded: LoadedModel) -> Source:
    """What `graph.json` says of the model a graph came from."""
    operators = Counter(
        f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for node in loaded.proto.graph.node
    )
    opsets = {o.domain: o.version for o in loaded.proto.opset_import}
    return Source(
        name=loaded.name,
        sha256=loaded.sha256,
        opset=opsets.get("", opsets.get("ai.onnx", 1)),
        operators=dict(sorted(operators.items())),
    )
