"""What a model must keep to and ONNX's checker lets pass, or looks at only after it has given up.

It looks at the model as the file has it: operator sets, functions and how nodes are written down.
Some of what it refuses would crash or stall the libraries that come after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx import defs

from wasmgraph.errors import ModelError, Obstacle, UnsupportedModelError

MAX_INLINED_NODES = 100_000
"""To how many nodes the functions of a model may come to in its graph. The largest networks have
some thousands; thirty functions, each of which calls the one before it twice, have 2^30."""

_IMPLICIT_OPSET_IR = 2
"""Up to this IR version a model does not say its operator set, which is version 1."""

Calls = Mapping[tuple[str, str], onnx.FunctionProto]


def check_wellformed(proto: onnx.ModelProto, name: str) -> None:
    """Check a model that parsed.

    Args:
        name: The model's, for messages.

    Raises:
        ModelError: the first thing that is wrong.
        UnsupportedModelError: an operator set from the future, sparse attributes, or functions that
            come to too many nodes.
    """
    _check_texts(proto, name)
    opsets = _operator_sets(proto, name)
    _check_initializers(proto.graph, name)
    functions = {(function.domain, function.name): function for function in proto.functions}
    for function in proto.functions:
        inner = {**opsets, **{_domain(o.domain): o.version for o in function.opset_import}}
        _check_nodes(function.node, inner, functions, name, attributes=set(function.attribute))
    _check_nodes(proto.graph.node, opsets, functions, name, attributes=set())
    _check_expansion(proto, functions, name)


def _check_texts(proto: onnx.ModelProto, name: str) -> None:
    """Names are text: protobuf hands over as bytes what is not UTF-8."""
    graph = proto.graph
    texts = [("a tensor", value.name) for value in (*graph.input, *graph.output)]
    texts += [("a tensor", tensor.name) for tensor in graph.initializer]
    texts += [("a domain", used.domain) for used in proto.opset_import]
    for function in proto.functions:
        texts += [("a function", function.name), ("a domain", function.domain)]
        texts += [("a domain", used.domain) for used in function.opset_import]
        texts += [("a tensor", text) for text in (*function.input, *function.output)]
    for nodes in (graph.node, *(function.node for function in proto.functions)):
        for _, node in _labelled(nodes):
            texts += [("an operator", node.op_type), ("a domain", node.domain)]
            texts += [("a node", node.name)]
            texts += [("a tensor", text) for text in (*node.input, *node.output)]
            texts += [("an attribute", attribute.name) for attribute in node.attribute]
    for what, text in texts:
        if isinstance(text, bytes):
            raise ModelError(
                f"{name} is not a valid ONNX model: the name {text!r} of {what} is not UTF-8"
            )


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _operator_sets(proto: onnx.ModelProto, name: str) -> dict[str, int]:
    # The same version twice says nothing new; skl2onnx writes that.
    count = Counter(
        domain for domain, _ in {(_domain(o.domain), o.version) for o in proto.opset_import}
    )
    for domain, times in count.items():
        if times > 1:
            raise ModelError(
                f"{name} is not a valid ONNX model: opset_import lists {times} versions of the "
                f"domain {domain or 'ai.onnx'}"
            )
    opsets = {_domain(used.domain): used.version for used in proto.opset_import}
    if not opsets and proto.ir_version <= _IMPLICIT_OPSET_IR:
        opsets = {"": 1}
    for used in [*proto.opset_import, *(o for f in proto.functions for o in f.opset_import)]:
        _check_version(_domain(used.domain), used.version, name)
    return opsets


def _check_version(domain: str, version: int, name: str) -> None:
    newest = defs.onnx_opset_version()
    if not 0 <= version < 2**31 or (not domain and version == 0):
        raise ModelError(
            f"{name} is not a valid ONNX model: {domain or 'ai.onnx'} has no opset {version}"
        )
    if not domain and version > newest:
        raise UnsupportedModelError(
            f"{name} is written in opset {version}, the newest known here is {newest}",
            hint="export the model for an older opset, or install a newer onnx",
        )


def _check_initializers(graph: onnx.GraphProto, name: str) -> None:
    """An initializer that is listed as an input, too, has one type and one shape."""
    inputs = {value.name: value.type.tensor_type for value in graph.input}
    for tensor in graph.initializer:
        declared = inputs.get(tensor.name)
        if declared is None:
            continue
        if declared.elem_type not in (0, tensor.data_type):
            raise ModelError(
                f"{name}: initializer {tensor.name!r} is {_dtype(tensor.data_type)}, "
                f"as an input it is {_dtype(declared.elem_type)}"
            )
        dims = [d.dim_value if d.HasField("dim_value") else None for d in declared.shape.dim]
        agrees = len(dims) == len(tensor.dims) and all(
            known is None or known == found for known, found in zip(dims, tensor.dims, strict=True)
        )
        if declared.HasField("shape") and not agrees:
            shown = ["?" if extent is None else extent for extent in dims]
            raise ModelError(
                f"{name}: initializer {tensor.name!r} has the shape {list(tensor.dims)}, "
                f"as an input it has {shown}"
            )


def _dtype(data_type: int) -> str:
    try:
        return str(onnx.TensorProto.DataType.Name(data_type)).lower()
    except ValueError:
        return f"of the unknown type {data_type}"


def _check_nodes(
    nodes: Sequence[onnx.NodeProto],
    opsets: Mapping[str, int],
    functions: Calls,
    name: str,
    attributes: set[str],
) -> None:
    """Check nodes and those in their subgraphs; `attributes` are what they may refer to."""
    for label, node in _labelled(nodes):
        domain = _domain(node.domain)
        function = functions.get((node.domain, node.op_type))
        if not domain and "" not in opsets:
            raise ModelError(
                f"{name} is not a valid ONNX model: opset_import lacks the domain ai.onnx, "
                f"of which {label} ({node.op_type}) is"
            )
        if function is not None:
            _check_call(label, node, function, name)
        elif domain in opsets and defs.has(node.op_type, opsets[domain], domain):
            _check_gaps(label, node, defs.get_schema(node.op_type, opsets[domain], domain), name)
        _check_attributes(label, node, attributes, name)


def _labelled(nodes: Sequence[onnx.NodeProto]) -> Iterator[tuple[str, onnx.NodeProto]]:
    """The nodes and those in their subgraphs, with what to call them."""
    for index, node in enumerate(nodes):
        yield node.name or f"{node.op_type}#{index}", node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _labelled(graph.node)


def _check_call(label: str, node: onnx.NodeProto, function: onnx.FunctionProto, name: str) -> None:
    for what, given, formal in (
        ("inputs", node.input, function.input),
        ("outputs", node.output, function.output),
    ):
        if len(given) > len(formal):
            raise ModelError(
                f"{name} is not a valid ONNX model: {label} calls the function {node.op_type} with "
                f"{len(given)} {what}, it has {len(formal)}"
            )


def _check_gaps(label: str, node: onnx.NodeProto, schema: defs.OpSchema, name: str) -> None:
    """Of a list of inputs (of Concat, Sum, ...) none can be left out."""
    formals = schema.inputs
    if not formals or formals[-1].option != defs.OpSchema.FormalParameterOption.Variadic:
        return
    for index in range(len(formals) - 1, len(node.input)):
        if not node.input[index]:
            raise ModelError(
                f"{name} is not a valid ONNX model: {label} ({node.op_type}) leaves out its input "
                f"{index}, which is not optional"
            )


def _check_attributes(label: str, node: onnx.NodeProto, known: set[str], name: str) -> None:
    for attribute in node.attribute:
        if attribute.ref_attr_name and attribute.ref_attr_name not in known:
            raise ModelError(
                f"{name} is not a valid ONNX model: {label} ({node.op_type}) takes its attribute "
                f"{attribute.name} from {attribute.ref_attr_name!r}, which is no attribute of a "
                "function around it"
            )
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise UnsupportedModelError(
                f"{name} cannot be compiled, it has sparse tensors:",
                hint="store them as dense ones",
                obstacles=[Obstacle(label, node.op_type, f"{attribute.name} is a sparse tensor")],
            )
        if not attribute.ref_attr_name:
            _check_value(label, node, attribute, name)


def _check_value(
    label: str, node: onnx.NodeProto, attribute: onnx.AttributeProto, name: str
) -> None:
    """Values that onnx's shape inference takes for the length of a list, or cuts to 32 bits."""
    reason = None
    if (node.op_type, attribute.name) == ("Split", "num_outputs"):
        if attribute.i != len(node.output):
            reason = f"has {len(node.output)} outputs, its num_outputs is {attribute.i}"
    elif (node.op_type, attribute.name) == ("Cast", "to") and not _is_data_type(attribute):
        to = attribute.s.decode(errors="replace") if attribute.s else attribute.i
        reason = f"casts to {to}, which is no data type"
    if reason is not None:
        raise ModelError(f"{name} is not a valid ONNX model: {label} ({node.op_type}) {reason}")


_DATA_TYPES = dict(onnx.TensorProto.DataType.items())
del _DATA_TYPES["UNDEFINED"]


def _is_data_type(attribute: onnx.AttributeProto) -> bool:
    """By number or, before opset 6, by name."""
    if attribute.type == onnx.AttributeProto.STRING:
        return attribute.s.decode(errors="replace").upper() in _DATA_TYPES
    return attribute.i in _DATA_TYPES.values()


def _check_expansion(proto: onnx.ModelProto, functions: Calls, name: str) -> None:
    """Count the nodes that inlining every function would give, without doing it."""
    sizes: dict[tuple[str, str], int] = {}
    # Callees before callers, without recursion: functions may call each other in a long chain.
    for root in functions:
        path = [root]
        while path:
            caller = path[-1]
            missing = [c for c in _calls(functions[caller].node, functions) if c not in sizes]
            if not missing:
                sizes[caller] = _size(functions[caller].node, functions, sizes)
                path.pop()
            elif missing[0] in path:
                cycle = [*path[path.index(missing[0]) :], missing[0]]
                raise ModelError(
                    f"{name} is not a valid ONNX model: its functions call each other in a circle: "
                    + " -> ".join(operator for _, operator in cycle)
                )
            else:
                path.append(missing[0])
    total = _size(proto.graph.node, functions, sizes)
    if total > MAX_INLINED_NODES and functions:
        raise UnsupportedModelError(
            f"{name} cannot be compiled: its functions come to {total} nodes, more than "
            f"{MAX_INLINED_NODES}"
        )


def _calls(nodes: Sequence[onnx.NodeProto], functions: Calls) -> list[tuple[str, str]]:
    operators = ((node.domain, node.op_type) for _, node in _labelled(nodes))
    return [operator for operator in operators if operator in functions]


def _size(
    nodes: Sequence[onnx.NodeProto], functions: Calls, sizes: Mapping[tuple[str, str], int]
) -> int:
    return sum(
        sizes[operator] if operator in functions else 1
        for operator in ((node.domain, node.op_type) for _, node in _labelled(nodes))
    )
