"""What a tile of a product adds up: rows of a times a panel of columns of b, kept in registers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from wasmgraph.assembler.function import (
    V128,
    Expr,
    Function,
    Local,
    load,
    load_f32,
    load_lanes,
    shuffle,
    splat,
    unfused,
)
from wasmgraph.kernels.block_stored import (
    BlockFormat,
    emit_codes_decoding,
    head_nbytes,
    record_nbytes,
)
from wasmgraph.kernels.rows import Axes, TileRows, advance
from wasmgraph.kernels.stored import NBYTES, Stored, load_stored
from wasmgraph.kernels.tiles import LANES

DECODED_AT_ONCE = 64
"""How many k of a block a tile decodes before it multiplies with them: they stay in the first-level
cache. It is whole words of any `BlockFormat`."""


@dataclass(frozen=True)
class Panel:
    """Columns of b as a tile reads them.

    Attributes:
        pointer: To where the reduction stands.
        stored: As what the elements are.
        scales: To those of the first column on, with int8.
    """

    pointer: Local
    stored: Stored | BlockFormat = "float32"
    scales: Local | None = None


@dataclass(frozen=True)
class TileSums:
    """Adds products to sums.

    Attributes:
        f: What is assembled.
        reduce: As in `Contraction`.
        b_row: As in `Contraction`.
        fused: Whether a product is added in the same instruction, where there is one.
        zero: An i32 that is 0.
        scratch: Room for `DECODED_AT_ONCE` k of a panel, where it is stored in blocks.
    """

    f: Function
    reduce: Axes
    b_row: int
    fused: bool
    zero: Local
    scratch: Local | None

    def add(
        self, rows: TileRows, vectors: int, columns: int, b: Panel, sums: Sequence[Local]
    ) -> None:
        """Add all products of some rows and a panel; pointers are as before when it is done.

        Args:
            vectors: Of columns, in the panel.
            columns: Those of them that there are.
            sums: By row and vector.
        """
        f = self.f
        pointer = f.new(b.pointer)
        moving = replace(b, pointer=pointer)
        with f.block() as end:
            tile = _Tile(self, rows, vectors, columns, sums, end)
            if isinstance(b.stored, BlockFormat):
                tile.add_blocks(moving, b.stored)
            else:
                tile.add_axis(0, moving)
        f.release(pointer)


@dataclass(frozen=True)
class _Tile:
    """One tile; `end` is the label behind it."""

    kernel: TileSums
    rows: TileRows
    vectors: int
    columns: int
    sums: Sequence[Local]
    end: int

    def add_axis(self, level: int, b: Panel) -> None:
        """The loops of the reduction, each axis moving the rows' pointers back when it is done."""
        extent, stride = self.kernel.reduce[level]
        if level + 1 < len(self.kernel.reduce):
            with self.kernel.f.repeat(extent):
                self.add_axis(level + 1, b)
                self.rows.move(stride)
        else:
            self._run(extent, stride, b)
        self.rows.move(-extent * stride)

    def add_blocks(self, b: Panel, form: BlockFormat) -> None:
        """Over the one axis of a reduction, some k after the other decoded into scratch memory."""
        f, scratch = self.kernel.f, self.kernel.scratch
        ((extent, stride),) = self.kernel.reduce
        assert scratch is not None
        for count, length in form.blocks(extent):
            with f.repeat(count):
                codes = f.new(b.pointer + head_nbytes(form, self.vectors))
                whole, rest = divmod(length, DECODED_AT_ONCE)
                for times, depth in ((whole, DECODED_AT_ONCE), (1 if rest else 0, rest)):
                    with f.repeat(times):
                        emit_codes_decoding(f, form, b.pointer, codes, scratch, depth, self.vectors)
                        decoded = f.new(scratch)
                        self._run(depth, stride, Panel(decoded))
                        f.release(decoded)
                        f.set(codes, codes + LANES * self.vectors * form.codes_nbytes(depth))
                f.release(codes)
                f.set(b.pointer, b.pointer + record_nbytes(form, length, self.vectors))
        self.rows.move(-extent * stride)

    def _run(self, count: int, stride: int, b: Panel) -> None:
        """So many k that lie `stride` apart."""
        f = self.kernel.f
        lane_wise, rest = divmod(count, LANES) if stride == 1 else (0, count)
        if lane_wise:
            with f.repeat(lane_wise):
                self._four(b)
        if rest:
            chunk = rest if rest < LANES else 1
            with f.repeat(rest // chunk):
                for index in range(chunk):
                    self._one(index * stride, index, b)
                    if index + 1 < chunk:
                        f.leave_if(self.end, self.kernel.zero)
                self.rows.move(chunk * stride)
                self._move_b(b, chunk)

    def _four(self, b: Panel) -> None:
        """Four steps of k: one vector of each row of a, whose lanes are spread in turn."""
        f, rows = self.kernel.f, self.rows
        with (
            f.scratch(V128, rows.height) as lanes,
            f.scratch(V128, 1 + self.vectors) as (spread, *loaded),
        ):
            for i in range(rows.height):
                f.set(lanes[i], load(*rows.at(i, 0)))
            for k in range(LANES):
                self._load_b(b, k, loaded)
                for i in range(rows.height):
                    f.set(spread, shuffle(lanes[i], lanes[i], (k, k, k, k)))
                    self._add_products(i, spread, loaded)
                if k + 1 < LANES:
                    # Never taken. Cranelift moves arithmetic down to where a branch needs it, and
                    # so would load all of b first and spill: 28 instead of 42 GFLOP/s.
                    f.leave_if(self.end, self.kernel.zero)
        rows.move(LANES)
        self._move_b(b, LANES)

    def _one(self, a_offset: int, k: int, b: Panel) -> None:
        f = self.kernel.f
        with f.scratch(V128, 1 + self.vectors) as (spread, *loaded):
            self._load_b(b, k, loaded)
            for i in range(self.rows.height):
                f.set(spread, splat(load_f32(*self.rows.at(i, a_offset))))
                self._add_products(i, spread, loaded)

    def _add_products(self, i: int, a: Local, b: Sequence[Local]) -> None:
        """To the sums of one row."""
        for j, factor in enumerate(b):
            total = self.sums[i * self.vectors + j]
            with nullcontext() if self.kernel.fused else unfused():
                value: Expr = total + a * factor
            self.kernel.f.set(total, value)

    def _load_b(self, b: Panel, k: int, loaded: Sequence[Local]) -> None:
        for j, target in enumerate(loaded):
            self.kernel.f.set(target, self._vector(b, k, j))

    def _vector(self, b: Panel, k: int, j: int) -> Expr:
        assert not isinstance(b.stored, BlockFormat)
        row = self.kernel.b_row
        if not row:
            scales = load(b.scales, 16 * j) if b.scales is not None else None
            return load_stored(b.stored, b.pointer, (k * self.vectors + j) * LANES, scales)
        lanes = min(LANES, self.columns - j * LANES)
        return load_lanes(b.pointer, 4 * (k * row + j * LANES), lanes)

    def _move_b(self, b: Panel, steps: int) -> None:
        assert not isinstance(b.stored, BlockFormat)
        step = self.kernel.b_row or self.vectors * LANES
        advance(self.kernel.f, [b.pointer], [steps * step], NBYTES[b.stored])
