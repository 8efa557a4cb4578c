"""Descriptions that contradict themselves are refused before anything is made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import bundles
from wasmgraph.bundle import Buffer, Graph
from wasmgraph.errors import ModelError
from wasmgraph.link.consistency import check_description


@pytest.fixture
def chain() -> Graph:
    return bundles.chain_bundle().graph


def step_with(graph: Graph, **changes: object) -> Graph:
    return replace(graph, steps=(replace(graph.steps[0], **changes),))


def input_with(graph: Graph, **changes: object) -> Graph:
    return replace(graph, inputs=(replace(graph.inputs[0], **changes),))


def test_a_buffer_outside_its_region_is_refused(chain: Graph) -> None:
    x, weights, _ = chain.steps[0].buffers
    for bad in (Buffer("arena", 128, 1), Buffer("arena", -64, 16), Buffer("arena", 0, -1)):
        with pytest.raises(ModelError, match=f"step 0 has {bad.nbytes} bytes at {bad.offset}"):
            check_description(step_with(chain, buffers=(x, weights, bad)))
    with pytest.raises(ModelError, match="io has 64"):
        check_description(replace(chain, io_nbytes=64))


def test_a_step_that_does_not_match_its_kernel_is_refused(chain: Graph) -> None:
    with pytest.raises(ModelError, match="step 0 calls kernel 1, there are 1"):
        check_description(step_with(chain, kernel=1))
    with pytest.raises(ModelError, match="step 0 passes 2 buffers, scale takes 3"):
        check_description(step_with(chain, buffers=chain.steps[0].buffers[:2]))
    with pytest.raises(ModelError, match="step 0 writes 4 of 3 buffers"):
        check_description(step_with(chain, writes=4))


def test_a_step_that_writes_into_the_weights_is_refused(chain: Graph) -> None:
    with pytest.raises(ModelError, match="step 0 writes into the weights"):
        check_description(step_with(chain, writes=2))


def test_a_symbol_that_is_no_c_name_is_refused(chain: Graph) -> None:
    for symbol in ('x"]fn main(){}', "", "1st", "a b", 1, None):
        kernel = replace(chain.kernels[0], symbol=symbol)
        with pytest.raises(ModelError, match="is not a C name"):
            check_description(replace(chain, kernels=(kernel,)))


def test_a_tensor_that_cannot_be_is_refused(chain: Graph) -> None:
    with pytest.raises(ModelError, match="input 'x' has the unknown dtype 'complex64'"):
        check_description(input_with(chain, dtype="complex64"))
    with pytest.raises(ModelError, match="input 'x' has the extent -4"):
        check_description(input_with(chain, shape=(-4,)))
    with pytest.raises(ModelError, match="input 'x' needs 20 bytes, its buffer has 16"):
        check_description(input_with(chain, shape=(5,)))
    with pytest.raises(ModelError, match="is not a name"):
        check_description(input_with(chain, name="\ud800"))


def test_a_region_beyond_2_gib_is_refused(chain: Graph) -> None:
    with pytest.raises(ModelError, match="region arena of 2147483648 bytes"):
        check_description(replace(chain, arena_nbytes=2**31))
