"""What a caller can choose about the choice of kernels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Choices that change a graph's speed and rounding, not what it computes.

    Attributes:
        winograd: Use Winograd's algorithm for 3x3 convolutions of stride 1. It is faster and
            rounds about ten times as coarsely (see `wasmgraph.kernels.winograd`).
        threads: Cut large kernel calls into shares that may run at the same time. Results stay the
            same bit by bit.
        fused: Prefer shapes of kernels that suit multiplications and additions in one instruction,
            as relaxed SIMD has them.
        by_sample: Compile a model that treats every sample of a batch alone for one of them.
        small_weights: Store weights of products in fewer bytes than float32 where that loses
            nothing.
    """

    winograd: bool = True
    threads: bool = False
    fused: bool = False
    by_sample: bool = True
    small_weights: bool = True


DEFAULT = Options()
