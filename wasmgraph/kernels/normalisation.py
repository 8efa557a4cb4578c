"""Layer normalisation of rows; instance and group normalisation of channel-last images.

Means and variances take two passes in float32. For images the passes run over blocks that stay in
the first-level cache, and the blocks' means and squared deviations are merged by the formula of
Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing sample
variances", 1979). So memory is read once for them, nothing cancels, and the relative error grows
with the number of blocks, not of positions.

Measured (one Zen 4 core at 3.6 GHz, shared with other work, Wasmtime 50, 2026-11-20): a 197x192
layer 0.41 ns per element, 19 GB/s; instance normalisation of 66 MB takes 10 ms with 32 and 15 ms
with 128 channels, where a plain ReLU of as much takes 13 ms. Block by block of channels, each over
all positions, it took 50 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from wasmgraph.kernels.accumulating import Axis, across, blocked, fold, fold_row, in_blocks, sum_of
from wasmgraph.kernels.chain import IDENTITY, Chain, emit_chain
from wasmgraph.kernels.loops import LANES, advance, nest, sweep
from wasmgraph.kernels.sharing import Share, cut_axis, outer_shares, whole

_ROW_BLOCK = 4096
_BLOCK_ELEMENTS = 2048
_LEAST_POSITIONS = 16
_COLUMN_VECTORS = 8

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

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels for rows."""
        vectors = self.has_scale + self.has_shift
        cut = cut_axis([(axis[0], 1) for axis in self.outer], count)
        if cut is None:
            return whole(self, 2 + vectors)
        index, parts = cut
        return outer_shares(self, index, parts, vectors)


@dataclass(frozen=True)
class ChannelNorm:
    """out = (x - mean) / sqrt(variance + epsilon) * scale + shift, per group of adjacent channels

    The output must not overlap the input.

    Attributes:
        outer: Independent images, outermost first; strides in elements.
        positions: The axis over which a group is averaged; channels are contiguous at each.
        channels: How many; also the length of `scale` and `shift`.
        group: Channels that share a mean and variance: 1 is instance normalisation.
        epsilon: Added to the (biased) variance.
        has_scale, has_shift: Whether there is such a vector.
        chain: What is done to the result; it has no other operands.
        block: With a group of 1, positions per block of the statistics; 0: as the first-level cache
            takes.
    """

    outer: tuple[OuterAxis, ...]
    positions: OuterAxis
    channels: int
    group: int
    epsilon: float
    has_scale: bool
    has_shift: bool
    chain: Chain = IDENTITY
    block: int = 0

    @property
    def block_positions(self) -> int:
        """Positions per block of a group of 1, at most."""
        return self.block or max(_LEAST_POSITIONS, _BLOCK_ELEMENTS // self.channels)

    def assemble(self, name: str) -> Function:
        """Parameters: x, scale (if any), shift (if any), out."""
        assert self.channels % self.group == 0, (self.channels, self.group)
        assembly = _Channels if self.group == 1 else _Groups
        return assembly(self, name).run()

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels for images or for groups of channels.

        Blocks of positions and of channels stay as they are: others would sum in another order.
        """
        vectors = self.has_scale + self.has_shift
        step = _COLUMN_VECTORS * LANES if self.group == 1 else self.group
        cut = cut_axis([*((axis[0], 1) for axis in self.outer), (self.channels, step)], count)
        if cut is None:
            return whole(self, 2 + vectors)
        index, parts = cut
        if index == len(self.outer):
            kernel = replace(self, block=self.block_positions if self.group == 1 else 0)
            return tuple(
                Share(replace(kernel, channels=length), (4 * first,) * (2 + vectors))
                for first, length in parts
            )
        return outer_shares(self, index, parts, vectors)


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
        self.chain = spec.chain if isinstance(spec, ChannelNorm) else IDENTITY

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
            self._store(pointers[1], value, offset, lanes)

        return sweep(f, length, 4, pointers, one)

    def _store(self, pointer: Local, value: Expr, offset: int, lanes: int) -> None:
        """Apply the chain and store the lanes."""
        f = self.f
        value, taken = emit_chain(f, self.chain, [value])
        with f.scratch(V128, 1) as (result,):
            f.set(result, value)
            f.store_lanes(pointer, result, offset, lanes)
        f.release(*taken)

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
    """A mean and a sum of squared deviations that grow block by block."""

    def __init__(self, f: Function) -> None:
        self.f = f
        self.seen, self.mean, self.squares = (f.new(f32x4(0.0)) for _ in range(3))

    def add(self, count: int, mean: Local, squares: Local) -> None:
        """Merge a block of `count` elements."""
        f, n = self.f, f32x4(float(count))
        with f.scratch(V128, 2) as (weight, delta):
            f.set(weight, binary("f32x4.div", n, self.seen + n))
            f.set(delta, mean - self.mean)
            f.set(self.mean, self.mean + delta * weight)
            between = delta * delta * (self.seen * weight)
            f.set(self.squares, self.squares + (squares + between))
            f.set(self.seen, self.seen + n)

    def close(self) -> None:
        self.f.release(self.seen, self.mean, self.squares)


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
            merge = _Merge(f)
            self._statistics(start[0], merge)
            self._inverse_deviation(merge.squares, extent * spec.group)
            pointers = [f.new(p) for p in start]
            steps = [[4 * source_step], [4 * out_step], *([[0]] * (len(start) - 2))]
            moved = [0] * len(start)
            with nest(f, [extent], pointers, steps, moved):
                row = self._write_row(pointers, spec.group, merge.mean, merge.squares)
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
            merge.add(elements, mean, squares)
            f.release(mean, squares)
            advance(f, [pointer], [4 * count * step])

        in_blocks(f, extent, max(1, _BLOCK_ELEMENTS // spec.group), block)
        f.release(pointer)


class _Channels(_Assembly):
    """Every channel on its own: vectors of channels, all positions.

    Memory is read in order: block by block of positions, all channels of each. What is known of the
    channels so far (means, sums of squared deviations) waits in the output's first two positions,
    which are written last.
    """

    def __init__(self, spec: ChannelNorm, name: str) -> None:
        super().__init__(spec, name)
        self.spec = spec

    def _normalise(self) -> None:
        f, spec = self.f, self.spec
        extent, step, out_step = spec.positions
        if extent == 1:
            self._single()
            return
        means, squares = self.out, f.new(self.out + 4 * out_step)
        for state in (means, squares):
            f.fill_zero(state, 4 * spec.channels)
        self._statistics(means, squares)
        self._multipliers(squares)
        source, out = f.new(self.source + 8 * step), f.new(self.out + 8 * out_step)
        with f.repeat(extent - 2):
            self._write([source], [out], means, squares)
            advance(f, [source, out], [4 * step, 4 * out_step])
        f.set(source, self.source + 4 * step)
        self._write([self.source, source], [means, squares], means, squares)
        f.release(source, out, squares)

    def _single(self) -> None:
        """A single position is its own mean."""
        f = self.f
        pointers = [f.new(p) for p in (self.source, self.out, self.shift) if p is not None]

        def one(_: int, offset: int, lanes: int) -> None:
            with f.scratch(V128, 1) as (x,):
                f.set(x, load_lanes(pointers[0], offset, lanes))
                f.set(x, x - x)
                if self.shift is not None:
                    f.set(x, x + load_lanes(pointers[2], offset, lanes))
                self._store(pointers[1], x, offset, lanes)

        sweep(f, self.spec.channels, 1, pointers, one)
        f.release(*pointers)

    def _statistics(self, means: Local, squares: Local) -> None:
        f, spec = self.f, self.spec
        extent, step, _ = spec.positions
        pointer, seen = f.new(self.source), f.new(f32x4(0.0))

        def block(count: int) -> None:
            n = f32x4(float(count))
            with f.scratch(V128, 2) as (weight, joint):
                f.set(weight, binary("f32x4.div", n, seen + n))
                f.set(joint, seen * weight)
                cursors = [f.new(p) for p in (pointer, means, squares)]
                for times, lanes in _column_blocks(spec.channels):
                    with f.repeat(times):
                        self._merge(count, lanes, cursors, weight, joint)
                        advance(f, cursors, [4 * sum(lanes)] * 3)
                f.release(*cursors)
            f.set(seen, seen + n)
            advance(f, [pointer], [4 * count * step])

        in_blocks(f, extent, spec.block_positions, block)
        f.release(pointer, seen)

    def _merge(
        self,
        count: int,
        lanes: Sequence[int],
        cursors: Sequence[Local],
        weight: Local,
        joint: Local,
    ) -> None:
        """Add `count` positions of a few vectors to what is known; as `_Merge`, in memory."""
        f = self.f
        source, means, squares = cursors
        mine = self._fold(source, count, lanes, None)
        for mean in mine:
            f.set(mean, binary("f32x4.div", mean, f32x4(float(count))))
        deviations = self._fold(source, count, lanes, mine)
        for j, width in enumerate(lanes):
            with f.scratch(V128, 2) as (delta, value):
                f.set(value, load_lanes(means, 16 * j, width))
                f.set(delta, mine[j] - value)
                f.set(value, value + delta * weight)
                f.store_lanes(means, value, 16 * j, width)
                f.set(value, deviations[j] + delta * delta * joint)
                f.set(value, load_lanes(squares, 16 * j, width) + value)
                f.store_lanes(squares, value, 16 * j, width)
        f.release(*mine, *deviations)

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

    def _multipliers(self, squares: Local) -> None:
        """Sums of squared deviations become what a difference from the mean is multiplied by."""
        f, spec = self.f, self.spec
        pointers = [f.new(p) for p in (squares, self.scale) if p is not None]

        def one(_: int, offset: int, lanes: int) -> None:
            with f.scratch(V128, 1) as (value,):
                f.set(value, load_lanes(pointers[0], offset, lanes))
                self._inverse_deviation(value, spec.positions[0])
                if self.scale is not None:
                    f.set(value, value * load_lanes(pointers[1], offset, lanes))
                f.store_lanes(pointers[0], value, offset, lanes)

        sweep(f, spec.channels, 1, pointers, one)
        f.release(*pointers)

    def _write(
        self, sources: Sequence[Local], outs: Sequence[Local], means: Local, multipliers: Local
    ) -> None:
        """Normalise one or two positions; the state may lie where they are written."""
        f = self.f
        shared = [p for p in (means, multipliers, self.shift) if p is not None]
        pointers = [f.new(p) for p in (*shared, *sources, *outs)]
        state, rest = pointers[: len(shared)], pointers[len(shared) :]

        def one(_: int, offset: int, lanes: int) -> None:
            with f.scratch(V128, len(state)) as known:
                for local, pointer in zip(known, state, strict=True):
                    f.set(local, load_lanes(pointer, offset, lanes))
                for index in range(len(sources)):
                    x = load_lanes(rest[index], offset, lanes)
                    value = (x - known[0]) * known[1]
                    if self.shift is not None:
                        value = value + known[2]
                    self._store(rest[len(sources) + index], value, offset, lanes)

        sweep(f, self.spec.channels, 2, pointers, one)
        f.release(*pointers)


def _column_blocks(channels: int) -> list[tuple[int, list[int]]]:
    """(how often, the lanes of each vector) of the blocks into which channels are cut."""
    count, rest = divmod(channels, _COLUMN_VECTORS * LANES)
    blocks = [(count, [LANES] * _COLUMN_VECTORS)] if count else []
    if rest:
        blocks.append((1, [min(LANES, rest - first) for first in range(0, rest, LANES)]))
    return blocks
