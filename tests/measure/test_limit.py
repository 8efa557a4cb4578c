"""The multiply-add loop does the work that it is counted for, in registers alone."""

from __future__ import annotations

import time

import pytest
import wasmtime

from wasmgraph.measure.limit import (
    CHAINS,
    TILES,
    fused_text,
    loop_text,
    measure_limit,
    measure_thread_gain,
)


def run_loop(text: str, iterations: int) -> float:
    """The loop's result."""
    store = wasmtime.Store()
    module = wasmtime.Module(store.engine, text)
    loop = wasmtime.Instance(store, module, []).exports(store)["loop"]
    assert isinstance(loop, wasmtime.Func)
    return float(loop(store, iterations))


@pytest.mark.parametrize(("rows", "columns"), TILES)
def test_each_iteration_adds_every_product_once(rows: int, columns: int) -> None:
    values = [0.5 + k / 64 for k in range(rows + columns)]
    left, right = values[:rows], values[rows:]
    per_iteration = sum(a * b for a in left for b in right)
    found = run_loop(loop_text(rows, columns), 12)
    assert found == pytest.approx(12 * per_iteration, rel=1e-5)


def test_each_iteration_takes_every_chain_of_fused_steps_further() -> None:
    chains = [k / 64 for k in range(CHAINS)]
    for _ in range(5):
        chains = [x * 0.75 + 0.25 for x in chains]
    assert run_loop(fused_text(CHAINS), 5) == pytest.approx(sum(chains), rel=1e-6)


def test_the_products_of_an_iteration_differ_from_each_other() -> None:
    rows, columns = TILES[0]
    text = loop_text(rows, columns)
    products = {part.split(")))")[0] for part in text.split("(f32x4.mul ")[1:]}
    assert len(products) == rows * columns


def test_the_limit_is_of_the_order_of_a_cpu() -> None:
    began = time.perf_counter()
    limit = measure_limit(0.05, relaxed=True)
    assert 1e8 < limit < 1e12
    assert time.perf_counter() - began < 20


def test_threads_gain_something_at_most_their_number() -> None:
    # The cores may be busy with anything: several threads are then no quicker than one.
    assert 0.1 < measure_thread_gain(0.05) < 4
