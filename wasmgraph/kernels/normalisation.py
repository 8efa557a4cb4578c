"""Layer normalisation of rows; instance and group normalisation of channel-last images.

Means and variances take two passes in float32. For images the passes run over blocks that stay in
the first-level cache, and the blocks' means and squared deviations are merged by the formula of
Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing sample
variances", 1979). So memory is read once for them, nothing cancels, and the relative error grows
with the number of blocks, not of positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
from wasmgraph.kernels.accumulating import Axis, across, blocked, fold, fold_row, sum_of
from wasmgraph.kernels.loops import LANES, advance, nest, sweep

_ROW_BLOCK = 4096
_BLOCK_ELEMENTS = 4096
_BLOCK_POSITIONS = 128
_COLUMN_VECTORS = 4

OuterAxis = tuple[int, int, int]
"""(extent, stride in the input, stride in the output)"""


@dataclass(frozen=True)
class LayerNorm:
    """out = (x - mean) / sqrt(variance + epsilon) * scale + shift, over contiguous rows

    Attributes:
        outer: The rows, outermost first; strides in elements.
        length: Elements of a row, of `scale` and of `shift`.
        epsilon: Added to the (biased) variance.
        has_scale, has_shift: Whether there is such a vector.
    """

    outer: tuple[OuterAxis, ...]
    length: int
    epsilon: float
    has_scale: bool
    has_shift: bool

    def assemble(self, name: str) -> Function:
        """Parameters: x, scale (if any), shift (if any), out."""
        return _Rows(self, name).run()


@dataclass(frozen=True)
class ChannelNorm:
    """out = (x - mean) / sqrt(variance + epsilon) * scale + shift, per group of adjacent channels

    Attributes:
        outer: Independent images, outermost first; strides in elements.
        positions: The axis over which a group is averaged; channels are contiguous at each.
        channels: How many; also the length of `scale` and `shift`.
        group: Channels that share a mean and variance: 1 is instance normalisation.
        epsilon: Added to the (biased) variance.
        has_scale, has_shift: Whether there is such a vector.
    """

    outer: tuple[OuterAxis, ...]
    positions: OuterAxis
    channels: int
    group: int
    epsilon: float
    has_scale: bool
    has_shift: bool

    def assemble(self, name: str) -> Function:
        """Parameters: x, scale (if any), shift (if any), out."""
        assert self.channels % self.group == 0, (self.channels, self.group)
        assembly = _Channels if self.group == 1 else _Groups
        return assembly(self, name).run()


class _Assembly:
    """What all forms share: the parameters, the outer loops, the last step."""

    def __init__(self, spec: LayerNorm | ChannelNorm, name: str) -> None:
        self.f = Function(name, 2 + spec.has_scale + spec.has_shift)
        self.epsilon = spec.epsilon
        self.outer = spec.outer
        parameters = list(self.f.params)
        self.source, self.out = parameters[0], parameters[-1]
        self.scale = parameters[1] if spec.has_scale else None
        self.shift = parameters[-2] if spec.has_shift else None

    def run(self) -> Function:
        strides = [[4 * axis[t] for axis in self.outer] for t in (1, 2)]
        with nest(self.f, [a[0] for a in self.outer], [self.source, self.out], strides):
            self._normalise()
        return self.f

    def _normalise(self) -> None:
        raise NotImplementedError

    def _inverse_deviation(self, squares: Local, count: int) -> None:
        """Sums of squared deviations become 1 / sqrt(variance + epsilon)."""
        variance = binary("f32x4.div", squares, f32x4(float(count)))
        deviation = unary("f32x4.sqrt", variance + f32x4(self.epsilon))
        self.f.set(squares, binary("f32x4.div", f32x4(1.0), deviation))

    def _vectors(self) -> list[Local]:
        """Copies of the pointers that move along a row: x, out, and scale and shift if any."""
        pointers = [self.source, self.out, self.scale, self.shift]
        return [self.f.new(p) for p in pointers if p is not None]

    def _write_row(
        self, pointers: Sequence[Local], length: int, mean: Local, inverse: Local
    ) -> int:
        """Normalise a contiguous row; returns how many bytes the pointers were moved."""
        f = self.f
        scale = pointers[2] if self.scale is not None else None
        shift = pointers[-1] if self.shift is not None else None

        def one(_: int, offset: int, lanes: int) -> None:
            value = (load_lanes(pointers[0], offset, lanes) - mean) * inverse
            if scale is not None:
                value = value * load_lanes(scale, offset, lanes)
            if shift is not None:
                value = value + load_lanes(shift, offset, lanes)
            with f.scratch(V128, 1) as (result,):
                f.set(result, value)
                f.store_lanes(pointers[1], result, offset, lanes)

        return sweep(f, length, 4, pointers, one)

    def _sum(self, axes: Sequence[Axis], start: Local, mean: Local | None = None) -> Local:
        """The sum in all lanes, of the elements or of their squared distances from `mean`."""
        f = self.f
        total = f.new(f32x4(0.0))
        pointer = f.new(start)

        def distance(x: Expr) -> Expr:
            if mean is None:
                return x
            with f.scratch(V128, 1) as (kept,):
                f.set(kept, x - mean)
                return kept * kept

        def block(part: Sequence[Axis]) -> None:
            value = fold_row(f, part, pointer, 0.0, sum_of, distance)
            f.set(total, total + value)
            f.release(value)

        blocked(f, axes, pointer, _ROW_BLOCK, block)
        f.release(pointer)
        across(f, total, sum_of)
        return total


class _Rows(_Assembly):
    def __init__(self, spec: LayerNorm, name: str) -> None:
        super().__init__(spec, name)
        self.length = spec.length

    def _normalise(self) -> None:
        f, length = self.f, self.length
        mean = self._sum([(length, 1)], self.source)
        f.set(mean, binary("f32x4.div", mean, f32x4(float(length))))
        inverse = self._sum([(length, 1)], self.source, mean)
        self._inverse_deviation(inverse, length)
        pointers = self._vectors()
        self._write_row(pointers, length, mean, inverse)
        f.release(mean, inverse, *pointers)


class _Merge:
    """Means and sums of squared deviations that grow block by block."""

    def __init__(self, f: Function, vectors: int) -> None:
        self.f = f
        self.seen = f.new(f32x4(0.0))
        self.means = [f.new(f32x4(0.0)) for _ in range(vectors)]
        self.squares = [f.new(f32x4(0.0)) for _ in range(vectors)]

    def add(self, count: int, means: Sequence[Local], squares: Sequence[Local]) -> None:
        """Merge blocks of `count` elements."""
        f, n = self.f, f32x4(float(count))
        with f.scratch(V128, 3) as (weight, joint, delta):
            f.set(weight, binary("f32x4.div", n, self.seen + n))
            f.set(joint, self.seen * weight)
            for j, (mean, square) in enumerate(zip(means, squares, strict=True)):
                f.set(delta, mean - self.means[j])
                f.set(self.means[j], self.means[j] + delta * weight)
                f.set(self.squares[j], self.squares[j] + (square + delta * delta * joint))
            f.set(self.seen, self.seen + n)

    def close(self) -> None:
        self.f.release(self.seen, *self.means, *self.squares)


class _Groups(_Assembly):
    """Groups of several channels: all that is averaged is rows of `group` elements."""

    def __init__(self, spec: ChannelNorm, name: str) -> None:
        super().__init__(spec, name)
        self.spec = spec

    def _normalise(self) -> None:
        f, spec = self.f, self.spec
        extent, source_step, out_step = spec.positions
        start = self._vectors()
        # The writing pass takes its pointers from these, so the parameters stay where they are.
        count = spec.channels // spec.group
        with f.repeat(count):
            merge = _Merge(f, 1)
            self._statistics(start[0], merge)
            self._inverse_deviation(merge.squares[0], extent * spec.group)
            pointers = [f.new(p) for p in start]
            steps = [[4 * source_step], [4 * out_step], *([[0]] * (len(start) - 2))]
            moved = [0] * len(start)
            with nest(f, [extent], pointers, steps, moved):
                row = self._write_row(pointers, spec.group, merge.means[0], merge.squares[0])
                moved[:] = [row] * len(start)
            merge.close()
            f.release(*pointers)
            advance(f, start, [4 * spec.group] * len(start))
        f.release(*start)

    def _statistics(self, start: Local, merge: _Merge) -> None:
        f, spec = self.f, self.spec
        extent, step, _ = spec.positions
        pointer = f.new(start)

        def block(count: int) -> None:
            axes = [(count, step), (spec.group, 1)]
            if step == spec.group:
                axes = [(count * spec.group, 1)]
            elements = count * spec.group
            mean = self._sum(axes, pointer)
            f.set(mean, binary("f32x4.div", mean, f32x4(float(elements))))
            squares = self._sum(axes, pointer, mean)
            merge.add(elements, [mean], [squares])
            f.release(mean, squares)
            advance(f, [pointer], [4 * count * step])

        _in_blocks(f, extent, max(1, _BLOCK_ELEMENTS // spec.group), block)
        f.release(pointer)


class _Channels(_Assembly):
    """Every channel on its own: vectors of channels, all positions."""

    def __init__(self, spec: ChannelNorm, name: str) -> None:
        super().__init__(spec, name)
        self.spec = spec

    def _normalise(self) -> None:
        f, width = self.f, _COLUMN_VECTORS * LANES
        count, rest = divmod(self.spec.channels, width)
        start = self._vectors()
        for times, columns in ((count, width), (1, rest)):
            if not times or not columns:
                continue
            with f.repeat(times):
                self._columns(start, columns)
                advance(f, start, [4 * columns] * len(start))
        f.release(*start)

    def _columns(self, start: Sequence[Local], columns: int) -> None:
        f, extent = self.f, self.spec.positions[0]
        lanes = [min(LANES, columns - first) for first in range(0, columns, LANES)]
        merge = _Merge(f, len(lanes))
        pointer = f.new(start[0])

        def block(count: int) -> None:
            means = self._fold(pointer, count, lanes, None)
            for mean in means:
                f.set(mean, binary("f32x4.div", mean, f32x4(float(count))))
            squares = self._fold(pointer, count, lanes, means)
            merge.add(count, means, squares)
            f.release(*means, *squares)
            advance(f, [pointer], [4 * count * self.spec.positions[1]])

        _in_blocks(f, extent, _BLOCK_POSITIONS, block)
        f.release(pointer)
        for squares in merge.squares:
            self._inverse_deviation(squares, extent)
        self._write(start, lanes, merge)
        merge.close()

    def _fold(
        self, start: Local, count: int, lanes: Sequence[int], means: Sequence[Local] | None
    ) -> list[Local]:
        """Per channel, the sum over `count` positions, or of squared distances from `means`."""
        f, vectors = self.f, len(lanes)
        unroll = min(max(1, _COLUMN_VECTORS // vectors), count)
        sums = f.locals(V128, vectors * unroll)
        for item in sums:
            f.set(item, f32x4(0.0))
        pointer = f.new(start)
        step = 4 * self.spec.positions[1]

        def position(slot: int) -> None:
            for j in range(vectors):
                total = sums[slot * vectors + j]
                x = load_lanes(pointer, slot * step + 16 * j, lanes[j])
                if means is None:
                    f.set(total, total + x)
                    continue
                with f.scratch(V128, 1) as (delta,):
                    f.set(delta, x - means[j])
                    f.set(total, total + delta * delta)

        with f.repeat(count // unroll):
            for slot in range(unroll):
                position(slot)
            advance(f, [pointer], [unroll * step])
        for slot in range(count % unroll):
            position(slot)
        for j in range(vectors):
            fold(f, sums[j::vectors], sum_of)
        f.release(pointer, *sums[vectors:])
        return sums[:vectors]

    def _write(self, start: Sequence[Local], lanes: Sequence[int], merge: _Merge) -> None:
        f, spec = self.f, self.spec
        extent, *steps = spec.positions
        shifts: list[Local] = []
        for j, count in enumerate(lanes):
            if self.scale is not None:
                scale = load_lanes(start[2], 16 * j, count)
                f.set(merge.squares[j], merge.squares[j] * scale)
            if self.shift is not None:
                shifts.append(f.new(load_lanes(start[-1], 16 * j, count)))
        source, out = f.new(start[0]), f.new(start[1])
        with f.repeat(extent):
            for j, count in enumerate(lanes):
                value = (load_lanes(source, 16 * j, count) - merge.means[j]) * merge.squares[j]
                if shifts:
                    value = value + shifts[j]
                with f.scratch(V128, 1) as (result,):
                    f.set(result, value)
                    f.store_lanes(out, result, 16 * j, count)
            advance(f, [source, out], [4 * s for s in steps])
        f.release(source, out, *shifts)


def _in_blocks(f: Function, extent: int, limit: int, block: Callable[[int], None]) -> None:
    """Emit a loop over equal blocks and one for the rest."""
    count = -(-extent // limit)
    size = extent // count
    with f.repeat(extent // size):
        block(size)
    if extent % size:
        block(extent % size)
