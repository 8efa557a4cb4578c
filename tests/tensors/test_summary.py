"""Tensors at a glance, and class probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wasmgraph.errors import InputError
from wasmgraph.tensors.summary import read_labels, summarise, top_classes


def test_a_summary_counts_and_skips_what_is_not_finite() -> None:
    summary = summarise("y", np.float32([[1, np.nan, 3], [np.inf, -4, 0]]))
    assert (summary.minimum, summary.maximum, summary.mean) == (-4, 3, 0)
    assert summary.non_finite == 2
    assert summary.shape == (2, 3)
    assert summary.first[0] == 1


def test_a_mean_does_not_overflow_half_precision() -> None:
    assert summarise("y", np.full(1000, 60000, np.float16)).mean == pytest.approx(60000)


def test_integers_keep_their_type_and_bools_count() -> None:
    integers = summarise("y", np.array([2**62 + 1, 3]))
    assert integers.maximum == 2**62 + 1
    flags = summarise("y", np.array([True, False]))
    assert (flags.minimum, flags.maximum, flags.mean) == (0, 1, 0.5)
    assert flags.first == (True, False)


def test_an_empty_tensor_has_no_extremes() -> None:
    summary = summarise("y", np.zeros((0, 3), np.float32))
    assert (summary.minimum, summary.maximum, summary.mean, summary.first) == (None, None, None, ())


def test_probabilities_are_left_alone() -> None:
    classes = top_classes("y", np.float32([[0.1, 0.7, 0.2]]), ["a", "b", "c"], 2)
    assert not classes.softmax_applied
    assert [(c.label, c.index) for c in classes.top] == [("b", 1), ("c", 2)]
    assert classes.top[0].probability == pytest.approx(0.7)


def test_scores_become_probabilities() -> None:
    classes = top_classes("y", np.float32([[1000, 1001, -5]]), None, 3)
    assert classes.softmax_applied
    assert [c.label for c in classes.top] == ["1", "0", "2"]
    # softmax of scores one apart: e / (1 + e)
    assert classes.top[0].probability == pytest.approx(np.e / (1 + np.e))


def test_negative_values_that_sum_to_one_are_scores() -> None:
    assert top_classes("y", np.float32([2, -1]), None, 1).softmax_applied


def test_a_trailing_spatial_shape_is_a_list_of_classes_too() -> None:
    assert (
        top_classes("y", np.eye(1, 5, 3, np.float16).reshape(1, 5, 1, 1), None, 1).top[0].index == 3
    )


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3), np.float32), np.zeros((1, 1), np.float32), np.zeros(3, np.int64)],
    ids=["batch", "one", "integers"],
)
def test_what_is_no_list_of_classes_is_an_input_error(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="is not one score per class"):
        top_classes("y", array, None, 1)


def test_labels_must_match_in_number() -> None:
    with pytest.raises(InputError, match="3 classes, there are 2 labels"):
        top_classes("y", np.float32([1, 0, 0]), ["a", "b"], 1)


def test_a_class_is_never_chosen_from_nans() -> None:
    with pytest.raises(InputError, match="not finite"):
        top_classes("y", np.float32([1, np.nan]), None, 1)


def test_labels_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffcat\r\n dog \n\nbird, tit\n\n\n".encode())
    assert read_labels(path) == ("cat", "dog", "", "bird, tit")


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe\xfd"])
def test_labels_that_cannot_be_read_are_an_input_error(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"labels\.txt"):
        read_labels(path)


def test_a_dtype_that_numpy_lacks_is_summarised_as_its_numbers() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    summary = summarise("y", np.array([1, -2, np.nan], np.float32).astype(ml_dtypes.float8_e4m3fn))
    assert (summary.dtype, summary.minimum, summary.maximum) == ("float8_e4m3fn", -2, 1)
    assert summary.non_finite == 1
