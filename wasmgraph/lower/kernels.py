"""From fused functions to loops over flat memory, each a C function `int32 k(void*, ...)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir
from tvm.tirx import transform as tir

from wasmgraph.bundle import SimdLevel
from wasmgraph.errors import Obstacle, UnsupportedModelError
from wasmgraph.lower.signature import give_c_signature
from wasmgraph.lower.target import target_for
from wasmgraph.optimise.program import Program
from wasmgraph.progress import Reporter


@dataclass(frozen=True)
class LoweredKernel:
    """One kernel.

    Attributes:
        symbol: Its C name.
        buffers: How many pointers it takes.
        description: The fused operators.
    """

    symbol: str
    buffers: int
    description: str


@dataclass(frozen=True)
class LoweredKernels:
    """All kernels of a graph.

    Attributes:
        module: TIR ready for LLVM.
        kernels: In the order of their first call.
        by_function: Index into `kernels` by the program's function name.
    """

    module: Any
    kernels: tuple[LoweredKernel, ...]
    by_function: Mapping[str, int]


def _passes() -> list[Any]:
    """The stock lowering of schedulable TIR without the packed calling convention.

    Order as in TVM's own CPU pipeline, from which the GPU passes, SplitHostDevice and
    MakePackedAPI are left out.
    """
    return [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        tir.FlattenBuffer(),
        tir.BF16ComputeLegalize(),
        # 64-bit index arithmetic would cost a wrap per address in a 32-bit memory.
        tir.NarrowDataType(32),
        s_tir.transform.LoopPartition(),
        tir.VectorizeLoop(True),
        tir.StorageRewrite(),
        s_tir.transform.HoistIfThenElse(),
        tir.UnrollLoop(),
        s_tir.transform.RenormalizeSplitPattern(),
        tir.StmtSimplify(),
        tir.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        tir.CommonSubexprElim(),
    ]


def lower_kernels(program: Program, simd: SimdLevel, reporter: Reporter) -> LoweredKernels:
    """Lower the called functions, equal ones once.

    Raises:
        UnsupportedModelError: TVM cannot lower a function; every such function is listed.
    """
    target = target_for(simd)
    names: dict[str, int] = {}
    functions: dict[Any, Any] = {}
    kernels: list[LoweredKernel] = []
    obstacles: list[Obstacle] = []
    used = dict.fromkeys(call.function for call in program.calls)
    nodes = {call.function: call.nodes for call in program.calls}
    reporter.set_total(len(used))
    for name in used:
        function = program.functions[name]
        symbol = f"wgk_{len(kernels)}_{name}"
        try:
            functions[tvm.ir.GlobalVar(symbol)] = _lower_one(function, symbol, target)
        except Exception as error:
            reason = str(error).strip().splitlines()
            obstacles.append(
                Obstacle(", ".join(nodes[name]) or name, name, reason[-1] if reason else repr(error))
            )
        names[name] = len(kernels)
        kernels.append(LoweredKernel(symbol, len(function.params), describe(name)))
        reporter.advance(name)
    if obstacles:
        raise UnsupportedModelError(
            "these fused operators cannot be lowered to WebAssembly:", obstacles=obstacles
        )
    module = tvm.IRModule(functions)
    return LoweredKernels(module, tuple(kernels), names)


def _lower_one(function: Any, symbol: str, target: Any) -> Any:
    function = function.with_attr("global_symbol", symbol).with_attr("target", target)
    module = tvm.IRModule({symbol: function})
    with tvm.transform.PassContext(opt_level=3), target:
        module = tvm.transform.Sequential(_passes())(module)
        module = give_c_signature(module)
        module = tvm.transform.Sequential(
            [tir.BF16StorageLegalize(), tir.LowerTVMBuiltin(), tir.LowerIntrin()]
        )(module)
    return module[symbol]


def describe(name: str) -> str:
    """A fused function's name as a list of operators: "fused_conv2d1_add1" -> "conv2d + add"."""
    if not name.startswith("fused_"):
        return name.rstrip("0123456789") or name
    return " + ".join(name.removeprefix("fused_").split("_"))
