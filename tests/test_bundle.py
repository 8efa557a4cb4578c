"""The graph bundle on disk: what is written is what is read, and damage is noticed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import make_graph
from wasmgraph.bundle import (
    Buffer,
    Bundle,
    Constant,
    Kernel,
    Step,
    Tensor,
    dump_graph,
    load_graph,
    read_bundle,
    write_bundle,
)
from wasmgraph.errors import ModelError


def make_bundle() -> Bundle:
    """Nothing in it can run; its description has one of everything."""
    x, y, w = Buffer("io", 0, 24), Buffer("arena", 64, 8), Buffer("params", 0, 24)
    graph = make_graph(
        inputs=(Tensor("größe", "float32", (2, 3), x),),
        outputs=(Tensor("y/0", "int64", (), y),),
        kernels=(Kernel("wgk_0", 3, "conv2d + relu"),),
        steps=(Step(0, (x, w, y), ("Conv_0", "Relu_1"), 1, stage=0),),
        constants=(Constant("w", "float32", (2, 3), 0),),
        operators={"Conv": 1, "Relu": 1},
        io_nbytes=64,
        params_nbytes=64,
        arena_nbytes=128,
    )
    return Bundle(graph, b"\0asm", bytes(range(64)))


def test_is_read_as_it_was_written(tmp_path: Path) -> None:
    bundle = make_bundle()
    write_bundle(bundle, tmp_path / "deep" / "down")
    assert read_bundle(tmp_path / "deep" / "down") == bundle
    assert sorted(p.name for p in (tmp_path / "deep" / "down").iterdir()) == [
        "graph.json",
        "graph.o",
        "graph.params",
    ]


def test_description_is_for_people_too() -> None:
    text = dump_graph(make_bundle().graph)
    assert "größe" in text
    assert len(text.splitlines()) > 40
    assert text == dump_graph(make_bundle().graph)


@pytest.mark.parametrize("missing", ["graph.json", "graph.o", "graph.params"])
def test_without_one_of_its_files_is_refused(tmp_path: Path, missing: str) -> None:
    write_bundle(make_bundle(), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelError, match="is not a graph bundle") as caught:
        read_bundle(tmp_path)
    assert missing in caught.value.message
    assert "--bundle" in str(caught.value.hint)


def test_with_cut_weights_is_refused(tmp_path: Path) -> None:
    write_bundle(make_bundle(), tmp_path)
    (tmp_path / "graph.params").write_bytes(bytes(63))
    with pytest.raises(ModelError, match=r"holds 63 bytes, graph\.json expects 64"):
        read_bundle(tmp_path)


def test_of_another_version_says_which(tmp_path: Path) -> None:
    data = json.loads(dump_graph(make_bundle().graph))
    data["version"] = 99
    with pytest.raises(ModelError, match="version 99"):
        load_graph(json.dumps(data), "graph.json")


def damaged(**changes: Any) -> str:
    data = json.loads(dump_graph(make_bundle().graph))
    for key, value in changes.items():
        if value is None:
            del data[key]
        else:
            data[key] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{",
        "[" * 100_000,
        damaged(version=None),
        damaged(steps=None),
        damaged(steps=7),
        damaged(steps=[{"kernel": 0}]),
        damaged(inputs=[{"name": "x"}]),
        damaged(source={"name": "x", "surprise": 1}),
        damaged(simd="avx512"),
        damaged(threads=None),
        damaged(threads=1),
        damaged(
            outputs=[
                {
                    "name": "y",
                    "dtype": "float32",
                    "shape": [1],
                    "buffer": {"region": "moon", "offset": 0, "nbytes": 4},
                }
            ]
        ),
        damaged(
            outputs=[
                {
                    "name": "y",
                    "dtype": "float32",
                    "shape": [1],
                    "buffer": {"region": "io", "offset": float("inf"), "nbytes": 4},
                }
            ]
        ),
    ],
)
def test_a_description_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"graph\.json is not a graph description"):
        load_graph(text, "graph.json")


def with_stages(*stages: Any) -> str:
    data = json.loads(dump_graph(make_bundle().graph))
    data["steps"] = [{**data["steps"][0], "stage": stage} for stage in stages]
    return json.dumps(data)


@pytest.mark.parametrize("stages", [(0,), (0, 0, 0), (0, 1, 2), (0, 0, 1, 2, 2)])
def test_stages_count_from_0_without_gaps(stages: tuple[int, ...]) -> None:
    graph = load_graph(with_stages(*stages), "graph.json")
    assert tuple(step.stage for step in graph.steps) == stages


@pytest.mark.parametrize("stages", [(1,), (-1,), (0, 2), (0, 1, 0), (0, True), (None,), ("0",)])
def test_stages_in_any_other_order_are_refused(stages: tuple[Any, ...]) -> None:
    with pytest.raises(ModelError, match=r"graph\.json is not a graph description"):
        load_graph(with_stages(*stages), "graph.json")


def test_knows_whether_it_is_for_threads() -> None:
    graph = replace(make_bundle().graph, threads=True)
    assert load_graph(dump_graph(graph), "graph.json") == graph


def test_binary_where_text_should_be_is_refused(tmp_path: Path) -> None:
    write_bundle(make_bundle(), tmp_path)
    (tmp_path / "graph.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="is not a graph bundle"):
        read_bundle(tmp_path)
