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


def test_a_scalar_that_is_broadcast_to_millions_stays_a_view() -> None:
    shape = (2048, 2048)
    build = lambda x, emit: emit(  # noqa: E731
        relax.op.add(emit(relax.op.broadcast_to(constant(np.float32(1)), shape)), x)
    )
    assert operators(fold_weight_expressions(module(build, shape))) == ["broadcast_to", "add"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (relax.op.zeros_like, np.zeros((2, 3))),
        (relax.op.ones_like, np.ones((2, 3))),
        (lambda x: relax.op.eye_like(x, 1), np.eye(2, 3, 1)),
        (lambda x: relax.op.arange(1, 7, 2, "float32"), [1, 3, 5]),
    ],
    ids=["zeros_like", "ones_like", "eye_like", "arange"],
)
def test_what_depends_on_shapes_alone_is_a_constant(expression: Any, expected: Any) -> None:
    mod = module(lambda x, emit: emit(relax.op.multiply(x, emit(expression(x)))))
    folded = fold_weight_expressions(mod)
    assert operators(folded) == ["multiply"]
    found = operand(folded)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_a_large_tensor_of_one_value_is_a_view_of_a_scalar() -> None:
    shape = (2048, 2048)
    mod = module(lambda x, emit: emit(relax.op.multiply(x, emit(relax.op.ones_like(x)))), shape)
    folded = fold_weight_expressions(mod)
    assert operators(folded) == ["broadcast_to", "multiply"]
