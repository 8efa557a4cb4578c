"""TVM's functions to loops over flat memory, for operators without a kernel of our own."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir
from tvm.tirx import transform as tir

from wasmgraph.bundle import SimdLevel
from wasmgraph.lower.signature import give_c_signature
from wasmgraph.lower.target import target_for


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


def lower_tir(function: Any, symbol: str, simd: SimdLevel) -> Any:
    """A PrimFunc over buffers as a C function, ready for LLVM."""
    target = target_for(simd)
    function = function.with_attr("global_symbol", symbol).with_attr("target", target)
    module = tvm.IRModule({symbol: function})
    with tvm.transform.PassContext(opt_level=3), target:
        module = tvm.transform.Sequential(_passes())(module)
        module = give_c_signature(module)
        module = tvm.transform.Sequential(
            [tir.BF16StorageLegalize(), tir.LowerTVMBuiltin(), tir.LowerIntrin()]
        )(module)
    return module[symbol]
