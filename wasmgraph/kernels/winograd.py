"""3x3 convolutions of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3).

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.3. A
tile of 4x4 outputs is made from 6x6 inputs: 36 products per channel pair instead of 144. The price
is accuracy: sums mix values scaled by 1/24 to 8, and the largest error grows from about 1e-6 to
about 1e-5 of the largest output (tests/kernels/test_winograd.py).

Weights are transformed when the kernel runs, one block of columns at a time, so that the file does
not grow fourfold; with 20 tiles that takes a tenth of the time.

The 36 transformed tiles lie a cache line further apart than they need: at powers of two they
compete for few sets of the first-level cache. resnet50 as a whole was 5 % slower so,
super_resolution 15 % (one Zen 4 core, Wasmtime 50, 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    binary,
    f32x4,
    i32,
    load,
    select,
    unfused,
)
from wasmgraph.kernels.chain import IDENTITY, Chain, emit_chain
from wasmgraph.kernels.contraction import BatchAxis, Contraction, emit_product
from wasmgraph.kernels.operands import PixelOperand, load_operand
from wasmgraph.kernels.rows import advance
from wasmgraph.kernels.sharing import LINE_FLOATS, Share, on_two_threads, pieces
from wasmgraph.kernels.stored import NBYTES, Stored, load_stored
from wasmgraph.kernels.tiles import LANES, column_blocks

TILE = 4
INPUT_TILE = 6
_POINTS = INPUT_TILE * INPUT_TILE

SCRATCH_BYTES = 640 * 1024
"""Bound of the transformed input of one chunk of tiles, so that it stays in the second-level cache
beside a block of weights."""

_SHARE_ALIGNMENT = 64
"""Bytes: the scratch memory of each share starts a cache line."""

_INPUT_COST, _WEIGHT_COST = 5, 2
"""Time to transform the input of one tile and channel, and the weights of one channel and column,
in units of the products of one tile, channel and column. A fit within a quarter over nine shapes of
64 to 256 channels (one Zen 4 core, shared with other work; Wasmtime 50, 2026-11-20)."""

Emit = Callable[[int, Expr], None]

_Cut = list[tuple["Winograd", tuple[int, ...]]]
"""Kernels and the bytes from each parameter to theirs, without the scratch memory."""


def _input_transform(f: Function, d: Sequence[Expr], emit: Emit) -> None:
    """B^T d (Lavin & Gray, section 4.3), its common sums computed once."""
    with f.scratch(V128, 2) as (even, odd):
        emit(0, d[0] * f32x4(4) - d[2] * f32x4(5) + d[4])
        f.set(even, d[4] - d[2] * f32x4(4))
        f.set(odd, d[3] - d[1] * f32x4(4))
        emit(1, even + odd)
        emit(2, even - odd)
        f.set(even, d[4] - d[2])
        f.set(odd, (d[3] - d[1]) * f32x4(2))
        emit(3, even + odd)
        emit(4, even - odd)
        emit(5, d[1] * f32x4(4) - d[3] * f32x4(5) + d[5])


def _kernel_transform(f: Function, g: Sequence[Expr], emit: Emit) -> None:
    """G g."""
    with f.scratch(V128, 2) as (outer, middle):
        emit(0, g[0] * f32x4(1 / 4))
        f.set(outer, (g[0] + g[2]) * f32x4(-1 / 6))
        f.set(middle, g[1] * f32x4(1 / 6))
        emit(1, outer - middle)
        emit(2, outer + middle)
        f.set(outer, g[0] * f32x4(1 / 24) + g[2] * f32x4(1 / 6))
        f.set(middle, g[1] * f32x4(1 / 12))
        emit(3, outer + middle)
        emit(4, outer - middle)
        emit(5, g[2])


def _output_transform(f: Function, m: Sequence[Expr], emit: Emit) -> None:
    """A^T m."""
    with f.scratch(V128, 2) as (near, far):
        f.set(near, m[1] + m[2])
        f.set(far, m[3] + m[4])
        emit(0, m[0] + near + far)
        emit(2, near + far * f32x4(4))
        f.set(near, m[1] - m[2])
        f.set(far, m[3] - m[4])
        emit(1, near + far * f32x4(2))
        emit(3, near + far * f32x4(8) + m[5])


Transform = Callable[[Function, Sequence[Expr], Emit], None]


def padded_extent(extent: int) -> int:
    """Rows (or columns) of input that the tiles over `extent` outputs read."""
    return -(-extent // TILE) * TILE + INPUT_TILE - TILE


@dataclass(frozen=True)
class Winograd:
    """out[n, y, x, o] = chain(bias[o] + sum over i, j, c of in[n, y+i, x+j, c] * w[i, j, c, o])

    Attributes:
        batch, height, width: Of the output, which is channel-last.
        channels: Of the input, a multiple of 4. It is dense and channel-last, padded to
            `padded_extent` of height and width.
        columns: Channels of the output, in equal blocks of whole vectors (`applies`).
        has_bias: Whether a vector of `columns` is added.
        chain, operands: The epilogue; operand 0 is the sum.
        pitch: Elements between pixels of the output, whose rows and images are dense; 0: `columns`.
        stored: As what the weights are.
    """

    batch: int
    height: int
    width: int
    channels: int
    columns: int
    has_bias: bool = False
    chain: Chain = IDENTITY
    operands: tuple[PixelOperand, ...] = ()
    pitch: int = 0
    stored: Stored = "float32"

    @property
    def out_col(self) -> int:
        """Elements between pixels of the output."""
        return self.pitch or self.columns

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles in an image."""
        return -(-self.height // TILE), -(-self.width // TILE)

    @property
    def block(self) -> int:
        """Columns worked on at a time."""
        return column_blocks(self.columns)[0] * LANES

    @property
    def chunks(self) -> int:
        """In how many chunks of rows of tiles an image is worked through."""
        rows, across = self.tiles
        fitting = max(1, SCRATCH_BYTES // (4 * _POINTS * self.channels * across))
        return -(-rows // fitting)

    @property
    def chunk_rows(self) -> int:
        """Rows of tiles per chunk; the last chunk overlaps the one before it if need be."""
        return -(-self.tiles[0] // self.chunks)

    @property
    def chunk(self) -> int:
        """Tiles transformed at a time."""
        return self.chunk_rows * self.tiles[1]

    @property
    def steps(self) -> tuple[int, int, int]:
        """Elements between points of the transformed input, of the weights and of the products.

        A line more than they need: 36 streams at a distance of a power of two would compete for the
        same few sets of the first-level cache.
        """
        sizes = self.chunk * self.channels, self.channels * self.block, self.chunk * self.block
        inputs, weights, products = (size + LINE_FLOATS for size in sizes)
        return inputs, weights, products

    @property
    def scratch_nbytes(self) -> int:
        """Bytes of the scratch buffer: transformed input, weights and products."""
        return 4 * _POINTS * sum(self.steps)

    @property
    def replaceable(self) -> int:
        """How many of the last operands the output may lie upon, if they have its strides.

        None where the last chunk overlaps the one before: it would read what that one wrote.
        """
        overlaps = self.chunks * self.chunk_rows > self.tiles[0]
        return 0 if overlaps else len(self.operands)

    @property
    def flops(self) -> int:
        """Of the direct convolution."""
        return 2 * 9 * prod((self.batch, self.height, self.width, self.channels, self.columns))

    def assemble(self, name: str) -> Function:
        """Parameters: input, packed weights, scales (of int8), bias (if any), the chain's operands,
        out, scratch."""
        with unfused():
            return _Assembly(self, name).run()

    def shares(self, count: int) -> tuple[Share, ...]:
        """At most `count` kernels for images, rows of tiles or blocks of columns.

        By `_cost` what is chosen is quick on two threads, and has small shares for more of them:
        columns transform the inputs again for each share, rows the weights.
        """
        cuts = [self._shares_of_images(count)]
        for most in range(2, count + 1):
            if self.batch == 1:
                cuts.append(self._shares_of_rows(most))
            cuts.append(self._shares_of_columns(most))

        def time(cut: Sequence[tuple[Winograd, tuple[int, ...]]]) -> float:
            costs = [kernel._cost for kernel, _ in cut]
            return 2 * on_two_threads(costs) + max(costs)

        best = min(cuts, key=time)
        scratch = -(-max(kernel.scratch_nbytes for kernel, _ in best) // _SHARE_ALIGNMENT)
        return tuple(
            Share(kernel, (*offsets, index * scratch * _SHARE_ALIGNMENT))
            for index, (kernel, offsets) in enumerate(best)
        )

    @property
    def _cost(self) -> float:
        """About how long it takes, in products (of 36 per tile, channel and column)."""
        chunks = self.batch * self.chunks
        products = chunks * self.chunk * self.channels * self.columns
        inputs = chunks * self.chunk * self.channels
        weights = chunks * self.channels * self.columns
        return products + _INPUT_COST * inputs + _WEIGHT_COST * weights

    def _shares_of_images(self, count: int) -> _Cut:
        image = self.height * self.width * self.out_col
        padded = padded_extent(self.height) * padded_extent(self.width) * self.channels
        return [
            (
                replace(self, batch=length),
                self._offsets(first, padded, 0, 0, [o.batch for o in self.operands], image),
            )
            for first, length in pieces(self.batch, count)
        ]

    def _shares_of_rows(self, count: int) -> _Cut:
        row = TILE * self.width * self.out_col
        padded = TILE * padded_extent(self.width) * self.channels
        return [
            (
                replace(self, height=min(self.height - first * TILE, length * TILE)),
                self._offsets(first, padded, 0, 0, [TILE * o.row for o in self.operands], row),
            )
            for first, length in pieces(self.tiles[0], count)
        ]

    def _shares_of_columns(self, count: int) -> _Cut:
        weights = 9 * self.channels
        return [
            (
                replace(self, columns=length, pitch=self.out_col),
                self._offsets(first, 0, weights, 1, [o.channel for o in self.operands], 1),
            )
            for first, length in pieces(self.columns, count, self.block)
        ]

    def _offsets(
        self, first: int, source: int, weights: int, bias: int, operands: Sequence[int], out: int
    ) -> tuple[int, ...]:
        """Bytes to where a share begins, from the elements between neighbours on the cut axis."""
        per_column = [bias] * ((self.stored == "int8") + self.has_bias)
        others = (4 * step for step in (*per_column, *operands, out))
        steps = [4 * source, NBYTES[self.stored] * weights, *others]
        return tuple(first * step for step in steps)


def applies(channels: int, columns: int) -> bool:
    """Whether channels and columns come in whole vectors and equal blocks."""
    return channels % LANES == 0 and columns % LANES == 0 and len(set(column_blocks(columns))) == 1


class _Assembly:
    def __init__(self, spec: Winograd, name: str) -> None:
        self.spec = spec
        has_scales = spec.stored == "int8"
        self.f = Function(name, 4 + has_scales + spec.has_bias + len(spec.operands))
        self.source, self.weights, *params, self.out, self.inputs = self.f.params
        self.scales = params.pop(0) if has_scales else None
        self.bias = params.pop(0) if spec.has_bias else None
        self.operands = params
        inputs, weights, _ = spec.steps
        self.kernels = self.f.new(self.inputs + 4 * _POINTS * inputs)
        self.products = self.f.new(self.kernels + 4 * _POINTS * weights)
        self.zero = self.f.new(binary("i32.and", self.out, i32(1)))

    def run(self) -> Function:
        spec, f = self.spec, self.f
        rows, _ = spec.tiles
        pitch = padded_extent(spec.width) * spec.channels
        pointers = [self.out, *self.operands]
        strides = [spec.width * spec.out_col, *(o.row for o in spec.operands)]
        with f.repeat(spec.batch):
            done = f.new(i32(0))  # rows of pixels
            with f.repeat(spec.chunks):
                source = f.new(self.source + done * (4 * pitch))
                self._transform_inputs(source, pitch)
                f.release(source)
                left = f.new(i32(spec.height) - done)
                cursors = [
                    f.new(p + done * (4 * stride))
                    for p, stride in zip(pointers, strides, strict=True)
                ]
                self._blocks(left, cursors[0], cursors[1:])
                f.release(left, *cursors)
                # The last chunk starts early enough to end with the image.
                last, following = (rows - spec.chunk_rows) * TILE, done + spec.chunk_rows * TILE
                f.set(done, select(binary("i32.lt_s", following, i32(last)), following, i32(last)))
            f.release(done)
            advance(f, [self.source], [padded_extent(spec.height) * pitch])
            image = spec.height * spec.width * spec.out_col
            advance(f, pointers, [image, *(o.batch for o in spec.operands)])
        return f

    def _transform_inputs(self, source: Local, pitch: int) -> None:
        """V[point][tile][channel] for the tiles of a chunk."""
        spec, f = self.spec, self.f
        target = f.new(self.inputs)
        row = f.new(source)
        with f.repeat(spec.chunk_rows):
            tile = f.new(row)
            with f.repeat(spec.tiles[1]):
                cursor = f.new(tile)
                with f.repeat(spec.channels // LANES):
                    loaded = [
                        [
                            load(cursor, 4 * (y * pitch + x * spec.channels))
                            for x in range(INPUT_TILE)
                        ]
                        for y in range(INPUT_TILE)
                    ]
                    self._sandwich(_input_transform, loaded, target, spec.steps[0])
                    advance(f, [cursor, target], [LANES, LANES])
                f.release(cursor)
                advance(f, [tile], [TILE * spec.channels])
            f.release(tile)
            advance(f, [row], [TILE * pitch])
        f.release(target, row)

    def _blocks(self, left: Local, start: Local, others: list[Local]) -> None:
        """For each block of columns: transform its weights, multiply, transform the products."""
        spec, f = self.spec, self.f
        channels, block, chunk = spec.channels, spec.block, spec.chunk
        weights, out = f.new(self.weights), f.new(start)
        scales, bias = (p and f.new(p) for p in (self.scales, self.bias))
        along = [p for p in (out, scales, bias) if p is not None]
        operands = [f.new(o) for o in others]
        product = Contraction(
            batch=(BatchAxis(_POINTS, *spec.steps),),
            rows=((chunk, channels),),
            out_row=block,
            reduce=((channels, 1),),
            columns=block,
        )
        with f.repeat(-(-spec.columns // block)):
            self._transform_weights(weights, scales)
            emit_product(f, product, self.inputs, self.kernels, self.products)
            self._transform_products(left, out, bias, operands)
            advance(f, [weights], [9 * channels * block], NBYTES[spec.stored])
            advance(f, along, [block] * len(along))
            advance(f, operands, [block * o.channel for o in spec.operands])
        f.release(weights, *along, *operands)

    def _transform_weights(self, weights: Local, scales: Local | None) -> None:
        """U[point][channel][column] from w[3][3][channel][column] of one block."""
        spec, f = self.spec, self.f
        source, target = f.new(weights), f.new(self.kernels)
        step = spec.channels * spec.block
        with f.repeat(spec.channels):
            factors = scales and f.new(scales)
            with f.repeat(spec.block // LANES):
                factor = factors and load(factors)
                loaded = [
                    [load_stored(spec.stored, source, (3 * i + j) * step, factor) for j in range(3)]
                    for i in range(3)
                ]
                self._sandwich(_kernel_transform, loaded, target, spec.steps[1])
                advance(f, [source], [LANES], NBYTES[spec.stored])
                moving = [p for p in (target, factors) if p is not None]
                advance(f, moving, [LANES] * len(moving))
            if factors is not None:
                f.release(factors)
        f.release(source, target)

    def _sandwich(
        self, transform: Transform, values: Sequence[Sequence[Expr]], target: Local, step: int
    ) -> None:
        """Transform columns, then rows; store the 36 results `step` floats apart."""
        f = self.f
        width = len(values[0])
        with f.scratch(V128, INPUT_TILE * width) as half:
            self._columns(transform, values, half)
            for y in range(INPUT_TILE):

                def store(x: int, value: Expr, y: int = y) -> None:
                    f.store(target, value, 4 * (y * INPUT_TILE + x) * step)

                transform(f, half[y * width : (y + 1) * width], store)

    def _columns(
        self, transform: Transform, values: Sequence[Sequence[Expr]], half: Sequence[Local]
    ) -> None:
        """Transform every column of values; one at a time, so that few are live."""
        f = self.f
        width = len(values[0])
        for x in range(width):
            with f.scratch(V128, len(values)) as column:
                for y, local in enumerate(column):
                    f.set(local, values[y][x])

                def keep(y: int, value: Expr, x: int = x) -> None:
                    f.set(half[y * width + x], value)

                transform(f, column, keep)

    def _transform_products(
        self, left: Local, out: Local, bias: Local | None, operands: list[Local]
    ) -> None:
        """Pixels of the tiles of a chunk, one vector of columns at a time."""
        spec, f = self.spec, self.f
        source = f.new(self.products)
        rows_left = f.new(left)
        pointers = [f.new(p) for p in (out, *operands)]
        with f.repeat(spec.chunk_rows):
            columns_left = f.new(i32(spec.width))
            across = [f.new(p) for p in pointers]
            with f.repeat(spec.tiles[1]):
                cursors = [f.new(p) for p in across]
                bias_cursor = f.new(bias) if bias is not None else None
                with f.repeat(spec.block // LANES):
                    self._pixels(source, rows_left, columns_left, bias_cursor, cursors)
                    steps = [LANES, *(LANES * o.channel for o in spec.operands)]
                    advance(f, [source, *cursors], [LANES, *steps])
                    if bias_cursor is not None:
                        advance(f, [bias_cursor], [LANES])
                f.release(*cursors, *([bias_cursor] if bias_cursor is not None else []))
                advance(f, across, [TILE * spec.out_col, *(TILE * o.col for o in spec.operands)])
                f.set(columns_left, columns_left - TILE)
            f.release(columns_left, *across)
            pitch = spec.width * spec.out_col
            advance(f, pointers, [TILE * pitch, *(TILE * o.row for o in spec.operands)])
            f.set(rows_left, rows_left - TILE)
        f.release(source, rows_left, *pointers)

    def _pixels(
        self,
        source: Local,
        rows_left: Local,
        columns_left: Local,
        bias: Local | None,
        cursors: list[Local],
    ) -> None:
        """Up to 4x4 pixels of four columns; those beyond the image's edge are not stored."""
        spec, f = self.spec, self.f
        step = 4 * spec.steps[2]
        values = [
            [load(source, (y * INPUT_TILE + x) * step) for x in range(INPUT_TILE)]
            for y in range(INPUT_TILE)
        ]
        with f.scratch(V128, TILE * INPUT_TILE) as half, f.scratch(V128, TILE) as pixels:
            self._columns(_output_transform, values, half)
            for y in range(TILE):
                row = half[y * INPUT_TILE : (y + 1) * INPUT_TILE]
                with f.block() as below:
                    if y and spec.height % TILE:
                        f.leave_if(below, binary("i32.le_s", rows_left, i32(y)))
                    _output_transform(f, row, lambda x, value: f.set(pixels[x], value))
                    for x in range(TILE):
                        if x and spec.width % TILE:
                            f.leave_if(below, binary("i32.le_s", columns_left, i32(x)))
                        self._pixel(pixels[x], y, x, bias, cursors)

    def _pixel(self, total: Expr, y: int, x: int, bias: Local | None, cursors: list[Local]) -> None:
        spec, f = self.spec, self.f
        if bias is not None:
            total = total + load(bias)
        inputs = [total]
        for pointer, operand in zip(cursors[1:], spec.operands, strict=True):
            offset = 4 * (y * operand.row + x * operand.col)
            inputs.append(load_operand(pointer, offset, operand.channel, LANES))
        value, taken = emit_chain(f, spec.chain, inputs)
        f.store(cursors[0], value, 4 * (y * spec.width + x) * spec.out_col)
        f.release(*taken)
