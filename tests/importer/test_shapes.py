"""Extents of the inputs: what the model leaves open and what the caller gives."""

from __future__ import annotations

import pytest

from tests.onnx_models import make_network, node
from wasmgraph.dynamic.build import open_axis_names
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


def opened(
    shapes: dict[str, tuple[int, ...]], *dynamic: str, **inputs: object
) -> list[tuple[int | str, ...]]:
    """The shapes of all inputs, some of whose axes stay open."""
    result = network(**inputs)
    assert fix_shapes(result, shapes, dynamic)
    return [open_axis_names(value) for value in result.inputs]


def test_an_axis_that_nobody_fixes_stays_open() -> None:
    assert opened({}, a=("batch", 3)) == [("batch", 3)]
    assert not fix_shapes(network(a=(2, 3)), {})


def test_an_open_axis_without_a_name_is_called_after_its_input() -> None:
    assert opened({}, a=(None, 3), b=(None,)) == [("a:0", 3), ("b:0",)]


def test_some_axes_are_fixed_and_others_stay_open() -> None:
    shapes = opened({"a": (4, 3)}, a=("n", 3), b=("n", "m"))
    assert shapes == [(4, 3), (4, "m")]


def test_axes_are_opened_by_their_input_or_their_name() -> None:
    assert opened({}, "a", a=(2, 3), b=(4,)) == [("a:0", "a:1"), (4,)]
    assert opened({"a": (4, 3)}, "n", a=("n", 3), b=("n",)) == [("n", 3), ("n",)]


def test_only_what_is_there_can_be_opened() -> None:
    with pytest.raises(InputError, match="neither an axis nor an input 'z'") as caught:
        fix_shapes(network(a=("n", 3)), {}, ["z"])
    assert "'a', 'n'" in str(caught.value.hint)


def test_an_unknown_rank_is_refused_with_a_shape_to_copy() -> None:
    with pytest.raises(UnsupportedModelError, match="unknown rank") as caught:
        fix_shapes(network(a=("float32", None), b=(2,)), {})
    assert [obstacle.node for obstacle in caught.value.obstacles] == ["a"]
    assert "--shape a=1,..." in str(caught.value.hint)


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
