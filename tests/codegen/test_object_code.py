"""What LLVM cannot be given is refused by the nodes' names."""

from __future__ import annotations

from typing import Any

import pytest
from tvm import relax

from wasmgraph.codegen.object_code import compile_object
from wasmgraph.errors import UnsupportedModelError
from wasmgraph.lower.tir import lower_tir


def legalised(make: Any, *shapes: tuple[tuple[int, ...], str]) -> Any:
    """The PrimFunc of the one operator that `make` calls."""
    bb = relax.BlockBuilder()
    params = [relax.Var(f"p{i}", relax.TensorType(*shape)) for i, shape in enumerate(shapes)]
    with bb.function("main", params):
        with bb.dataflow():
            result = bb.emit_output(bb.normalize(make(*params)))
        bb.emit_func_output(result)
    module = relax.transform.LegalizeOps()(bb.get())
    (name,) = [gv for gv in module.get_global_vars() if gv.name_hint != "main"]
    return module[name]


def test_every_function_that_llvm_fails_on_is_named() -> None:
    """TVM 0.27 leaves a variable undefined in its scatter kernels."""

    def scatter(data: Any, indices: Any, updates: Any) -> Any:
        return relax.op.scatter_elements(data, indices, updates, axis=0)

    bad = legalised(scatter, ((3, 3), "float32"), ((2, 1), "int64"), ((2, 1), "float32"))
    good = legalised(relax.op.nn.relu, ((3, 3), "float32"))
    functions = {
        symbol: lower_tir(function, symbol, "simd128")
        for symbol, function in (("first", bad), ("fine", good), ("second", bad))
    }
    nodes = {symbol: f"node {symbol}" for symbol in functions}
    with pytest.raises(UnsupportedModelError) as raised:
        compile_object(functions, nodes, "simd128")
    assert {obstacle.node for obstacle in raised.value.obstacles} == {"node first", "node second"}
