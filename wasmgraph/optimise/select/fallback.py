"""Operators without a kernel of ours: TVM's own definition of the operator, over dense tensors."""

from __future__ import annotations

from typing import Any

from tvm import relax, tirx
from tvm.s_tir.stmt import SBlock, SBlockRealize

from wasmgraph.errors import Obstacle
from wasmgraph.optimise.opgraph import Op, is_tensor_argument
from wasmgraph.optimise.program import TirKernel
from wasmgraph.optimise.select.builder import Builder


def select_fallback(builder: Builder, op: Op) -> Obstacle | None:
    """A kernel that TVM generates; an obstacle if it has none either."""
    function = _function_of(builder, op)
    if function is None:
        return Obstacle("", op.kind, "there is no kernel for it")
    reads = [builder.dense(builder.view(tensor), op.nodes) for tensor in op.inputs]
    infos = [builder.graph.tensors[tensor] for tensor in op.outputs]
    function, workspace = _without_allocations(function)
    writes = [
        *(builder.allocate(info.shape, info.dtype) for info in infos),
        *(builder.allocate(shape, dtype) for shape, dtype in workspace),
    ]
    kernel = TirKernel(function.script(show_meta=True), function)
    name = op.kind.removeprefix("nn.").rpartition(".")[2]
    if op.kind == "call_tir":
        name = op.call.args[0].name_hint.rstrip("0123456789")
    builder.emit(kernel, reads, writes, op.nodes, name)
    for tensor, view in zip(op.outputs, writes, strict=False):
        builder.set(tensor, view)
    return None


def _function_of(builder: Builder, op: Op) -> Any | None:
    if op.kind == "call_tir":
        return builder.graph.functions[op.call.args[0].name_hint]
    return _legalised(op)


def _legalised(op: Op) -> Any | None:
    """The PrimFunc that TVM's legalisation of the operator calls, or None."""
    bb = relax.BlockBuilder()
    params: list[Any] = []

    def replaced(argument: Any) -> Any:
        if not is_tensor_argument(argument):
            return argument
        if isinstance(argument, relax.Tuple):
            return relax.Tuple([replaced(field) for field in argument.fields])
        params.append(relax.Var(f"p{len(params)}", argument.ty))
        return params[-1]

    arguments = [replaced(argument) for argument in op.call.args]
    call = relax.Call(op.call.op, arguments, op.call.attrs, op.call.ty_args)
    with bb.function("main", params):
        with bb.dataflow():
            result = bb.emit_output(bb.normalize(call))
        bb.emit_func_output(result)
    try:
        module = relax.transform.LegalizeOps()(bb.get())
    except Exception:  # TVM's errors have no common base; what it cannot legalise has no kernel
        return None
    calls = [
        binding.value
        for block in module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
    ]
    if len(calls) != 1 or calls[0].op.name != "relax.call_tir":
        return None
    given = calls[0].args[1]
    if list(given.fields if isinstance(given, relax.Tuple) else [given]) != params:
        return None
    function = module[calls[0].args[0]]
    return function if isinstance(function, tirx.PrimFunc) else None


def _without_allocations(function: Any) -> tuple[Any, list[tuple[tuple[int, ...], str]]]:
    """The function with the buffers between its stages as further parameters.

    They are planned like tensors then, and nothing is allocated when the graph runs.

    Returns:
        The function, and shape and dtype of each of these buffers.
    """
    root = function.body
    if not isinstance(root, SBlockRealize):
        return function, []
    block = root.block
    outside: list[Any] = []
    inside: list[Any] = []
    for buffer in block.alloc_buffers:
        is_fixed = all(isinstance(extent, tirx.IntImm) for extent in buffer.ty.shape)
        (outside if is_fixed else inside).append(buffer)
    if not outside:
        return function, []
    body = SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        block.body,
        block.init,
        inside,
        block.match_buffers,
        block.annotations,
    )
    realize = SBlockRealize(root.iter_values, root.predicate, body)
    params = [*function.params, *outside]
    whole = tirx.PrimFunc(params, realize, function.ret_type, function.attrs)
    return whole, [
        (tuple(int(extent) for extent in buffer.ty.shape), str(buffer.ty.dtype))
        for buffer in outside
    ]
