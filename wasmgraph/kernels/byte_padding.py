"""Puts a constant border around a tensor of bytes: what an integer convolution reads.

The border of a quantised image is its zero point. Rows are moved by memory.copy and memory.fill.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from wasmgraph.assembler.function import Function
from wasmgraph.kernels.sharing import Share, pieces, replaced, whole


@dataclass(frozen=True)
class PadBytes:
    """out = source with `before` and `after` elements of `value` around it, per axis.

    Elements are bytes; out is dense in C order.

    Attributes:
        shape: The source's extents, outermost first.
        source: The source's strides; the innermost is 1.
        before, after: Elements of the border, per axis.
        value: What the border holds, 0 to 255.
    """

    shape: tuple[int, ...]
    source: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int

    def assemble(self, name: str) -> Function:
        """Parameters: source, out. They must not overlap."""
        f = Function(name, 2)
        _Assembly(self, f).axis(0)
        return f

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels for parts of the outermost axis, whose outputs are dense, too."""
        extents = list(zip(self.before, self.shape, self.after, strict=True))
        padded = [sum(extent) for extent in extents]
        axis = next((i for i, extent in enumerate(padded) if extent > 1), len(padded) - 1)
        before, extent, after = extents[axis]
        inner = prod(padded[axis + 1 :])
        parts = pieces(extent, count)
        if len(parts) < 2 or inner < 64:
            return whole(self, 2)
        shares = []
        for first, length in parts:
            kernel = replace(
                self,
                shape=replaced(self.shape, axis, length),
                before=replaced(self.before, axis, 0 if first else before),
                after=replaced(self.after, axis, after if first + length == extent else 0),
            )
            begin = first + before if first else 0
            shares.append(Share(kernel, (first * self.source[axis], begin * inner)))
        return tuple(shares)


class _Assembly:
    def __init__(self, spec: PadBytes, f: Function) -> None:
        self.f = f
        self.spec = spec
        self.source, self.out = f.params
        extents = zip(spec.before, spec.shape, spec.after, strict=True)
        self.padded = [sum(extent) for extent in extents]

    def axis(self, level: int) -> int:
        """One axis and all inside it; returns how many bytes the source pointer has moved."""
        f, spec = self.f, self.spec
        inner = prod(self.padded[level + 1 :])
        dense = 1
        for extent, stride in zip(spec.shape[:level:-1], spec.source[:level:-1], strict=True):
            if extent > 1 and stride != dense:
                break
            dense *= extent
        is_whole = dense == inner and (spec.shape[level] == 1 or spec.source[level] == dense)
        self._fill(spec.before[level] * inner)
        if is_whole:
            f.copy(self.out, self.source, spec.shape[level] * inner)
            f.set(self.out, self.out + spec.shape[level] * inner)
            moved = 0
        else:
            with f.repeat(spec.shape[level]):
                step = spec.source[level] - self.axis(level + 1)
                f.set(self.source, self.source + step)
            moved = spec.shape[level] * spec.source[level]
        self._fill(spec.after[level] * inner)
        return moved

    def _fill(self, nbytes: int) -> None:
        if nbytes:
            self.f.fill(self.out, self.spec.value, nbytes)
            self.f.set(self.out, self.out + nbytes)
