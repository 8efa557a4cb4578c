"""Tiny ONNX models for tests, written in a few lines each, and the way to run one as a graph."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import wasmgraph
from wasmgraph.bundle import Bundle, read_bundle
from wasmgraph.importer import load_model
from wasmgraph.importer.network import Network, network_from_proto

Array = NDArray[Any]
Shape = Sequence[int | str | None]
Ports = Mapping[str, Shape | tuple[str, Shape]]
"""Shapes by name; a pair where the dtype is not float32."""

CUSTOM_DOMAIN = "example.org"


def node(
    op: str, inputs: str | Sequence[str], outputs: str | Sequence[str], **attributes: Any
) -> onnx.NodeProto:
    """One node; names are separated by blanks. `name` and `domain` go among the attributes.

    >>> node("Conv", "x w b", "y", pads=[1, 1, 1, 1])
    """

    def names(text: str | Sequence[str]) -> list[str]:
        return text.split() if isinstance(text, str) else list(text)

    return helper.make_node(op, names(inputs), names(outputs), **attributes)


def make_model(
    nodes: Iterable[onnx.NodeProto],
    inputs: Ports,
    outputs: Ports | str,
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 18,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model of a few nodes.

    Args:
        nodes: In topological order.
        inputs: Their shapes, with dtypes where those are not float32.
        outputs: The same, or only names (float32, without a shape).
        weights: Initializers; what is no array becomes one.
    """
    if isinstance(outputs, str):
        outputs = dict.fromkeys(outputs.split(), ("float32", None))
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [_value(name, port) for name, port in inputs.items()],
        [_value(name, port) for name, port in outputs.items()],
        [numpy_helper.from_array(np.asarray(w), name) for name, w in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(CUSTOM_DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=8)


def _value(name: str, port: Any) -> onnx.ValueInfoProto:
    has_dtype = len(port) == 2 and isinstance(port[0], str) and not isinstance(port[1], (int, str))
    dtype, shape = port if has_dtype else ("float32", port)
    elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, elem_type, shape)


def make_network(*args: Any, **kwargs: Any) -> Network:
    """The model that `make_model` makes, taken apart for the importer's passes."""
    return network_from_proto(make_model(*args, **kwargs), "tiny")


def operators(network: Network) -> list[str]:
    """The operators of a network, in order."""
    return [item.op_type for item in network.nodes]


def compile_to_bundle(model: onnx.ModelProto, **options: Any) -> Bundle:
    """All stages up to the bundle (and the link, since `compile` ends with it)."""
    with tempfile.TemporaryDirectory() as folder:
        bundle_dir = Path(folder) / "bundle"
        wasmgraph.compile(
            model, Path(folder) / "tiny.wasm", verify=False, bundle_dir=bundle_dir, **options
        )
        return read_bundle(bundle_dir)


def import_network(model: onnx.ModelProto) -> Network:
    """The model loaded and checked, as the importer's passes get it."""
    loaded = load_model(model)
    return network_from_proto(loaded.proto, loaded.name)


def run_as_wasm(
    model: onnx.ModelProto, inputs: Mapping[str, object], **options: Any
) -> dict[str, Array]:
    """Compile a model, load the graph and run it once under Wasmtime (about a second)."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "tiny.wasm"
        wasmgraph.compile(model, target, verify=False, **options)
        with wasmgraph.load(target, timeout=60) as graph:
            return graph.run(inputs)
