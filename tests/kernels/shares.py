"""Runs a kernel and its shares and compares them; what the tests of sharing have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.runner import FILL, PAGE, Instance
from wasmgraph.kernels.chain import Chain, Step
from wasmgraph.kernels.sharing import Share, Shareable

SILU = Chain(1, (Step("sigmoid", (0,)), Step("multiply", (0, 1))))
RESIDUAL = Chain(2, (Step("add", (0, 1)), Step("relu", (2,))))
ODD = Chain(3, (Step("multiply", (0, 1)), Step("subtract", (3, 2)), Step("tanh", (4,))))

COUNTS = st.integers(2, 8)
SEEDS = st.integers(0, 2**32 - 1)


CHAINS = {1: SILU, 2: RESIDUAL, 3: ODD}


def check(whole: Shareable, count: int, floats: Sequence[int], seed: int) -> tuple[Share, ...]:
    """Run a kernel and its shares, these in a random order, and compare all memory.

    Args:
        floats: float32 elements of each input, then of the output; of scratch memory, none.

    Returns:
        The shares.
    """
    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal(n).astype(np.float32) for n in floats[:-1]]
    return check_on(whole, count, inputs, 4 * floats[-1], seed)


def check_on(
    whole: Shareable, count: int, inputs: Sequence[NDArray[Any]], out_nbytes: int, seed: int
) -> tuple[Share, ...]:
    """The same on given inputs."""
    shares = whole.shares(count)
    assert 1 <= len(shares) <= count
    kernels = {share.kernel: f"share{i}" for i, share in enumerate(shares)}
    functions = [kernel.assemble(name) for kernel, name in kernels.items()]
    scratch = max(
        getattr(share.kernel, "scratch_nbytes", 0) + share.offsets[-1] for share in shares
    )
    has_scratch = getattr(whole, "scratch_nbytes", 0)
    sizes = [a.nbytes for a in inputs] + [out_nbytes]
    if has_scratch:
        sizes.append(max(scratch, has_scratch))
    starts = [64 + 128 * i + sum(-(-s // 64) * 64 for s in sizes[:i]) for i in range(len(sizes))]
    pages = -(-(starts[-1] + sizes[-1] + 64) // PAGE)
    instance = Instance([whole.assemble("whole"), *functions], pages)
    memory = instance.memory
    memory[:] = FILL
    for array, start in zip(inputs, starts, strict=False):
        memory[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    before = memory.copy()
    instance.call("whole", *starts)
    kept = memory.size if not has_scratch else starts[-1]
    expected = memory[:kept].copy()
    memory[:] = before
    for index in np.random.default_rng(seed).permutation(len(shares)):
        share = shares[index]
        places = [a + b for a, b in zip(starts, share.offsets, strict=True)]
        instance.call(kernels[share.kernel], *places)
    assert memory[:kept].tobytes() == expected.tobytes()
    return shares


def parts(shares: Sequence[Share], measure: Callable[[Any], Any]) -> list[Any]:
    return [measure(share.kernel) for share in shares]
