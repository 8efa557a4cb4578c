"""Chains of element-wise operators over elements of several types, with broadcasting.

What quantised networks do between products: elements are read as float32, whatever they are stored
as, and the result is rounded to int8 or uint8 where the chain ends in a "quantise" step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wasmgraph.assembler.function import Expr, Function, Local
from wasmgraph.kernels.chain import Chain
from wasmgraph.kernels.loops import LANES, Shape, merge, nest
from wasmgraph.kernels.sharing import Share, cut_axis, replaced, whole
from wasmgraph.kernels.typed import (
    NBYTES,
    emit_typed_chain,
    load_floats,
    load_floats_splat,
    load_numbers,
    narrowed,
)

_UNROLL = 4
"""Vectors of four elements per round: 16 bytes of int8."""

_LINE = 64
"""Elements; rows are cut at multiples, which are cache lines in every type."""


@dataclass(frozen=True)
class TypedElementwise:
    """out[i] = chain(operands[0][i], operands[1][i], ...)

    Strides are in elements, 0 where an operand is broadcast.

    Attributes:
        shape: The output's extents, outermost first.
        out: The output's strides.
        operands: Each operand's strides.
        chain: What is computed, from `typed.numbers_apart`: its operands are those here, then the
            numbers.
        dtypes: Of the operands, then of the output; keys of `typed.NBYTES`, but no int32 output.
    """

    shape: Shape
    out: Shape
    operands: tuple[Shape, ...]
    chain: Chain
    dtypes: tuple[str, ...]

    @property
    def numbers(self) -> int:
        """How many numbers the chain reads."""
        return self.chain.operands - len(self.operands)

    def assemble(self, name: str) -> Function:
        """Parameters: the numbers, if any, the operands, out."""
        return _Assembly(self, name).run()

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels for parts of an axis, an outer one if possible."""
        shape, (out, *operands) = merge(self.shape, self.out, *self.operands)
        last = len(shape) - 1
        cut = cut_axis([(n, _LINE if a == last else 1) for a, n in enumerate(shape)], count)
        if cut is None:
            return whole(self, (self.numbers > 0) + len(self.operands) + 1)
        axis, parts = cut
        steps = [
            NBYTES[dtype] * strides[axis]
            for dtype, strides in zip(self.dtypes, [*operands, out], strict=True)
        ]
        merged = replace(self, shape=shape, out=out, operands=tuple(operands))
        return tuple(
            Share(
                replace(merged, shape=replaced(shape, axis, length)),
                (*[0] * (self.numbers > 0), *(first * step for step in steps)),
            )
            for first, length in parts
        )


class _Assembly:
    def __init__(self, spec: TypedElementwise, name: str) -> None:
        self.chain = spec.chain
        self.dtypes = spec.dtypes
        has_numbers = spec.numbers > 0
        self.f = Function(name, has_numbers + len(spec.operands) + 1)
        shape, (out, *operands) = merge(spec.shape, spec.out, *spec.operands)
        if not shape or out[-1] != 1 or any(o[-1] not in (0, 1) for o in operands):
            # Elements that lie apart are rows of one.
            shape, out, operands = (*shape, 1), (*out, 1), [(*o, 0) for o in operands]
        self.length = shape[-1]
        self.steps = [o[-1] for o in operands]
        self.axes = shape[:-1]
        tensors = zip(spec.dtypes, (*operands, out), strict=True)
        self.strides = [tuple(NBYTES[t] * s for s in strides[:-1]) for t, strides in tensors]
        # Bytes per element of what moves along a row.
        moving = zip(spec.dtypes, [*self.steps, 1], strict=True)
        self.sizes = [NBYTES[t] * step for t, step in moving]
        self.pointers = self.f.params[has_numbers:]
        self.numbers = load_numbers(self.f.params[0], spec.numbers)

    def run(self) -> Function:
        moved = [0] * len(self.pointers)
        with nest(self.f, self.axes, self.pointers, self.strides, moved):
            moved[:] = self._row()
        return self.f

    def _row(self) -> list[int]:
        """One row; returns how many bytes each pointer was moved."""
        f = self.f
        spread: dict[int, Local] = {
            index: f.new(load_floats_splat(self.pointers[index], 0, self.dtypes[index]))
            for index, step in enumerate(self.steps)
            if step == 0
        }
        width = LANES if self.chain.is_costly else LANES * _UNROLL
        rounds, rest = divmod(self.length, width)
        with f.repeat(rounds):
            self._block(spread, 0, width)
            for pointer, size in zip(self.pointers, self.sizes, strict=True):
                if size:
                    f.set(pointer, pointer + width * size)
        if rest:
            self._block(spread, 0, rest)
        f.release(*spread.values())
        return [rounds * width * size for size in self.sizes]

    def _block(self, spread: dict[int, Local], first: int, count: int) -> None:
        """Up to 16 elements; bytes are stored together."""
        f, dtype = self.f, self.dtypes[-1]
        words: list[Local] = []
        for start in range(first, first + count, LANES):
            lanes = min(LANES, first + count - start)
            value, taken = emit_typed_chain(
                f, self.chain, self._inputs(spread, start, lanes), dtype
            )
            kept = f.new(value)
            f.release(*taken)
            if dtype == "float32":
                f.store_lanes(self.pointers[-1], kept, 4 * start, lanes)
                f.release(kept)
            else:
                words.append(kept)
        if words:
            f.set(words[0], narrowed(words, dtype))
            f.store_bytes(self.pointers[-1], words[0], first, count)
            f.release(*words)

    def _inputs(self, spread: dict[int, Local], start: int, lanes: int) -> Sequence[Expr]:
        operands: list[Expr] = [
            spread[i]
            if i in spread
            else load_floats(self.pointers[i], NBYTES[dtype] * start, dtype, lanes)
            for i, dtype in enumerate(self.dtypes[:-1])
        ]
        return operands + self.numbers
