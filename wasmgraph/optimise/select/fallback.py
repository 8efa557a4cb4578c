"""Operators without a kernel of ours: TVM's own definition of the operator, over dense tensors."""

from __future__ import annotations

from typing import Any

from tvm import relax, tirx

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
    writes = [builder.allocate(info.shape, info.dtype) for info in infos]
    kernel = TirKernel(function.script(show_meta=True), function)
    name = op.kind.removeprefix("nn.").rpartition(".")[2]
    if op.kind == "call_tir":
        name = op.call.args[0].name_hint.rstrip("0123456789")
    builder.emit(kernel, reads, writes, op.nodes, name)
    for tensor, view in zip(op.outputs, writes, strict=True):
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
