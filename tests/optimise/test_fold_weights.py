"""What is done to weights alone is done at compile time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax

from tests.onnx_models import Array
from tests.optimise.relax_modules import bindings, operators
from wasmgraph.importer.converters.static import constant
from wasmgraph.optimise.fold_weights import fold_weight_expressions

W = np.arange(6, dtype=np.float32).reshape(2, 3)
V = np.array([[1, -2, 3]], np.float32)


def module(build: Any, shape: tuple[int, ...] = (2, 3)) -> Any:
    """`main(x)` returns what `build(x, emit)` returns."""
    bb = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with bb.function("main", params=[x]):
        with bb.dataflow():
            result = bb.emit_output(build(x, bb.emit))
        bb.emit_func_output(result)
    return bb.get()


def operand(mod: Any) -> Array:
    """The constant that the last binding's call takes as its second operand."""
    (call,) = [b.value for b in bindings(mod) if operators(mod) and hasattr(b.value, "args")]
    return call.args[1].value.numpy()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda emit: emit(relax.op.reshape(constant(W), (3, 2))), W.reshape(3, 2)),
        (lambda emit: emit(relax.op.permute_dims(constant(W), [1, 0])), W.T),
        (lambda emit: emit(relax.op.permute_dims(constant(W))), W.T),
        (lambda emit: emit(relax.op.broadcast_to(constant(V), (2, 3))), np.tile(V, (2, 1))),
        (lambda emit: emit(relax.op.negative(constant(W))), -W),
        (lambda emit: emit(relax.op.sqrt(constant(W))), np.sqrt(W)),
        (lambda emit: emit(relax.op.add(constant(W), constant(V))), W + V),
        (lambda emit: emit(relax.op.subtract(constant(W), constant(V))), W - V),
        (lambda emit: emit(relax.op.multiply(constant(W), constant(V))), W * V),
        (
            lambda emit: emit(relax.op.astype(constant(np.arange(6).reshape(2, 3)), "float32")),
            W,
        ),
        (
            lambda emit: emit(
                relax.op.add(
                    emit(relax.op.permute_dims(emit(relax.op.reshape(constant(W), (3, 2))))),
                    constant(V),
                )
            ),
            W.reshape(3, 2).T + V,
        ),
    ],
    ids=[
        *("reshape", "permute", "reverse", "broadcast", "negative", "sqrt"),
        *("add", "subtract", "multiply", "astype", "chain"),
    ],
)
def test_is_a_constant(expression: Any, expected: Array) -> None:
    shape = expected.shape
    mod = module(lambda x, emit: emit(relax.op.maximum(x, expression(emit))), shape)
    folded = fold_weight_expressions(mod)
    assert operators(folded) == ["maximum"]
    found = operand(folded)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_what_reads_the_input_stays() -> None:
    mod = module(lambda x, emit: emit(relax.op.add(emit(relax.op.negative(x)), constant(V))))
    assert operators(fold_weight_expressions(mod)) == ["negative", "add"]


def test_other_operators_on_constants_stay_for_tvm() -> None:
    mod = module(lambda x, emit: emit(relax.op.add(x, emit(relax.op.exp(constant(V))))))
    assert operators(fold_weight_expressions(mod)) == ["exp", "add"]


def test_a_constant_can_be_the_result() -> None:
    mod = module(lambda x, emit: emit(relax.op.negative(constant(W))))
    folded = fold_weight_expressions(mod)
    assert operators(folded) == []
    np.testing.assert_array_equal(folded["main"].body.body.value.numpy(), -W)
