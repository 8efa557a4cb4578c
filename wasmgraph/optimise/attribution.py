"""Which ONNX nodes each fused call computes.

FuseOps renames the result of a group, and with it goes the node index that the variable carried.
Replaying each group's body on the graph before fusion finds the variables it was made of.
"""

from __future__ import annotations

from typing import Any

from tvm import relax
from tvm.ir import GenericConst, GlobalVar

from wasmgraph.importer.provenance import marked_node
from wasmgraph.importer.relax_graph import data_address


def attribute(before: Any, after: Any) -> tuple[frozenset[int], ...]:
    """Node indices for every binding of `main` after FuseOps, in order.

    Args:
        before: The module just before FuseOps.
        after: The module just after it.
    """
    replay = _Replay(before)
    main = after["main"]
    environment = dict(zip(main.params, replay.params, strict=True))
    groups = []
    for binding in _bindings(main):
        members: set[int] = set()
        environment[binding.var] = replay.run(binding.value, environment, after, members)
        groups.append(frozenset(members))
    return tuple(groups)


def _bindings(function: Any) -> list[Any]:
    return [binding for block in function.body.blocks for binding in block.bindings]


class _Replay:
    """The graph before fusion, as a table from (operator, operands) to (variable, node)."""

    def __init__(self, module: Any) -> None:
        main = module["main"]
        self.params = [f"%{index}" for index in range(len(main.params))]
        self.table: dict[Any, tuple[str, int | None]] = {}
        environment = dict(zip(main.params, self.params, strict=True))
        bindings = _bindings(main)
        nodes = _nodes_of_variables(bindings)
        for binding in bindings:
            key = _key(binding.value, environment)
            # Two equal bindings are one value; the first names it.
            name, _ = self.table.setdefault(
                key, (f"#{len(self.table)}", nodes.get(binding.var))
            )
            environment[binding.var] = name

    def run(self, value: Any, environment: dict[Any, Any], module: Any, members: set[int]) -> Any:
        """The name of the variable that `value` equals; gathers the nodes on the way."""
        operator = getattr(value, "op", None)
        if isinstance(operator, GlobalVar):
            function = module[operator]
            inner = {
                param: _refer(argument, environment)
                for param, argument in zip(function.params, value.args, strict=True)
            }
            for binding in _bindings(function):
                inner[binding.var] = self.run(binding.value, inner, module, members)
            return _refer(function.body.body, inner)
        key = _key(value, environment)
        name, node = self.table.setdefault(key, (f"#{len(self.table)}", None))
        if node is not None:
            members.add(node)
        return name


def _refer(expr: Any, environment: dict[Any, Any]) -> Any:
    if isinstance(expr, GenericConst):
        return ("constant", data_address(expr))
    if isinstance(expr, relax.Tuple):
        return tuple(_refer(field, environment) for field in expr.fields)
    if isinstance(expr, relax.TupleGetItem):
        return ("field", expr.index, _refer(expr.tuple_value, environment))
    return environment.get(expr, str(expr))


def _key(value: Any, environment: dict[Any, Any]) -> Any:
    operator = getattr(value, "op", None)
    if operator is None:
        return _refer(value, environment)
    arguments = []
    for argument in value.args:
        if isinstance(argument, GlobalVar):
            arguments.append(argument.name_hint)
        else:
            arguments.append(_refer(argument, environment))
    return (operator.name, tuple(arguments), str(value.ty))


def _nodes_of_variables(bindings: list[Any]) -> dict[Any, int]:
    """The ONNX node of every variable; an unmarked one belongs to the next marked reader's node."""
    nodes: dict[Any, int] = {}
    for binding in reversed(bindings):
        own = marked_node(binding.var.name)
        if own is not None:
            nodes[binding.var] = own
        if binding.var in nodes:
            for used in relax.analysis.free_vars(binding.value):
                nodes.setdefault(used, nodes[binding.var])
    return nodes
