"""Sums, means, extrema and products over axes.

Two forms: vectors of `inner` adjacent elements are reduced over strided axes (a global average pool
over a channel-last image), or contiguous rows are reduced to one element each.

Sums and means are blocked as `accumulating` says: at most 4096 elements of a row over 32 partial
sums, or 256 vectors, per block. NaN in, NaN out, for every operator.

Measured (one Zen 4 core at 3.6 GHz, Wasmtime 50, 2026-11-20): global average pool 49x1280 89 GB/s,
sum of 2**20 elements 86 GB/s, their maximum 21 GB/s (one that keeps NaN is several instructions on
x86).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    load_lanes,
    unary,
)
from wasmgraph.kernels.accumulating import Axis, Combine, across, blocked, fold, fold_row
from wasmgraph.kernels.chain import IDENTITY, Chain, emit_chain
from wasmgraph.kernels.loops import LANES, advance, nest
from wasmgraph.kernels.sharing import Share, cut_axis, outer_shares, whole

Operator = Literal["sum", "mean", "max", "min", "prod", "sum_square", "sum_abs"]

_ROW_BLOCK, _VECTOR_BLOCK = 4096, 256

_VECTORS = 8
"""Accumulators; with their operands they fit the sixteen registers."""

_COMBINE: dict[str, Combine] = {
    "max": lambda a, b: binary("f32x4.max", a, b),
    "min": lambda a, b: binary("f32x4.min", a, b),
    "prod": lambda a, b: a * b,
}
_IDENTITY = {"max": float("-inf"), "min": float("inf"), "prod": 1.0}


@dataclass(frozen=True)
class Reduction:
    """out[outer, inner] = chain(op over the reduced axes of in[outer, reduced, inner])

    Strides are in elements. With inner > 1 the inner axis is contiguous in both tensors; with
    inner = 1 the last reduced axis may be contiguous, which is quicker.

    Attributes:
        op: What is computed. The mean divides the sum by the number of elements.
        outer: (extent, stride in the input, stride in the output), outermost first.
        reduced: (extent, stride in the input), outermost first.
        inner: How many adjacent elements.
        chain: The epilogue; its only operand is the result.
    """

    op: Operator
    outer: tuple[tuple[int, int, int], ...]
    reduced: tuple[Axis, ...]
    inner: int
    chain: Chain = IDENTITY

    @property
    def count(self) -> int:
        """How many elements make one."""
        total = 1
        for extent, _ in self.reduced:
            total *= extent
        return total

    def assemble(self, name: str) -> Function:
        """Parameters: in, out."""
        assert self.chain.operands == 1
        return _Assembly(self, name).run()

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels for parts of an outer axis, or of the inner one.

        The inner axis is cut where its blocks are: other blocks would sum in another order.
        """
        axes = [*((axis[0], 1) for axis in self.outer), (self.inner, _VECTORS * LANES)]
        cut = cut_axis(axes, count)
        if cut is None:
            return whole(self, 2)
        index, parts = cut
        if index == len(self.outer):
            return tuple(Share(replace(self, inner=n), (4 * first,) * 2) for first, n in parts)
        return outer_shares(self, index, parts)


class _Assembly:
    def __init__(self, spec: Reduction, name: str) -> None:
        self.spec = spec
        self.f = Function(name, 2)
        self.axes = [axis for axis in spec.reduced if axis[0] != 1] or [(1, 1)]
        self.is_sum = spec.op not in _COMBINE
        self.combine: Combine = _COMBINE.get(spec.op, lambda a, b: a + b)
        self.identity = _IDENTITY.get(spec.op, 0.0)

    def run(self) -> Function:
        spec, f = self.spec, self.f
        by_row = spec.inner == 1 and self.axes[-1][1] == 1
        strides = [[4 * axis[t] for axis in spec.outer] for t in (1, 2)]
        with nest(f, [axis[0] for axis in spec.outer], f.params, strides):
            if by_row:
                self._row()
            else:
                self._vectors()
        return f

    def _transform(self, value: Expr) -> Expr:
        if self.spec.op == "sum_abs":
            return unary("f32x4.abs", value)
        if self.spec.op == "sum_square":
            with self.f.scratch(V128, 1) as (kept,):
                self.f.set(kept, value)
                return kept * kept
        return value

    def _row(self) -> None:
        f = self.f
        total = f.new(f32x4(self.identity))
        pointer = f.new(f.params[0])

        def block(axes: Sequence[Axis]) -> None:
            part = fold_row(f, axes, pointer, self.identity, self.combine, self._transform)
            f.set(total, self.combine(total, part))
            f.release(part)

        blocked(f, self.axes, pointer, _ROW_BLOCK if self.is_sum else 1 << 31, block)
        f.release(pointer)
        across(f, total, self.combine)
        self._store(f.params[1], [total], 1)
        f.release(total)

    def _vectors(self) -> None:
        """Blocks of columns, each over all reduced axes."""
        f, inner = self.f, self.spec.inner
        width = _VECTORS * LANES
        count, rest = divmod(inner, width)
        source, out = (f.new(p) for p in f.params)
        for times, columns in ((count, width), (1, rest)):
            if not times or not columns:
                continue
            with f.repeat(times):
                self._columns(source, out, columns)
                advance(f, [source, out], [4 * columns] * 2)
        f.release(source, out)

    def _columns(self, source: Local, out: Local, columns: int) -> None:
        f = self.f
        vectors = -(-columns // LANES)
        with f.scratch(V128, vectors) as totals:
            for total in totals:
                f.set(total, f32x4(self.identity))
            pointer = f.new(source)

            def block(axes: Sequence[Axis]) -> None:
                self._block(axes, pointer, columns, totals)

            limit = _VECTOR_BLOCK if self.is_sum else 1 << 31
            blocked(f, self.axes, pointer, limit, block)
            f.release(pointer)
            self._store(out, totals, columns)

    def _block(
        self, axes: Sequence[Axis], pointer: Local, columns: int, totals: Sequence[Local]
    ) -> None:
        """Fold a block into its own accumulators, several positions at a time if it is narrow."""
        f, vectors = self.f, len(totals)
        *outer, (extent, stride) = axes
        unroll = min(max(1, _VECTORS // vectors), extent)
        with f.scratch(V128, vectors * unroll) as sums:
            for item in sums:
                f.set(item, f32x4(self.identity))

            def position(slot: int, offset: int) -> None:
                for j in range(vectors):
                    lanes = min(LANES, columns - LANES * j)
                    value = self._transform(load_lanes(pointer, offset + 16 * j, lanes))
                    total = sums[slot * vectors + j]
                    f.set(total, self.combine(total, value))

            steps = [[4 * s for _, s in outer]]
            with nest(f, [e for e, _ in outer], [pointer], steps, [4 * extent * stride]):
                with f.repeat(extent // unroll):
                    for slot in range(unroll):
                        position(slot, 4 * slot * stride)
                    advance(f, [pointer], [4 * unroll * stride])
                for slot in range(extent % unroll):
                    position(slot, 4 * slot * stride)
                advance(f, [pointer], [4 * (extent % unroll) * stride])
            for j in range(vectors):
                fold(f, sums[j::vectors], self.combine)
                f.set(totals[j], self.combine(totals[j], sums[j]))

    def _store(self, out: Local, totals: Sequence[Local], columns: int) -> None:
        f, spec = self.f, self.spec
        for j, total in enumerate(totals):
            if spec.op == "mean":
                f.set(total, binary("f32x4.div", total, f32x4(float(spec.count))))
            value, taken = emit_chain(f, spec.chain, [total])
            f.set(total, value)
            f.release(*taken)
            f.store_lanes(out, total, 16 * j, min(LANES, columns - LANES * j))
