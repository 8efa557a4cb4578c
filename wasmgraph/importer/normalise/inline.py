"""Replace calls of functions by their bodies: the model's own, and operators defined by others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import onnx
from onnx import defs, helper, inliner
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from wasmgraph.errors import ModelError
from wasmgraph.importer.converters import find_converter, is_supported
from wasmgraph.importer.network import Network, network_to_proto, subgraphs
from wasmgraph.importer.normalise.fold import infer_shapes


def inline_local_functions(network: Network) -> None:
    """Inline the functions that the model itself defines.

    Raises:
        ModelError: onnx's inliner cannot do it, such as for a function without one of its outputs.
    """
    if not network.functions:
        return
    try:
        proto = inliner.inline_local_functions(network_to_proto(network))
    except (RuntimeError, ValueError, ValidationError, InferenceError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{network.name}: its functions cannot be inlined: {reason}") from error
    _take_nodes(network, proto)
    network.functions = []


def inline_schema_functions(
    network: Network, has_converter: Callable[[onnx.NodeProto], bool] = is_supported
) -> None:
    """Inline operators that ONNX defines in terms of simpler ones and that have no converter.

    Others stay whole: a fused Softmax is worth keeping.
    """
    hopeless: set[tuple[str, str]] = set()
    while True:
        for node in network.nodes:
            if find_converter(node) or has_function_body(node.domain, node.op_type, network):
                _write_out_defaults(node, network)
        wanted = _expandable(network, has_converter) - hopeless
        if not wanted:
            return
        operator = min(wanted)
        try:
            proto = inliner.inline_selected_functions(
                # Weights as inputs, since the types of initializers are not looked at.
                network_to_proto(network, small_bytes=-1),
                [operator],
                exclude=False,
                inline_schema_functions=True,
            )
        except (RuntimeError, ValueError):
            if not _expand_with_gaps(operator, network):
                # The nodes stay, and are refused with all the others.
                hopeless.add(operator)
            continue
        _take_nodes(network, proto)
        if operator in _expandable(network, has_converter):
            hopeless.add(operator)


def _expand_with_gaps(operator: tuple[str, str], network: Network) -> bool:
    """Inline calls that leave out an input in the middle, which onnx's inliner cannot.

    Each becomes a function of the model with the inputs that are there. False if a call has no
    definition.
    """
    infer_shapes(network)
    functions: list[onnx.FunctionProto] = []
    for node in network.nodes:
        if (node.domain, node.op_type) != operator:
            continue
        function = _definition(node, network)
        if function is None:
            return False
        _close_gaps(function, node)
        function.domain, function.name = _LOCAL_DOMAIN, f"{node.op_type}_{len(functions)}"
        node.domain, node.op_type = function.domain, function.name
        functions.append(function)
    proto = network_to_proto(network, small_bytes=-1)
    proto.functions.extend(functions)
    proto.opset_import.append(helper.make_opsetid(_LOCAL_DOMAIN, 1))
    _take_nodes(network, inliner.inline_local_functions(proto))
    return True


_LOCAL_DOMAIN = "wasmgraph.inlined"


def _definition(node: onnx.NodeProto, network: Network) -> onnx.FunctionProto | None:
    """The body of this call, in the model's opset."""
    version = network.opsets[node.domain]
    schema = defs.get_schema(node.op_type, version, node.domain)
    try:
        if schema.has_function:
            encoded = schema.get_function_with_opset_version(
                _newest(schema.function_opset_versions, version)
            )
        else:
            types = [_encoded_type(name, network) for name in node.input]
            encoded = schema.get_context_dependent_function_with_opset_version(
                _newest(schema.context_dependent_function_opset_versions, version),
                node.SerializeToString(),
                types,
            )
    except (RuntimeError, ValueError):
        return None
    if not encoded:
        return None
    function = onnx.FunctionProto.FromString(encoded)
    for used in function.opset_import:
        used.version = network.opsets.get(used.domain, used.version)
    return function


def _newest(versions: Sequence[int], limit: int) -> int:
    return max((version for version in versions if version <= limit), default=limit)


def _encoded_type(name: str, network: Network) -> bytes:
    known = network.types.get(name)
    if known is None:
        return b""
    elem_type = helper.np_dtype_to_tensor_dtype(known.dtype)
    encoded = helper.make_tensor_type_proto(elem_type, known.shape).SerializeToString()
    return bytes(encoded)


def _close_gaps(function: onnx.FunctionProto, node: onnx.NodeProto) -> None:
    """Drop the inputs that a call leaves out, from it and from the function's body."""
    given = [name for name in node.input if name]
    missing = {
        formal
        for index, formal in enumerate(function.input)
        if index >= len(node.input) or not node.input[index]
    }
    formals = [formal for formal in function.input if formal not in missing]
    del node.input[:], function.input[:]
    node.input.extend(given)
    function.input.extend(formals)
    for inner in _with_nested(function.node):
        for index, name in enumerate(inner.input):
            if name in missing:
                inner.input[index] = ""


def _with_nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _with_nested(graph.node)


def _expandable(
    network: Network, has_converter: Callable[[onnx.NodeProto], bool]
) -> set[tuple[str, str]]:
    return {
        (node.domain, node.op_type)
        for node in network.nodes
        if not has_converter(node) and has_function_body(node.domain, node.op_type, network)
    }


def _write_out_defaults(node: onnx.NodeProto, network: Network) -> None:
    """Give a node every attribute that has a default.

    Function bodies refer to the attributes of the call, and onnx's inliner and shape inference
    pass on only those that are written there: the Cast in HannWindow would end up without a type.
    Converters need not know that DFT's axis has another default from opset 20 on; and shape
    inference takes an STFT that does not say so for a two-sided one.
    """
    version = network.opsets.get(node.domain)
    if version is None or not defs.has(node.op_type, version, node.domain):
        return
    given = {attribute.name for attribute in node.attribute}
    schema = defs.get_schema(node.op_type, version, node.domain)
    for name, attribute in sorted(schema.attributes.items()):
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _take_nodes(network: Network, proto: onnx.ModelProto) -> None:
    network.nodes = list(proto.graph.node)
    for index, node in enumerate(network.nodes):
        if not node.name:
            node.name = f"{node.op_type}#{index}"


def has_function_body(domain: str, op_type: str, network: Network) -> bool:
    """Whether ONNX defines the operator by other operators."""
    version = network.opsets.get(domain)
    if version is None or not defs.has(op_type, version, domain):
        return False
    schema = defs.get_schema(op_type, version, domain)
    return bool(schema.has_function or schema.has_context_dependent_function)
