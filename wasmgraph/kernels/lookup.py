"""Functions of one byte: a table of 256 values in the place of a chain.

A load of the byte, one from the table and a store, where a GELU with its roundings in between takes
about 20 cycles per element.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wasmgraph.assembler.function import Function, load_i32
from wasmgraph.kernels.loops import Shape, merge, nest
from wasmgraph.kernels.sharing import Share, cut_axis, replaced, whole

_UNROLL = 8
_LINE = 64


@dataclass(frozen=True)
class Lookup:
    """out[i] = table[x[i]]

    Strides are in elements.

    Attributes:
        shape: Extents, outermost first.
        source: The strides of x, whose elements are bytes.
        out: The output's strides.
        nbytes: Of an element of the table and of the output, 1 or 4.
    """

    shape: Shape
    source: Shape
    out: Shape
    nbytes: int

    def assemble(self, name: str) -> Function:
        """Parameters: the table, by unsigned bytes; x; out."""
        f = Function(name, 3)
        table, x, out = f.params
        extents, (source, target) = merge(self.shape, self.source, self.out)
        if not extents:
            extents, source, target = (1,), (1,), (1,)
        target = tuple(self.nbytes * stride for stride in target)
        rounds, rest = divmod(extents[-1], _UNROLL)

        def block(count: int) -> None:
            for index in range(count):
                byte = load_i32(x, index * source[-1], 1)
                value = load_i32(table + byte * self.nbytes, 0, self.nbytes)
                f.store_i32(out, value, index * target[-1], self.nbytes)

        steps = [source[:-1], target[:-1]]
        moved = [rounds * _UNROLL * source[-1], rounds * _UNROLL * target[-1]]
        with nest(f, extents[:-1], [x, out], steps, moved):
            with f.repeat(rounds):
                block(_UNROLL)
                f.set(x, x + _UNROLL * source[-1])
                f.set(out, out + _UNROLL * target[-1])
            block(rest)
        return f

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels for parts of an axis, an outer one if possible."""
        shape, (source, out) = merge(self.shape, self.source, self.out)
        last = len(shape) - 1
        cut = cut_axis([(n, _LINE if a == last else 1) for a, n in enumerate(shape)], count)
        if cut is None:
            return whole(self, 3)
        axis, parts = cut
        merged = replace(self, shape=shape, source=source, out=out)
        return tuple(
            Share(
                replace(merged, shape=replaced(shape, axis, length)),
                (0, first * source[axis], first * out[axis] * self.nbytes),
            )
            for first, length in parts
        )
