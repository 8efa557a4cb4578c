"""What is made up for open axes: the order of the proposals, their bounds, the model's hints."""

from __future__ import annotations

import math

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, parser

from tests.onnx_models import make_model, node
from wasmgraph.runtime.base import TensorSpec
from wasmgraph.tensors.extents import MOST_ELEMENTS, MOST_PROPOSALS, SIZES, proposals
from wasmgraph.tensors.size_hints import MOST, hinted_sizes


def spec(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def shapes(*specs: TensorSpec, hints: tuple[int, ...] = ()) -> list[tuple[tuple[int, ...], ...]]:
    return [tuple(item.extents for item in found) for found in proposals(specs, hints)]


def test_common_sizes_come_first_and_batches_are_of_two() -> None:
    image = spec("x", "batch", 3, "height", "width")
    assert [found[0] for found in shapes(image)[:3]] == [(2, 3, s, s) for s in SIZES[:3]]


def test_an_axis_shared_by_inputs_has_one_extent() -> None:
    for first, second in shapes(spec("x", "N", "L"), spec("y", 2, "N", "L")):
        assert first == second[1:]


def test_a_batch_axis_in_the_middle_is_found() -> None:
    found = shapes(spec("x", "x:0", "x:1"), spec("state", 2, "state:1", 128))
    assert ((2, 224), (2, 2, 128)) in found[:20]


def test_a_batch_of_one_is_tried() -> None:
    assert ((1, 32),) in shapes(spec("x", "N", "L"))[:20]


def test_hints_are_tried_before_rarer_sizes() -> None:
    found = [shape[0] for shape in shapes(spec("x", "N", "L"), hints=(77,))]
    assert found.index((2, 77)) < found.index((2, 28))


def test_a_large_fixed_extent_leaves_a_batch_of_one() -> None:
    assert shapes(spec("x", "N", 1, 256, 256, 256)) == [((1, 1, 256, 256, 256),)]


# A loaded machine draws slowly; that says nothing of what is tested.
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.lists(st.sampled_from([1, 3, "N", "a", "b", "c", "d"]), max_size=5),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.integers(3, 4096), max_size=MOST),
)
def test_proposals_are_bounded_different_and_fit(
    dims: list[list[int | str]], hints: list[int]
) -> None:
    specs = [spec(str(number), *shape) for number, shape in enumerate(dims)]
    found = list(proposals(specs, hints))
    assert found
    assert len(found) <= MOST_PROPOSALS
    assert len(set(found)) == len(found)
    for proposal in found:
        assert sum(math.prod(item.extents) for item in proposal) <= MOST_ELEMENTS
        for known, item in zip(specs, proposal, strict=True):
            assert known.fits(item.extents)


def test_numbers_of_reshapes_slices_and_weights_are_hints() -> None:
    nodes = [
        node("Reshape", "x s", "a"),
        node("Slice", "a from to", "b"),
        node("MatMul", "b w", "y"),
    ]
    weights = {
        "s": np.array([-1, 7, 11]),
        "from": np.array([0]),
        "to": np.array([2**40]),
        "w": np.ones((11, 5), np.float32),
    }
    hints = hinted_sizes(make_model(nodes, {"x": ["N", None]}, "y", weights))
    assert hints[0] == 11, "the most frequent"
    assert set(hints) == {5, 7, 11, 77}


def test_windows_and_what_stands_in_branches_are_hints() -> None:
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["": 18]>
    g (bool c, float[N, M, 9] x) => (float[a, b, c] y) {
        y = If (c) <
            then_branch = t () => (float[a, b, c] p) { p = MaxPool <kernel_shape = [13]> (x) },
            else_branch = e () => (float[a, b, c] q) {
                s = Constant <value = int64[3] {-1, 17, 9}> ()
                q = Reshape (x, s)
            }
        >
    }
    """)
    assert set(hinted_sizes(model)) == {9, 13, 17, 153}


def test_weights_in_files_that_are_not_there_are_no_matter(tmp_path) -> None:
    weights = {"w": np.ones((40, 50), np.float32)}
    model = make_model([node("MatMul", "x w", "y")], {"x": ["N", None]}, "y", weights)
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    (tmp_path / "w").unlink()
    assert set(hinted_sizes(tmp_path / "m.onnx")) == {40, 50}


def test_not_more_hints_than_are_worth_trying() -> None:
    shape = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, range(5, 40))
    graph = helper.make_graph([], "g", [shape], [])
    assert hinted_sizes(helper.make_model(graph)) == tuple(range(5, 5 + MOST))
