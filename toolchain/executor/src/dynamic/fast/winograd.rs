//! 3x3 convolutions that move by one element, with a quarter of the multiplications: Winograd's
//! F(4x4, 3x3), as wasmgraph/kernels/winograd.py has it, which also names the source and says what it
//! costs in accuracy.
//!
//! Tiles of the output are numbered row by row, with one more per row that nobody wants: so elements at
//! the same place of neighbouring tiles lie beside each other, and four tiles are one vector.

use super::panels::{self, multiply, packed_columns, width_at, Rows, Start};
use crate::dynamic::call::{room, Failure};
use crate::dynamic::value::Tensor;
use std::arch::wasm32::{
    f32x4_add, f32x4_mul, f32x4_splat, f32x4_sub, i32x4_shuffle, v128, v128_load32_lane,
    v128_load32_zero, v128_store32_lane, v128_store64_lane,
};

/// Outputs and inputs of a tile, along each axis.
const TILE: usize = 4;
const REACH: usize = 6;
const POINTS: usize = REACH * REACH;

/// Bytes of transformed tiles, which stay in the second-level cache.
const CACHE_NBYTES: usize = 640 * 1024;

/// Floats behind what is read or written by whole vectors.
const SLACK: usize = 4;

/// How much longer the transforms make it, at least.
const MARGIN: f32 = 1.5;

/// One convolution.
#[derive(Clone, Copy)]
pub struct Shape {
    pub channels: usize,
    pub features: usize,
    /// Of the input.
    pub extents: [usize; 2],
    /// Padding before the first row and column.
    pub begin: [usize; 2],
    /// Of the output.
    pub out: [usize; 2],
}

impl Shape {
    /// Whether it takes less time this way.
    pub fn is_worthwhile(&self) -> bool {
        let [rows, columns] = self.tiles();
        let tiles = (rows * (columns + 1) + 3) & !3;
        let places = self.out[0] * self.out[1];
        self.channels >= 8
            && self.features >= 8
            && MARGIN * ((tiles * POINTS) as f32) < (places * 9) as f32
    }

    fn tiles(&self) -> [usize; 2] {
        let [rows, columns] = self.out;
        [(rows + TILE - 1) / TILE, (columns + TILE - 1) / TILE]
    }

    /// Tiles per row, with the one that nobody wants.
    fn pitch(&self) -> usize {
        self.tiles()[1] + 1
    }

    fn phase(&self) -> usize {
        (self.tiles()[0] + 1) * self.pitch() + SLACK
    }

    fn plane(&self) -> usize {
        TILE * TILE * self.phase()
    }
}

/// Room for what a convolution needs meanwhile, and its transformed weights.
pub struct Winograd {
    shape: Shape,
    weights: Tensor,
    laid_out: Tensor,
    line: Tensor,
    inputs: Tensor,
    products: Tensor,
    block: usize,
}

type Six = [v128; REACH];

#[inline(always)]
fn times(x: v128, factor: f32) -> v128 {
    f32x4_mul(x, f32x4_splat(factor))
}

#[inline(always)]
fn ends(a: v128, b: v128, c: v128) -> v128 {
    f32x4_add(f32x4_sub(times(a, 4.0), times(b, 5.0)), c)
}

/// B^T d
#[inline(always)]
fn input_transform(d: Six) -> Six {
    let even = f32x4_sub(d[4], times(d[2], 4.0));
    let odd = f32x4_sub(d[3], times(d[1], 4.0));
    let near = f32x4_sub(d[4], d[2]);
    let far = times(f32x4_sub(d[3], d[1]), 2.0);
    [
        ends(d[0], d[2], d[4]),
        f32x4_add(even, odd),
        f32x4_sub(even, odd),
        f32x4_add(near, far),
        f32x4_sub(near, far),
        ends(d[1], d[3], d[5]),
    ]
}

/// G g
#[inline(always)]
fn kernel_transform(g: [v128; 3]) -> Six {
    let outer = times(f32x4_add(g[0], g[2]), -1.0 / 6.0);
    let middle = times(g[1], 1.0 / 6.0);
    let wide = f32x4_add(times(g[0], 1.0 / 24.0), times(g[2], 1.0 / 6.0));
    let half = times(g[1], 1.0 / 12.0);
    [
        times(g[0], 0.25),
        f32x4_sub(outer, middle),
        f32x4_add(outer, middle),
        f32x4_add(wide, half),
        f32x4_sub(wide, half),
        g[2],
    ]
}

/// A^T m
#[inline(always)]
fn output_transform(m: Six) -> [v128; TILE] {
    let (near, far) = (f32x4_add(m[1], m[2]), f32x4_add(m[3], m[4]));
    let (less, lesser) = (f32x4_sub(m[1], m[2]), f32x4_sub(m[3], m[4]));
    [
        f32x4_add(f32x4_add(m[0], near), far),
        f32x4_add(less, times(lesser, 2.0)),
        f32x4_add(near, times(far, 4.0)),
        f32x4_add(f32x4_add(less, times(lesser, 8.0)), m[5]),
    ]
}

/// Rows of four vectors as columns.
#[inline(always)]
fn turned([a, b, c, d]: [v128; 4]) -> [v128; 4] {
    let low = i32x4_shuffle::<0, 4, 1, 5>(a, b);
    let high = i32x4_shuffle::<2, 6, 3, 7>(a, b);
    let low2 = i32x4_shuffle::<0, 4, 1, 5>(c, d);
    let high2 = i32x4_shuffle::<2, 6, 3, 7>(c, d);
    [
        i32x4_shuffle::<0, 1, 4, 5>(low, low2),
        i32x4_shuffle::<2, 3, 6, 7>(low, low2),
        i32x4_shuffle::<0, 1, 4, 5>(high, high2),
        i32x4_shuffle::<2, 3, 6, 7>(high, high2),
    ]
}

#[inline(always)]
unsafe fn read(from: *const f32) -> v128 {
    from.cast::<v128>().read_unaligned()
}

#[inline(always)]
unsafe fn write(to: *mut f32, value: v128) {
    to.cast::<v128>().write_unaligned(value)
}

/// The elements at one place of six arrays.
#[inline(always)]
fn column_of<const N: usize>(half: &[[v128; N]; REACH], y: usize) -> Six {
    [
        half[0][y], half[1][y], half[2][y], half[3][y], half[4][y], half[5][y],
    ]
}

// Written out, as the compiler calls the iterators of arrays.
#[allow(clippy::needless_range_loop)]
impl Winograd {
    /// `weights`: features by channels by nine.
    ///
    /// # Safety
    /// There are as many as the shape says.
    pub unsafe fn new(shape: Shape, weights: *const f32) -> Result<Winograd, Failure> {
        let (channels, features) = (shape.channels, shape.features);
        let tiles = shape.tiles()[0] * shape.pitch();
        let block = (CACHE_NBYTES / 4 / POINTS / (channels + features)).max(16) & !15;
        let block = block.min(packed_columns(tiles));
        let buffer = |count: usize| room(vec![count + panels::SLACK], 4);
        let transformed = buffer(POINTS * features * channels)?;
        transform_weights(weights, features, channels, transformed.start().cast());
        Ok(Winograd {
            shape,
            weights: transformed,
            laid_out: buffer(channels * shape.plane())?,
            line: buffer(TILE * shape.pitch() + 2 * TILE * TILE)?,
            inputs: buffer(POINTS * channels * block)?,
            products: buffer(POINTS * features * block)?,
            block,
        })
    }

    /// One image: channels by rows by columns; then features.
    ///
    /// # Safety
    /// The images have the shape's extents.
    pub unsafe fn run(
        &self,
        image: *const f32,
        out: *mut f32,
        start: impl Fn(usize) -> f32,
    ) -> Result<(), Failure> {
        let shape = &self.shape;
        let area = shape.extents[0] * shape.extents[1];
        let places = shape.out[0] * shape.out[1];
        for channel in 0..shape.channels {
            let to = self
                .laid_out
                .start()
                .cast::<f32>()
                .add(channel * shape.plane());
            self.lay_out(image.add(channel * area), to);
        }
        let tiles = shape.tiles()[0] * shape.pitch();
        for first in (0..tiles).step_by(self.block) {
            let count = packed_columns(self.block.min(tiles - first));
            for channel in 0..shape.channels {
                self.transform_inputs(channel, first, count);
            }
            for point in 0..POINTS {
                let rows = Rows {
                    a: (self.weights.start().cast::<f32>())
                        .add(point * shape.features * shape.channels),
                    a_row: shape.channels,
                    out: (self.products.start().cast::<f32>()).add(point * shape.features * count),
                    out_row: count,
                    count: shape.features,
                    depth: shape.channels,
                };
                let packed = self.inputs.start().cast::<f32>();
                let packed = packed.add(point * shape.channels * count);
                multiply(rows, packed, count, Start::zero())?;
            }
            for feature in 0..shape.features {
                let to = out.add(feature * places);
                self.transform_outputs(feature, first, count, to, start(feature));
            }
        }
        Ok(())
    }

    /// The elements of every fourth row and column beside each other, 16 phases.
    unsafe fn lay_out(&self, from: *const f32, to: *mut f32) {
        let shape = &self.shape;
        let (pitch, [height, width]) = (shape.pitch(), shape.extents);
        let wide = TILE * pitch;
        let line: *mut f32 = self.line.start().cast();
        let begin = shape.begin[1];
        let inside = width.min(wide.saturating_sub(begin));
        for row in 0..TILE * (shape.tiles()[0] + 1) {
            let to = to.add(row % TILE * TILE * shape.phase() + row / TILE * pitch);
            let source = row.checked_sub(shape.begin[0]).filter(|&y| y < height);
            (0..begin.min(wide)).for_each(|i| *line.add(i) = 0.0);
            if let Some(y) = source {
                for i in (0..inside).step_by(4) {
                    write(line.add(begin + i), read(from.add(y * width + i)));
                }
            }
            let end = if source.is_some() { begin + inside } else { 0 };
            (end..wide + 2 * TILE).for_each(|i| *line.add(i) = 0.0);
            for tile in (0..pitch).step_by(4) {
                let from = line.add(TILE * tile);
                let four = [
                    read(from),
                    read(from.add(4)),
                    read(from.add(8)),
                    read(from.add(12)),
                ];
                let [a, b, c, d] = turned(four);
                let (to, step) = (to.add(tile), shape.phase());
                write(to, a);
                write(to.add(step), b);
                write(to.add(2 * step), c);
                write(to.add(3 * step), d);
            }
        }
    }

    /// Panels of transformed tiles of one channel, for every point.
    unsafe fn transform_inputs(&self, channel: usize, first: usize, count: usize) {
        let shape = &self.shape;
        let from = self.laid_out.start().cast::<f32>();
        let from = from.add(channel * shape.plane() + first);
        let to = self.inputs.start().cast::<f32>();
        let step = shape.channels * count;
        let mut column = 0;
        while column < count {
            let width = width_at(column, count);
            let to = to.add(column * shape.channels + channel * width);
            for vector in (0..width).step_by(4) {
                let tile = column + vector;
                let mut half = [[f32x4_splat(0.0); REACH]; REACH];
                for x in 0..REACH {
                    let place = x % TILE * shape.phase() + x / TILE + tile;
                    let (from, below) = (from.add(place), TILE * shape.phase());
                    let second = from.add(shape.pitch());
                    half[x] = input_transform([
                        read(from),
                        read(from.add(below)),
                        read(from.add(2 * below)),
                        read(from.add(3 * below)),
                        read(second),
                        read(second.add(below)),
                    ]);
                }
                for y in 0..REACH {
                    let points = input_transform(column_of(&half, y));
                    let to = to.add(y * REACH * step + vector);
                    write(to, points[0]);
                    write(to.add(step), points[1]);
                    write(to.add(2 * step), points[2]);
                    write(to.add(3 * step), points[3]);
                    write(to.add(4 * step), points[4]);
                    write(to.add(5 * step), points[5]);
                }
            }
            column += width;
        }
    }

    /// Outputs of some tiles of one feature.
    unsafe fn transform_outputs(
        &self,
        feature: usize,
        first: usize,
        count: usize,
        to: *mut f32,
        start: f32,
    ) {
        let shape = &self.shape;
        let from = self.products.start().cast::<f32>().add(feature * count);
        let step = shape.features * count;
        let [rows, columns] = shape.tiles();
        let start = f32x4_splat(start);
        for vector in (0..count).step_by(4) {
            let mut half = [[start; TILE]; REACH];
            for x in 0..REACH {
                let from = from.add(x * step + vector);
                let below = REACH * step;
                half[x] = output_transform([
                    read(from),
                    read(from.add(below)),
                    read(from.add(2 * below)),
                    read(from.add(3 * below)),
                    read(from.add(4 * below)),
                    read(from.add(5 * below)),
                ]);
            }
            for y in 0..TILE {
                let [a, b, c, d] = output_transform(column_of(&half, y));
                let outputs = turned([
                    f32x4_add(a, start),
                    f32x4_add(b, start),
                    f32x4_add(c, start),
                    f32x4_add(d, start),
                ]);
                for lane in 0..4 {
                    let value = outputs[lane];
                    let tile = first + vector + lane;
                    let (row, column) = (tile / shape.pitch(), tile % shape.pitch());
                    let line = TILE * row + y;
                    if column == columns || row >= rows || line >= shape.out[0] {
                        continue;
                    }
                    let to = to.add(line * shape.out[1] + TILE * column);
                    store(to, value, shape.out[1] - TILE * column);
                }
            }
        }
    }
}

/// The first elements, at most four.
unsafe fn store(to: *mut f32, value: v128, count: usize) {
    match count {
        1 => v128_store32_lane::<0>(value, to.cast()),
        2 => v128_store64_lane::<0>(value, to.cast()),
        3 => {
            v128_store64_lane::<0>(value, to.cast());
            v128_store32_lane::<2>(value, to.add(2).cast());
        }
        _ => write(to, value),
    }
}

/// For every point features by channels, four channels at a time.
#[allow(clippy::needless_range_loop)]
unsafe fn transform_weights(from: *const f32, features: usize, channels: usize, to: *mut f32) {
    for feature in 0..features {
        for channel in (0..channels).step_by(4) {
            let many = (channels - channel).min(4);
            let at =
                |lane: usize| from.add((feature * channels + channel + lane.min(many - 1)) * 9);
            let tap = |i: usize| {
                let value = v128_load32_zero(at(0).add(i).cast());
                let value = v128_load32_lane::<1>(value, at(1).add(i).cast());
                let value = v128_load32_lane::<2>(value, at(2).add(i).cast());
                v128_load32_lane::<3>(value, at(3).add(i).cast())
            };
            let columns: [Six; 3] = [
                kernel_transform([tap(0), tap(3), tap(6)]),
                kernel_transform([tap(1), tap(4), tap(7)]),
                kernel_transform([tap(2), tap(5), tap(8)]),
            ];
            for y in 0..REACH {
                let points = kernel_transform([columns[0][y], columns[1][y], columns[2][y]]);
                for x in 0..REACH {
                    let place = (y * REACH + x) * features * channels;
                    store(
                        to.add(place + feature * channels + channel),
                        points[x],
                        many,
                    );
                }
            }
        }
    }
}
