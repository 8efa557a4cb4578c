"""Extents of the inputs: what the model leaves open and what the caller gives."""

from __future__ import annotations

import pytest

from tests.onnx_models import make_network, node
from wasmgraph.errors import InputError, UnsupportedModelError
from wasmgraph.importer.network import Network
from wasmgraph.importer.shapes import fix_shapes


def network(**inputs: object) -> Network:
    return make_network([node("Relu", name, f"{name}_out") for name in inputs], inputs, "")


def fixed(shapes: dict[str, tuple[int, ...]], **inputs: object) -> list[tuple[int, ...]]:
    """The shapes of all inputs once `shapes` were given."""
    result = network(**inputs)
    fix_shapes(result, shapes)
    return [
        tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in result.inputs
    ]


def test_static_shapes_stay() -> None:
    assert fixed({}, a=(2, 3), b=()) == [(2, 3), ()]


def test_an_open_axis_gets_its_extent() -> None:
    assert fixed({"a": (4, 3)}, a=("n", 3)) == [(4, 3)]
    assert fixed({"a": (4, 3)}, a=(None, 3)) == [(4, 3)]


def test_a_fixed_axis_can_be_replaced() -> None:
    assert fixed({"a": (2, 3, 32, 32)}, a=(1, 3, 256, 256)) == [(2, 3, 32, 32)]


def test_a_named_axis_holds_wherever_it_appears() -> None:
    shapes = {"ids": (1, 7)}
    assert fixed(shapes, ids=("b", "len"), mask=("b", "len"), past=("b", 4)) == [
        (1, 7),
        (1, 7),
        (1, 4),
    ]


def test_unnamed_axes_are_not_one_another() -> None:
    assert fixed({"a": (4, 5)}, a=(None, None)) == [(4, 5)]


def test_an_input_of_unknown_rank_gets_one() -> None:
    assert fixed({"a": (4, 5)}, a=("float32", None)) == [(4, 5)]


def test_empty_extents_are_allowed() -> None:
    assert fixed({"a": (0, 3)}, a=("n", 3)) == [(0, 3)]


@pytest.mark.parametrize(
    ("shape", "suggestion"),
    [
        (("batch", 3, "height", "width"), "a=1,3,HEIGHT,WIDTH"),
        (("batch_size", 1, 224), "a=1,1,224"),
        ((None, 3, None, None), "a=1,3,AXIS2,AXIS3"),
        (("len",), "a=LEN"),
        (("N", 3, 32, 32), "a=1,3,32,32"),
        (("Convolution:0", 4), "a=AXIS0,4"),
    ],
)
def test_open_axes_are_refused_with_a_shape_to_copy(
    shape: tuple[object, ...], suggestion: str
) -> None:
    with pytest.raises(UnsupportedModelError, match="left open") as caught:
        fix_shapes(network(a=shape), {})
    assert f"--shape {suggestion}" in str(caught.value.hint)


def test_every_open_input_is_listed() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        fix_shapes(network(a=("n",), b=(2,), c=(None, 2)), {})
    assert [obstacle.node for obstacle in caught.value.obstacles] == ["a", "c"]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1,)}, "no input 'z'; its inputs are 'a', 'b'"),
        ({"a": (1, 2, 3)}, "'a' has 2 axes"),
        ({"a": (-1, 2)}, "axis 0 cannot have -1"),
        ({"a": (4, 3), "b": (5,)}, "axis 'n' is given as 4 and as 5"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fix_shapes(network(a=("n", 3), b=("n",)), shapes)


def test_a_shape_beyond_32_bit_memory_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="8 GiB"):
        fix_shapes(network(a=("n",)), {"a": (2**31,)})
    assert fixed({"a": (2**31 - 1,)}, a=("int8", ("n",))) == [(2**31 - 1,)]


def test_text_is_no_input() -> None:
    with pytest.raises(UnsupportedModelError, match="a: this input is not a tensor of numbers"):
        fix_shapes(network(a=("str", (2,))), {})
